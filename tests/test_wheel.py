"""The wheel: what `pip install` puts on another machine.

It is built as package indexes ask for it: from the source distribution, which must therefore hold all that `setup.py`
reads."""
import os, shutil, subprocess, sys, tarfile, zipfile
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = 'import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))'

def build(kind: str, source: Path, folder: Path) -> Path:
    "An sdist or a wheel of a source tree."
    line = [sys.executable, '-c', BUILD, f'build_{kind}', str(folder)]
    done = subprocess.run(line, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder/done.stdout.splitlines()[-1]

@pytest.fixture(scope='module')
def sdist(tmp_path_factory):
    "The source distribution of the committed files, without what a build would leave among them."
    tree = tmp_path_factory.mktemp('tree')
    for path in ROOT.iterdir():
        if path.is_file(): shutil.copy(path, tree)
    for name in ('ssd_nb', 'tests'): shutil.copytree(ROOT/name, tree/name, ignore=shutil.ignore_patterns('__pycache__'))
    return build('sdist', tree, tmp_path_factory.mktemp('sdist'))

@pytest.fixture(scope='module')
def wheel(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp('source')
    with tarfile.open(sdist) as archive: archive.extractall(folder)
    return build('wheel', next(folder.iterdir()), tmp_path_factory.mktemp('wheel'))

@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    "The wheel unpacked, which is what an installation of pure Python is."
    folder = tmp_path_factory.mktemp('site-packages')
    with zipfile.ZipFile(wheel) as archive: archive.extractall(folder)
    return folder

@pytest.fixture(scope='module')
def settings():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini', encoding='utf-8')
    return config['DEFAULT']

def test_the_wheel_holds_the_library_and_nothing_else(installed):
    found = {str(p.relative_to(installed)) for p in installed.rglob('*') if p.is_file()}
    modules = {str(p.relative_to(ROOT)) for p in (ROOT/'ssd_nb').rglob('*.py')}
    about = {name for name in found if name.split('/')[0].endswith('.dist-info')}
    assert found - about == modules | {'ssd_nb/py.typed'}
    assert {Path(name).name for name in about} >= {'METADATA', 'entry_points.txt', 'LICENSE', 'RECORD'}
    for name in modules: assert (installed/name).read_bytes() == (ROOT/name).read_bytes()

def test_the_source_distribution_holds_no_tests(sdist):
    "They need the notebooks and the fixtures; who wants to run them clones."
    with tarfile.open(sdist) as archive: parts = {name.split('/')[1] for name in archive.getnames() if '/' in name}
    assert 'tests' not in parts and {'settings.ini', 'setup.py', 'README.md', 'LICENSE'} <= parts

def test_the_metadata_are_those_of_the_settings(installed, settings):
    about = message_from_string(next(installed.glob('*.dist-info/METADATA')).read_text(encoding='utf-8'))
    assert (about['Name'], about['Version']) == (settings['lib_name'], settings['version'])
    assert about['Requires-Python'] == '>=3.10,<3.13' and about['Summary'] == settings['description']
    assert about['Keywords'].split(',') == settings['keywords'].split()
    assert about.get_payload().strip() == (ROOT/'README.md').read_text(encoding='utf-8').strip()
    extras = {name.removesuffix('_requirements') for name in settings if name.endswith('_requirements')}
    assert set(about.get_all('Provides-Extra')) == extras
    needs = about.get_all('Requires-Dist')
    for extra in extras: # as many as are named, each for its extra
        named = settings[f'{extra}_requirements'].split()
        assert len([need for need in needs if f'extra == "{extra}"' in need]) == len(named), extra
    assert len([need for need in needs if 'extra ==' not in need]) == len(settings['requirements'].split())

def test_it_runs_where_there_is_no_clone(installed, settings, tmp_path):
    code = ('import importlib.metadata as m, ssd_nb; d = m.distribution("ssd_nb"); '
            'print(ssd_nb.__file__, ssd_nb.__version__, d.version); '
            'd.entry_points.select(group="console_scripts", name="ssd_nb")["ssd_nb"].load()(["--help"])')
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(installed)})
    assert done.returncode == 0, done.stderr
    where, *versions = done.stdout.splitlines()[0].split()
    assert Path(where).is_relative_to(installed) and versions == [settings['version']]*2
    assert 'ssd_nb COMMAND --help' in done.stdout
