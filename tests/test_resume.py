"A run that is killed, stopped or broken off goes on without a trace, with each framework."
import multiprocessing, os, random, signal, subprocess, sys, time
import numpy as np, pytest
from conftest import NET, flags
from ssd_nb import checkpoint
from ssd_nb.networks.table import initial_state
from ssd_nb.config import SSDConfig, to_yaml
from ssd_nb.learning.shapes import write_shapes

EPOCHS, STEPS = 8, 6 # of six steps each
MICRO = ['--preset', 'tiny', *flags(NET), '--batch_size', 4, '--num_workers', 1, '--device', 'cpu',
         '--epoch_size', EPOCHS, '--ema', .9, '--dynamic_loss_scale', '--loss_scale_window', 5,
         '--eval_start_epoch', 3, '--eval_interval', 3, '--save_checkpoint_epochs', 2, '--keep_checkpoint_max', 2]
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}

@pytest.fixture(scope='module')
def scenes(tmp_path_factory): return write_shapes(tmp_path_factory.mktemp('data')/'shapes', train=24, val=8)

def start(*args):
    words = [sys.executable, '-m', 'ssd_nb.train', *map(str, args)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)

def run(*args, status=0):
    process = start(*args)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status and 'Traceback' not in err, err
    return out, err

@pytest.fixture(scope='module')
def whole(scenes, backend, tmp_path_factory):
    "The run that nobody disturbs."
    folder = tmp_path_factory.mktemp('whole')/'run'
    run(*MICRO, '--backend', backend, '--coco_root', scenes, '--output_dir', folder)
    return folder

def same(one, two):
    assert (one/'metrics.csv').read_bytes() == (two/'metrics.csv').read_bytes()
    for name in ('last', 'best', 'epoch-0006', 'epoch-0008'):
        (a, *_, m), (b, *_, n) = (checkpoint.load(f/f'{name}.safetensors') for f in (one, two))
        assert m == n and set(a) == set(b) and all(np.array_equal(a[k], b[k]) for k in a), name
    assert (one/'report.json').read_bytes() == (two/'report.json').read_bytes()
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}

def rows(folder):
    "Steps that metrics.csv tells of."
    return max((folder/'metrics.csv').read_bytes().count(b'\n') - 1, 0) if (folder/'metrics.csv').exists() else 0

def test_killed_at_five_moments(scenes, whole, backend, tmp_path):
    "Once in each of five epochs, wherever the process may be."
    rng, folder, saved = random.Random(os.environ.get('SSD_NB_SEED', 7)), tmp_path/'run', 0
    args = [*MICRO, '--backend', backend, '--coco_root', scenes, '--output_dir', folder, '--save_checkpoint_steps', 1]
    for epoch in range(5):
        process, least = start(*args), max(STEPS*epoch + rng.randint(1, STEPS), rows(folder) + 1)
        while rows(folder) < least and process.poll() is None: time.sleep(.002)
        time.sleep(rng.uniform(0, .03))
        assert process.poll() is None, process.communicate()[1]
        process.kill()
        process.communicate()
        if (folder/'last.safetensors').exists(): # whole at any moment, and never older than the step before
            step = checkpoint.load(folder/'last.safetensors')[2]['step']
            assert step >= max(saved, rows(folder) - 1)
            saved = step
        args = ['--resume', folder]
    out, _ = run(*args, '--save_checkpoint_steps', 0)
    assert saved > 18 and f'going on in epoch {saved//STEPS + 1} after step {saved % STEPS}' in out
    assert not list(folder.glob('.*')) # no half-written files are left
    same(whole, folder)

def test_a_kill_within_a_save_keeps_the_checkpoint_before(tmp_path):
    "Twenty writers that do nothing but save, each killed at a random moment."
    cfg, path = SSDConfig.preset('tiny'), tmp_path/'last.safetensors'
    rng, context = random.Random(int(os.environ.get('SSD_NB_SEED', 7))), multiprocessing.get_context('fork')
    state = initial_state(cfg)
    def save(number): checkpoint.save(path, {k: np.full_like(v, number) for k, v in state.items()}, cfg, step=number)
    def write(number):
        while True: save(number := number + 1)
    save(number := 0)
    for _ in range(20):
        process = context.Process(target=write, args=(number,))
        process.start()
        while checkpoint.load(path)[2]['step'] == number: time.sleep(.001)
        time.sleep(rng.uniform(0, .03))
        process.kill()
        process.join()
        process.close()
        found, _, about = checkpoint.load(path)
        assert about['step'] > number and all((v == about['step']).all() for v in found.values())
        number = about['step']

def test_signals_save_and_say_how_to_go_on(scenes, whole, backend, tmp_path):
    folder = tmp_path/'run'
    args = [*MICRO, '--backend', backend, '--coco_root', scenes, '--output_dir', folder, '--log_steps', 1]
    for signum, least in ((signal.SIGTERM, 8), (signal.SIGINT, 14)):
        process, step = start(*args), 0
        while step < least: # these are in the second and the third epoch
            line = process.stdout.readline()
            if 'loss is' in line: step = STEPS*(int(line.split()[1]) - 1) + int(line.split()[3].strip(','))
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
        told = signal.Signals(process.returncode - 128)
        # while MindSpore runs a graph it turns Ctrl-C into SIGTERM
        assert told == signum or (backend == 'mindspore' and told == signal.SIGTERM)
        assert err.strip().endswith(f'go on with: python -m ssd_nb.train --resume {folder}')
        assert f'{told.name}: stopped after epoch' in err and 'Traceback' not in err
        assert least <= rows(folder) < STEPS*EPOCHS # the step was finished, and saved without being due
        args = ['--resume', folder]
    run(*args)
    same(whole, folder)

def test_resume_refuses_what_would_be_another_run(tmp_path):
    old = tmp_path/'old'
    old.mkdir()
    (old/'config.yaml').write_text(to_yaml(SSDConfig.preset('tiny')))
    for args, message in ((['--resume', old, '--lr', 1], 'another lr'), (['--resume', tmp_path], 'no run'),
                          (['--resume', old, '--preset', 'ssd300_mobilenet_v2'], 'image_shape')):
        assert message in run(*args, status=2)[1]

def test_a_finished_run_stays_as_it_is(whole):
    before = (whole/'metrics.csv').read_bytes(), checkpoint.load(whole/'last.safetensors')[0]
    run('--resume', whole)
    assert (whole/'metrics.csv').read_bytes() == before[0]
    after = checkpoint.load(whole/'last.safetensors')[0]
    assert all(np.array_equal(after[k], v) for k, v in before[1].items())
