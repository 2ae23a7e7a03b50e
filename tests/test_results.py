"The configurations, COCO's download and the whole road of a training, as the scripts walk it."
import hashlib, os, shutil, subprocess, sys, zipfile
from pathlib import Path
import pytest

from ssd_nb.config import SSDConfig, make_config, read_yaml

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT/'configs').glob('*.yaml'))

@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_loads_and_says_how_it_is_used(path):
    cfg = make_config(read_yaml(path), source=str(path))
    assert isinstance(cfg, SSDConfig)
    assert f'--config configs/{path.name}' in path.read_text()

@pytest.fixture
def server(tmp_path):
    "A folder that serves two small archives, and the list of them."
    for tool in 'curl', 'unzip':
        if shutil.which(tool) is None: pytest.skip(f'needs {tool}')
    lines = []
    for path, folder in ('zips/val2017.zip', 'val2017'), ('annotations/some.zip', 'annotations'):
        archive = tmp_path/'server'/path
        archive.parent.mkdir(parents=True)
        with zipfile.ZipFile(archive, 'w') as z: z.writestr(f'{folder}/file.txt', folder*1000)
        content = archive.read_bytes()
        lines.append(f'{len(content)} {hashlib.md5(content).hexdigest()} {path} {folder}\n')
    (tmp_path/'files.txt').write_text(''.join(lines))
    return tmp_path

def download(server, **env):
    env = {**os.environ, 'COCO_URL': f'file://{server}/server', 'COCO_FILES': str(server/'files.txt'), **env}
    line = ['bash', ROOT/'scripts/download_coco.sh', str(server/'coco')]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60)

def test_coco_arrives_in_the_folders_of_training(server):
    done = download(server)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (server/'coco').iterdir()) == ['annotations', 'val2017']
    assert (server/'coco/val2017/file.txt').read_text() == 'val2017'*1000
    assert 'val2017 is there' in download(server).stdout # nothing is fetched twice

def test_a_download_goes_on_where_it_stood(server):
    whole = (server/'server/zips/val2017.zip').read_bytes()
    (server/'coco').mkdir()
    (server/'coco/val2017.zip').write_bytes(whole[:100])
    assert download(server, KEEP_ZIP='1').returncode == 0
    assert (server/'coco/val2017.zip').read_bytes() == whole

@pytest.mark.parametrize('spoil, said', [
    (lambda whole: whole[:-1] + b'x', 'is not the published file'), (lambda whole: whole + b'x', 'bytes instead of')])
def test_another_file_is_refused(spoil, said, server):
    archive = server/'server/zips/val2017.zip'
    archive.write_bytes(spoil(archive.read_bytes()))
    done = download(server)
    assert done.returncode == 1 and said in done.stderr and 'val2017.zip' in done.stderr
    assert not (server/'coco/val2017').exists()

def test_a_server_that_is_away_is_named(server):
    done = download(server, COCO_URL='file:///nowhere')
    assert done.returncode == 1 and 'file:///nowhere/zips/val2017.zip cannot be fetched' in done.stderr

def test_the_whole_road(sample_data, tmp_path):
    "MindRecord, training, both protocols, prediction, export; one epoch of seven steps."
    small = '--epoch_size', '1', '--batch_size', '16', '--warmup_epochs', '0', '--num_workers', '0'
    root = sample_data('coco-tiny')
    line = [sys.executable, ROOT/'scripts/coco_road.py', '--coco_root', root, '--output', tmp_path/'road', *small]
    done = subprocess.run(line, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    made = {p.relative_to(tmp_path/'road').as_posix() for p in (tmp_path/'road').rglob('*')}
    reports = {'eval/standard/report.json', 'eval/reference/report.json'}
    assert {'run/best.safetensors', *reports, 'predict/predictions.json', 'ssd.onnx'} <= made
    assert 'so an epoch of COCO2017 takes' in done.stdout
    again = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert again.returncode == 1 and 'exists; name another' in again.stderr
