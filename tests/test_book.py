"The web site in a browser: headless Chromium opens every page from the disk, as a reader without a network does."
import re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
import pytest

ROOT = Path(__file__).resolve().parent.parent
PHONE, DESK = 390, 1280 # pixels across
FLAGS = '''headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking
    disable-component-update disable-sync'''.split()
for need in ('mkdocs', 'material', 'mkdocstrings', 'latex2mathml', 'selenium'):
    pytest.importorskip(need, reason=f"{need} is missing; what writes the site comes with pip install -e '.[book]'")

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('book')/'site'
    run = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder],
        cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return folder

@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    found = [shutil.which(name) for name in ('chromium', 'chromium-browser', 'google-chrome')]
    chromium, driver = next(filter(None, found), None), shutil.which('chromedriver')
    if not (chromium and driver): pytest.skip('Chromium or its driver is missing: apt install chromium chromium-driver')
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS: options.add_argument(f'--{flag}')
    options.add_argument(f'--user-data-dir={tmp_path_factory.mktemp("profile")}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driver
    driver.quit()

def across(browser, width: int) -> None:
    "A window as wide as a phone or a desk's screen."
    screen = dict(width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)

class Page(HTMLParser):
    "The places and links of a page."
    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        self.ids |= {value for name, value in attrs if name in ('id', 'name')}
        self.links |= {value for name, value in attrs if name in ('href', 'src') and value}

def test_links_resolve(site):
    pages = {path: Page(path) for path in site.rglob('*.html') if path.name != '404.html'}
    assert len(pages) > 100
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            to = urlsplit(link)
            if to.scheme or to.netloc: continue
            target = (path.parent/unquote(to.path)).resolve() if to.path else path
            place = to.fragment and target in pages and unquote(to.fragment) not in pages[target].ids
            if not target.exists() or place and to.fragment != '__skip': wrong.append(f'{path.name}: {link}')
    assert not wrong, '\n'.join(wrong)

def test_every_page_loads_on_a_phone(site, browser):
    across(browser, PHONE)
    complaints = []
    for path in sorted(site.rglob('*.html')):
        if path.name == '404.html': continue # its addresses are those of a server
        browser.get(path.as_uri())
        width = browser.execute_script('return document.documentElement.scrollWidth')
        if width > PHONE: complaints.append(f'{path.name}: {width} pixels wide')
        complaints += [f'{path.name}: {entry["message"]}' for entry in browser.get_log('browser')]
    assert not complaints, '\n'.join(complaints)

def test_search_finds_hard_negatives(site, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait
    across(browser, DESK)
    browser.get((site/'index.html').as_uri())
    browser.find_element(By.CSS_SELECTOR, 'input[data-md-component=search-query]').send_keys('hard negative')
    def found(_): return browser.find_elements(By.CSS_SELECTOR, '.md-search-result__item a')
    links = [link.get_attribute('href') for link in WebDriverWait(browser, 20).until(found)]
    assert any('06_losses.html' in link for link in links), links

def test_page_shows_what_the_notebook_holds(site):
    page = (site/'3_learning/06_losses.html').read_text(encoding='utf-8')
    assert '<math' in page and '\\(' not in re.sub(r'<(pre|code).*?</\1>', '', page, flags=re.S), 'formulas are drawn'
    assert re.search(r'<img[^>]+06_losses-\d+-0\.\w+', page), 'pictures are there'
    assert re.search(r'<details>\s*<summary>(Solution|Answer)</summary>\s*<p>', page), 'solutions are folded'
    reference = (site/'reference/boxes.coding.html').read_text(encoding='utf-8')
    assert '[n, m] in 0..1' in reference, 'the comments beside parameters are in the reference'
