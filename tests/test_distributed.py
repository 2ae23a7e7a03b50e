"Two processes do what one does, through the scripts and the frameworks' launchers."
import csv, json, os, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest
from ssd_nb import checkpoint
from ssd_nb.config import SSDConfig
from ssd_nb.shapes import write_shapes
from ssd_nb.train import train

SCRIPTS = Path(__file__).resolve().parent.parent/'scripts'
NET = dict(image_shape=(64, 64), steps=(8, 16, 32, 64, 64), num_workers=0, warmup_epochs=2., eval_start_epoch=5)

def flags(values): return ' '.join(f'--{k} {",".join(map(str, v)) if isinstance(v, tuple) else v}' for k, v in values.items())

def script(name, *args, cwd, more='', status=0, target='CPU', sh='bash'):
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'DEVICE_TARGET': target, 'BACKEND': 'torch', 'ARGS': more, 'PYTHON': sys.executable}
    done = subprocess.run([sh, SCRIPTS/name, *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, timeout=170)
    log = ''.join(p.read_text() for p in sorted(cwd.glob('*/log.txt')))
    assert done.returncode == status, done.stdout + done.stderr + log
    return done

@pytest.fixture(scope='module')
def begun(tmp_path_factory):
    "Scenes, and weights after 60 steps: fresh ones turn the last digit of a sum into the third of a loss within ten steps (nbs/20b_devices)."
    folder = tmp_path_factory.mktemp('begun')
    root = write_shapes(folder/'shapes', train=48, val=20)
    cfg = SSDConfig.preset('tiny', coco_root=str(root), device='cpu', batch_size=8, epoch_size=10, run_eval=False, lr=.02, output_dir=str(folder/'run'), **NET)
    train(cfg)
    return root, folder/'run'

@pytest.fixture(scope='module')
def pair(begun, tmp_path_factory):
    "The same ten steps and their evaluation: one process with batches of 8, two with 4 each."
    (root, weights), folder = begun, tmp_path_factory.mktemp('pair')
    common = dict(preset='tiny', coco_root=root, run_eval='true', lr_init=.001, sync_norm='true', **NET)
    (folder/'one').mkdir(); (folder/'two').mkdir()
    script('run_standalone_train.sh', 2, .001, 'shapes', 0, weights, 0, cwd=folder/'one', more=flags({**common, 'batch_size': 8}))
    script('run_distribute_train_gpu.sh', 2, 2, .001, 'shapes', weights, 0, cwd=folder/'two', more=flags({**common, 'batch_size': 4}))
    return folder/'one/LOG/run', folder/'two/LOG/run'

def column(run, name): return np.array([float(r[name]) for r in csv.DictReader((run/'metrics.csv').open()) if r[name]])

def test_two_processes_have_the_losses_of_one(pair):
    one, two = (column(run, 'loss') for run in pair)
    assert len(one) == len(two) == 12
    np.testing.assert_allclose(one[:10], two[:10], rtol=1e-4)
    a, b = (checkpoint.load(run/'last.safetensors')[0] for run in pair)
    assert max(np.abs(a[k] - b[k]).max()/max(np.abs(a[k]).max(), 1e-6) for k in a if k.endswith(('weight', 'variance')) and not k.startswith('momentum')) < 1e-3

def test_two_processes_evaluate_as_one(pair, tmp_path):
    two = pair[1]
    report = json.loads((two/'report.json').read_text())
    found = script('run_eval_gpu.sh', 'shapes', two, 0, cwd=tmp_path, more='--batch_size 4')
    assert json.loads((tmp_path/'eval0/results/report.json').read_text())['AP'] == report['AP']
    assert (tmp_path/'eval0/results/predictions.json').read_bytes() == (two/'predictions.json').read_bytes()
    assert 'mAP: ' in found.stdout

def test_only_rank_0_writes(pair):
    assert (pair[1]/'train.log').read_text().count('epoch: 1 step: 6, loss is') == 1
    assert 'on each of 2 devices' in (pair[1]/'train.log').read_text()

def test_interrupted_together_and_resumed(begun, tmp_path):
    "SIGTERM to the launcher of two processes; the resumed run equals an undisturbed one, bit by bit."
    root, _ = begun
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    base = [sys.executable, '-m', 'ssd_nb.train']
    args = f'--preset tiny --device cpu --device_num 2 --coco_root {root} --batch_size 4 --epoch_size 3 --run_eval false --log_steps 1 {flags({**NET, "eval_start_epoch": 1})}'.split()
    subprocess.run([*base, *args, '--output_dir', tmp_path/'whole'], env=env, check=True, capture_output=True)
    process = subprocess.Popen([*base, *args, '--output_dir', tmp_path/'stopped'], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = tmp_path/'stopped/train.log'
    while not (log.exists() and 'epoch: 2 step: 2' in log.read_text()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(.005)
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=60)[1]
    assert f'--resume {tmp_path}/stopped' in err
    assert len((tmp_path/'stopped/metrics.csv').read_text().splitlines()) - 1 < 18
    subprocess.run([*base, '--resume', tmp_path/'stopped'], env=env, check=True, capture_output=True)
    assert (tmp_path/'whole/metrics.csv').read_bytes() == (tmp_path/'stopped/metrics.csv').read_bytes()
    a, b = (checkpoint.load(tmp_path/name/'last.safetensors')[0] for name in ('whole', 'stopped'))
    assert all(np.array_equal(a[k], b[k]) for k in a)
