"A folder as an annotation tool leaves it is enough to train on: a detector, a score and a report come out."
import os, re, subprocess, sys, textwrap
from html.parser import HTMLParser
from pathlib import Path
import pytest
from conftest import BACKEND, NET, command
from drawn_folders import FOLDERS, NAMES
from ssd_nb import checkpoint, weights
from ssd_nb.config import SSDConfig, read_yaml
from ssd_nb.errors import ConfigError, UserError
from ssd_nb.train import main, train
from ssd_nb.training.defaults import folder_config

ROOT = Path(__file__).resolve().parent.parent
QUICK = dict(**NET, backend=BACKEND, device='cpu', num_workers=0, epoch_size=2) # a network of the tests, two epochs

class Page(HTMLParser):
    "A page's text; fails if a mark is left open, or if anything is fetched."
    def __init__(self, text):
        super().__init__()
        self.open, self.words = [], []
        self.feed(text)
        assert not self.open
    def handle_starttag(self, tag, attributes):
        assert tag not in ('script', 'link', 'iframe', 'object')
        for name, value in attributes: assert name not in ('src', 'href') or value.startswith('data:image/png;base64,')
        if tag not in ('meta', 'img'): self.open.append(tag)
    def handle_endtag(self, tag): assert self.open.pop() == tag
    def handle_data(self, data): self.words.append(data)

@pytest.fixture(scope='module', params=list(FOLDERS))
def folder(request, tmp_path_factory):
    return FOLDERS[request.param](tmp_path_factory.mktemp('own')/f'my {request.param} pictures', 12)

def test_a_path_is_enough(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = train(folder, **QUICK)
    cfg, out = run.cfg, capsys.readouterr().out
    assert set(cfg.classes) == set(NAMES) and cfg.class_num == 4 and cfg.dataset in ('voc', 'yolo', 'coco')
    assert '--batch_size 2: ' in out and '--epoch_size' not in out # of what was given nothing need be said
    assert read_yaml(run.folder/'config.yaml')['batch_size'] == cfg.batch_size == 2
    assert run.steps[-1].mAP is not None and (run.folder/'last.safetensors').exists()
    words = ' '.join(' '.join(Page((run.folder/'report.html').read_text(encoding='utf-8')).words).split())
    for text in ('What to try next', f'{run.steps[-1].mAP:.3f}', *NAMES, 'random at the start'): assert text in words
    kept = command('eval', '--checkpoint_path', run.folder, '--device', 'cpu', '--output_dir', 'eval')
    again = float(re.search(r'mAP: (\S+)', kept.stdout)[1])
    assert again == pytest.approx(run.steps[-1].mAP, abs=1e-6) # on the same split

def test_background_pictures_are_learnt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, counts = FOLDERS['yolo'](tmp_path/'pictures', 12), []
    monkeypatch.setattr('ssd_nb.train._greet', lambda run, place, images: counts.append(images))
    once = QUICK | dict(epoch_size=1, run_eval=False)
    for background in ('keep', 'drop'): train(folder, **once, background=background)
    assert counts == [12, 9] # every fourth has none

def test_flags_give_way_to_nothing(folder, monkeypatch):
    "What is given stands; without trained weights to be had there is a sentence and the small network."
    def unreachable(name): raise UserError('npm could not fetch it: ENOTFOUND; is there a network?')
    monkeypatch.setattr('ssd_nb.training.defaults.get', unreachable)
    cfg, lines = folder_config(dict(data=str(folder), epoch_size='7', on_bad_data='error', lr=.003))
    assert (cfg.epoch_size, cfg.on_bad_data, cfg.lr, cfg.image_size) == (7, 'error', .003, 128)
    assert 'is there a network?' in lines[0] and '--preset tiny' in lines[0] and not cfg.pre_trained
    monkeypatch.setattr('ssd_nb.training.defaults.get', lambda name: None)
    cfg, lines = folder_config(dict(data=str(folder)))
    assert cfg.pre_trained == 'openimages' and cfg.network == SSDConfig.preset('ssd300_mobilenet_v2_openimages').network
    cfg, lines = folder_config(dict(data=str(folder), image_shape=(320, 320), steps=()))
    assert cfg.image_size == 320 and not cfg.pre_trained and cfg.batch_size == 2

def test_trained_weights_are_the_start(folder, sample_data, tmp_path, monkeypatch):
    monkeypatch.setenv('SSD_NB_CACHE', str(sample_data('openimages_ssd')))
    cfg, _ = folder_config(dict(data=str(folder), backend=BACKEND, device='cpu'))
    assert cfg.pre_trained in weights.PUBLISHED and cfg.epoch_size == 300

def test_presets_mean_what_they_meant(folder, tmp_path, monkeypatch, capsys):
    "With a preset or a file of numbers nothing is chosen."
    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr('ssd_nb.train.train', lambda cfg, resume, reasons: started.append(cfg))
    (tmp_path/'numbers.yaml').write_text('batch_size: 4\n')
    for args in (['--preset', 'tiny'], ['--config', 'numbers.yaml']): main([str(folder), *args])
    assert [(c.batch_size, c.epoch_size) for c in started] == [(16, 16), (4, 500)]
    assert 'chosen' not in capsys.readouterr().out
    main(['--preset', 'tiny'])
    assert started[-1] == SSDConfig.preset('tiny')

def test_a_run_is_finished_and_resumed_from_python(folder, tmp_path, monkeypatch):
    "A finished run that is resumed learns nothing more, and its report is written again."
    monkeypatch.chdir(tmp_path)
    run = train(data=folder, output_dir='run', **QUICK)
    def words(): return Page(Path('run/report.html').read_text(encoding='utf-8')).words
    said = words()
    before = checkpoint.load('run/last.safetensors')[0]
    (run.folder/'report.html').unlink()
    again = train(resume='run')
    assert again.folder == Path('run') and words() == said
    after = checkpoint.load('run/last.safetensors')[0]
    assert all((before[name] == after[name]).all() for name in before)

def test_a_script_without_a_main_guard(tmp_path):
    folder = FOLDERS['roboflow'](tmp_path/'pictures', 8)
    script = textwrap.dedent(f'''
        from ssd_nb.train import train
        print('once')
        run = train({str(folder)!r}, **{QUICK | dict(num_workers=2)!r})
        print('mAP', run.steps[-1].mAP)
        ''')
    (tmp_path/'script.py').write_text(script)
    done = subprocess.run([sys.executable, 'script.py'], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0 and done.stdout.count('once') == 1 and 'mAP' in done.stdout, done.stderr

@pytest.mark.parametrize('given, sentence', [
    ({}, 'on which data'),
    (dict(data='/nowhere'), '/nowhere'),
    (dict(data='.', epoch_siez=3), 'did you mean epoch_size'),
    (dict(data='.'), 'no annotations in a known format')])
def test_what_cannot_be_trained_on_is_a_sentence(given, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence): train(**given)
    assert list(tmp_path.iterdir()) == []

def test_a_report_that_cannot_be_written_says_how_to_go_on(tmp_path, monkeypatch):
    "The checkpoint is there already, so the run is resumed, and nothing is learnt again."
    monkeypatch.chdir(tmp_path)
    folder = FOLDERS['labelimg'](tmp_path/'pictures', 10)
    def full(*args, **kwargs): raise OSError(28, 'No space left on device', 'run/report.html')
    with monkeypatch.context() as patch:
        patch.setattr('ssd_nb.training.report.write_report', full)
        with pytest.raises(UserError, match='report.html: No space left on device.*--resume run'):
            train(folder, output_dir='run', **QUICK)
    assert not Path('run/report.html').exists() and train(resume='run').steps
    assert Path('run/report.html').exists()

def test_positional_and_flag_must_agree(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command('train', folder, '--data', 'elsewhere', status=2, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert 'name one data set' in done.stderr
    with pytest.raises(ConfigError): train(folder, preset='tiny', batch_size=0)
