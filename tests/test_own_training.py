"What somebody meets who trains on pictures of their own: one training per folder, time left, reports, disk space."
import re, shutil, signal, subprocess, sys
from pathlib import Path
import pytest
from conftest import BACKEND, NET
from drawn_folders import FOLDERS
from ssd_nb import checkpoint, report, train as training
from ssd_nb.backends.session import MOMENTUM
from ssd_nb.config import config_values, read_yaml
from ssd_nb.errors import ConfigError
from ssd_nb.train import train, train_parser
from ssd_nb.training.run import time_words
from ssd_nb.training.stop import Stopped

QUICK = dict(**NET, backend=BACKEND, device='cpu', num_workers=0, epoch_size=2)
HOLDER = '''import sys, pathlib; from ssd_nb.files import alone_in
with alone_in(pathlib.Path(sys.argv[1])): print('inside', flush=True); sys.stdin.read()'''

@pytest.fixture(scope='module')
def pictures(tmp_path_factory): return FOLDERS['labelimg'](tmp_path_factory.mktemp('own')/'pictures', 12)

@pytest.fixture(scope='module')
def run(pictures, tmp_path_factory):
    "A finished run, by a path alone."
    return train(pictures, output_dir=str(tmp_path_factory.mktemp('runs')/'run'), **QUICK, keep_checkpoint_max=2)

@pytest.fixture
def copied(run, tmp_path): return Path(shutil.copytree(run.folder, tmp_path/'copied'))

def text(path): return re.sub(r'<figure>.*?</figure>|<[^>]+>', ' ', Path(path).read_text(encoding='utf-8'))

def test_one_training_at_a_time_in_a_folder(copied, monkeypatch):
    "The second ends with a sentence before any work; a killed one leaves nothing locked."
    other = subprocess.Popen([sys.executable, '-c', HOLDER, str(copied)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline().strip() == b'inside'
    with monkeypatch.context() as patch, pytest.raises(ConfigError) as e:
        patch.setattr(training, 'open_splits', None) # would be called at once
        train(resume=copied)
    assert str(copied) in str(e.value) and f'process {other.pid}' in str(e.value) and 'wait' in str(e.value)
    other.kill()
    other.communicate()
    assert (copied/'.lock').exists() and train(resume=copied).steps and not (copied/'.lock').exists()

def test_the_time_that_is_left(run):
    words = [time_words(s) for s in (1, 50, 600, 5500, 4*3600, 30*3600, 10*86400)]
    assert words == ['1 second', '50 seconds', '10 minutes', '1.5 hours', '4 hours', '30 hours', '10 days']
    log = (run.folder/'train.log').read_text(encoding='utf-8')
    first, last = [line for line in log.splitlines() if line.startswith('epoch time')]
    assert re.search(r'; about \S+ \w+ left', first) and 'left' not in last

def test_ctrl_c_leaves_a_report_and_so_does_the_command(pictures, tmp_path, monkeypatch, capsys):
    def interrupt(*args, finish=training.finish_epoch):
        finish(*args)
        signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(training, 'finish_epoch', interrupt)
    folder = tmp_path/'run'
    with pytest.raises(Stopped): train(pictures, **QUICK | dict(output_dir=str(folder), epoch_size=5))
    assert 'stopped in epoch 2 of 5' in text(folder/'report.html')
    assert f'the report so far: {folder}/report.html' in capsys.readouterr().out
    before = text(folder/'report.html')
    (folder/'report.html').unlink() # as if it had been killed
    report.main([str(folder)])
    assert text(folder/'report.html') == before
    report.main([str(folder), '--data', str(tmp_path/'gone')])
    assert 'could not be read' in capsys.readouterr().out
    said = text(folder/'report.html')
    assert 'What is missing here' in said and 'gone' in said and 'mAP' in said and 'images to learn from' not in said

def test_the_report_of_a_finished_run_comes_out_the_same(run):
    before = text(run.folder/'report.html')
    report.main([str(run.folder)])
    assert text(run.folder/'report.html') == before

def test_few_pictures_are_named(run):
    said = text(run.folder/'report.html')
    assert re.search(r'only \d+ pictures to learn from, each shown 2 times', said)
    assert 'by chance alone' in said

def test_reasons_are_kept(run):
    yaml, log = ((run.folder/name).read_text(encoding='utf-8') for name in ('config.yaml', 'train.log'))
    assert '#   --batch_size 2: at most 16' in yaml and 'chosen: --batch_size 2: at most 16' in log
    assert read_yaml(run.folder/'config.yaml')['batch_size'] == 2

def test_only_the_last_checkpoint_holds_momentum(run):
    def momentum(name): return any(k.startswith(MOMENTUM) for k in checkpoint.load(run.folder/name)[0])
    names = sorted(p.name for p in run.folder.glob('*.safetensors'))
    assert [name for name in names if momentum(name)] == ['last.safetensors'] and len(names) == 4

def test_a_path_behind_a_switch_is_the_path(pictures):
    def values(*words): return config_values(train_parser().parse_args([*map(str, words)]))
    assert values('--run_eval', pictures) == dict(run_eval=True, data=str(pictures))
    assert values(pictures, '--run_eval') == dict(run_eval='true', data=str(pictures))
    with pytest.raises(ConfigError, match="run_eval: 'nowhere' is not true or false"):
        train(pictures, run_eval='nowhere')

def test_help_speaks_as_the_command_was_called(monkeypatch):
    for called, shown in (('/usr/bin/ssd_nb', 'ssd_nb train'), ('/x/ssd_nb/train.py', 'python -m ssd_nb.train')):
        monkeypatch.setattr(sys, 'argv', [called])
        said = train_parser().format_help()
        assert said.startswith(f'usage: {shown} [PATH]') and f'  {shown} PICTURES' in said
        assert ('python -m' in said) == (called != '/usr/bin/ssd_nb')

def test_what_cannot_be_used_is_said(pictures, tmp_path):
    "A training that goes on without a broken picture names it, in its log, too."
    copy = Path(shutil.copytree(pictures, tmp_path/'copy'))
    broken = sorted(copy.rglob('*.jpg'))[0]
    broken.write_bytes(broken.read_bytes()[:300])
    quick = QUICK | dict(epoch_size=1, val_fraction=0, run_eval=False)
    run = train(copy, output_dir=str(tmp_path/'run'), **quick)
    log = (run.folder/'train.log').read_text(encoding='utf-8')
    assert re.search(rf'noticed in the data: 1 x unreadable image .*{broken.stem}.*data check', log)
