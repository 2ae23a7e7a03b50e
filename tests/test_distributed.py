"Two processes do what one does, through the scripts and the frameworks' launchers."
import csv, json, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest
from conftest import NET
from ssd_nb import checkpoint
from ssd_nb.config import SSDConfig
from ssd_nb.backends.launch import free_port
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.train import train

SCRIPTS = Path(__file__).resolve().parent.parent/'scripts'
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}
# the reference's two scripts differ by their default device and framework, and by a table of ranks
def distribute(backend, count, epochs, lr, data, *pre):
    if backend == 'torch': return 'run_distribute_train_gpu.sh', count, epochs, lr, data, *pre
    return 'run_distribute_train.sh', count, epochs, lr, data, '-', *pre

EVAL = dict(torch='run_eval_gpu.sh', mindspore='run_eval.sh')

RUN = dict(NET, num_workers=0, warmup_epochs=2., eval_start_epoch=5)

def script(name, *args, cwd, backend, more='', status=0):
    env = {**ENV, 'DEVICE_TARGET': 'CPU', 'BACKEND': backend, 'ARGS': more, 'PYTHON': sys.executable}
    line = ['bash', SCRIPTS/name, *map(str, args)]
    done = subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    log = ''.join(p.read_text() for p in sorted(cwd.glob('*/log.txt')))
    assert done.returncode == status, done.stdout + done.stderr + log
    assert not any(sign in log for sign in ('[ERROR]', '[WARNING]', '[INFO]')), log
    return done

@pytest.fixture(scope='module')
def begun(backend, tmp_path_factory):
    """Scenes, the network's numbers, and weights after 60 steps: fresh ones turn the last digit of a sum into the third
    of a loss within ten steps (nbs/8_training/07_devices)."""
    folder = tmp_path_factory.mktemp('begun')
    root = write_shapes(folder/'shapes', train=48, val=20)
    train(SSDConfig.preset('tiny', backend=backend, coco_root=str(root), device='cpu', batch_size=8, epoch_size=10,
                           run_eval=False, lr=.02, output_dir=str(folder/'run'), **RUN))
    (folder/'net.yaml').write_text(json.dumps({**RUN, 'coco_root': str(root)})) # JSON is YAML
    return root, folder/'run', folder/'net.yaml'

@pytest.fixture(scope='module')
def pair(backend, begun, tmp_path_factory):
    """The same steps and their evaluation: one process with batches of 8, two with 4 each. Batch norm takes the
    statistics of all images (sync_norm)."""
    (_, weights, net), folder = begun, tmp_path_factory.mktemp('pair')
    common = f'--preset tiny --config {net} --run_eval true --lr_init .001 --sync_norm true'
    one, two = folder/'one', folder/'two'
    for place in (one, two): place.mkdir()
    script('run_standalone_train.sh', 2, .001, 'shapes', 0, weights, 0, cwd=one, backend=backend,
           more=f'{common} --batch_size 8')
    script(*distribute(backend, 2, 2, .001, 'shapes', weights, 0), cwd=two, backend=backend,
           more=f'{common} --batch_size 4')
    return one/'LOG/run', two/'LOG/run'

def column(run, name):
    rows = csv.DictReader((run/'metrics.csv').open())
    return np.array([float(row[name]) for row in rows if row[name]])

def test_two_processes_have_the_losses_of_one(pair):
    one, two = (column(run, 'loss') for run in pair)
    assert len(one) == len(two) == 12
    np.testing.assert_allclose(one[:10], two[:10], rtol=1e-4)
    a, b = (checkpoint.load(run/'last.safetensors')[0] for run in pair)
    for name in a:
        if not name.endswith(('weight', 'variance')) or name.startswith('momentum'): continue
        assert np.abs(a[name] - b[name]).max() < 1e-3*max(np.abs(a[name]).max(), 1e-6), name

def test_two_processes_evaluate_as_one(backend, pair, tmp_path):
    two = pair[1]
    report = json.loads((two/'report.json').read_text())
    found = script(EVAL[backend], 'shapes', two, 0, cwd=tmp_path, backend=backend, more='--batch_size 4')
    results = tmp_path/'eval0/results'
    assert json.loads((results/'report.json').read_text())['AP'] == report['AP']
    assert (results/'predictions.json').read_bytes() == (two/'predictions.json').read_bytes()
    assert 'mAP: ' in found.stdout

def test_only_rank_0_writes(pair):
    assert (pair[1]/'train.log').read_text().count('epoch: 1 step: 6, loss is') == 1
    assert 'on each of 2 devices' in (pair[1]/'train.log').read_text()

def command(*args): return [sys.executable, '-m', 'ssd_nb.train', *map(str, args)]

def test_interrupted_together_and_resumed(backend, begun, tmp_path):
    "Signals to the launcher of two processes; the resumed run equals an undisturbed one, bit by bit."
    *_, net = begun
    args = (f'--preset tiny --config {net} --backend {backend} --device cpu --device_num 2 --batch_size 4 '
            '--epoch_size 3 --run_eval false --log_steps 1 --eval_start_epoch 1').split()
    def run(*more):
        done = subprocess.run(command(*more), env=ENV, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    run(*args, '--output_dir', tmp_path/'whole')
    args += ['--output_dir', tmp_path/'stopped']
    for signum, moment in ((signal.SIGTERM, 'epoch: 1 step: 3,'), (signal.SIGINT, 'epoch: 2 step: 3,')):
        log = tmp_path/'stopped/train.log'
        process = subprocess.Popen(command(*args), env=ENV, text=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not (log.exists() and moment in log.read_text()):
            assert process.poll() is None, process.stderr.read()
            time.sleep(.005)
        process.send_signal(signum)
        err = process.communicate(timeout=60)[1]
        assert process.returncode and re.search('SIG(TERM|INT): stopped after', err), err
        assert f'--resume {tmp_path}/stopped' in err, err
        args = ['--resume', tmp_path/'stopped']
    assert len((tmp_path/'stopped/metrics.csv').read_text().splitlines()) - 1 < 18
    run(*args)
    assert (tmp_path/'whole/metrics.csv').read_bytes() == (tmp_path/'stopped/metrics.csv').read_bytes()
    a, b = (checkpoint.load(tmp_path/name/'last.safetensors')[0] for name in ('whole', 'stopped'))
    assert all(np.array_equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize('backend', ['mindspore'], indirect=True)
def test_msrun_starts_a_group_as_well(backend, begun, tmp_path):
    "MindSpore's own launcher, as on several machines."
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    if not shutil.which('msrun', path=path): pytest.skip('no msrun')
    *_, net = begun
    (tmp_path/'train.py').write_text('from ssd_nb.train import main; main()')
    line = [shutil.which('msrun', path=path), '--worker_num=2', '--local_worker_num=2', '--join=True',
            f'--master_port={free_port()}', f'--log_dir={tmp_path}/logs', str(tmp_path/'train.py')]
    line += (f'--preset tiny --config {net} --backend mindspore --device cpu --device_num 2 --batch_size 4 '
             f'--epoch_size 1 --run_eval false --output_dir {tmp_path}/run').split()
    done = subprocess.run(line, env={**ENV, 'PATH': path}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(column(tmp_path/'run', 'loss')) == 6
