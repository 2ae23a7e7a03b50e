"A run that is killed, stopped or broken off goes on without a trace."
import os, random, signal, subprocess, sys, time
import numpy as np, pytest
from ssd_nb import checkpoint
from ssd_nb.shapes import write_shapes

MICRO = ['--preset', 'tiny', '--image_shape', '64,64', '--steps', '8,16,32,64,64', '--batch_size', 8, '--num_workers', 1, '--device', 'cpu', '--ema', .9, '--dynamic_loss_scale',
         '--loss_scale_window', 5, '--eval_start_epoch', 3, '--eval_interval', 3, '--save_checkpoint_epochs', 2, '--keep_checkpoint_max', 2, '--epoch_size', 6]
ENV = {**os.environ, 'OMP_NUM_THREADS': '1'}

@pytest.fixture(scope='module')
def scenes(tmp_path_factory): return write_shapes(tmp_path_factory.mktemp('data')/'shapes', train=24, val=8)

def start(*args): return subprocess.Popen([sys.executable, '-m', 'ssd_nb.train', *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)

def run(*args, status=0):
    process = start(*args)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status and 'Traceback' not in err, err
    return out, err

@pytest.fixture(scope='module')
def whole(scenes, tmp_path_factory):
    "The run that nobody disturbs."
    folder = tmp_path_factory.mktemp('whole')/'run'
    run(*MICRO, '--coco_root', scenes, '--output_dir', folder)
    return folder

def same(one, two):
    assert (one/'metrics.csv').read_bytes() == (two/'metrics.csv').read_bytes()
    for name in ('last', 'best', 'epoch-0004', 'epoch-0006'):
        (a, *_, m), (b, *_, n) = (checkpoint.load(f/f'{name}.safetensors') for f in (one, two))
        assert m == n and set(a) == set(b) and all(np.array_equal(a[k], b[k]) for k in a), name
    assert (one/'report.json').read_bytes() == (two/'report.json').read_bytes()
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}

def saves(folder): return os.stat(folder/'last.safetensors').st_mtime_ns if (folder/'last.safetensors').exists() else 0

def wait_for_saves(process, folder, count):
    seen = saves(folder)
    while count and process.poll() is None:
        time.sleep(.002)
        if saves(folder) != seen: seen, count = saves(folder), count - 1

def test_killed_at_five_moments(scenes, whole, tmp_path):
    rng, folder = random.Random(os.environ.get('SSD_NB_SEED', 7)), tmp_path/'run'
    flags = [*MICRO, '--coco_root', scenes, '--output_dir', folder, '--save_checkpoint_steps', 1]
    for _ in range(5):
        process = start(*flags)
        wait_for_saves(process, folder, rng.randint(1, 4))
        time.sleep(rng.uniform(0, .1))
        assert process.poll() is None, process.communicate()[1]
        process.kill(); process.wait(); process.stdout.close(); process.stderr.close()
        checkpoint.load(folder/'last.safetensors') # whole at any moment
        flags = ['--resume', folder]
    out, _ = run(*flags, '--save_checkpoint_steps', 0)
    assert 'going on in epoch' in out
    assert not list(folder.glob('.*')) # no half-written files are left
    same(whole, folder)

def test_signals_save_and_say_how_to_go_on(scenes, whole, tmp_path):
    folder = tmp_path/'run'
    flags = [*MICRO, '--coco_root', scenes, '--output_dir', folder, '--log_steps', 1]
    for signum, least in ((signal.SIGTERM, 4), (signal.SIGINT, 7)):
        process, step = start(*flags), 0
        while step < least: # an epoch has three steps; these are in the second and third
            line = process.stdout.readline()
            if 'loss is' in line: step = 3*(int(line.split()[1]) - 1) + int(line.split()[3].strip(','))
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + signum
        assert err.strip().endswith(f'go on with: python -m ssd_nb.train --resume {folder}') and signal.Signals(signum).name in err and 'Traceback' not in err
        assert least <= len((folder/'metrics.csv').read_text().splitlines()) - 1 < 18 # the step was finished, and saved without being due
        flags = ['--resume', folder]
    run(*flags)
    same(whole, folder)

def test_resume_refuses_what_would_be_another_run(whole, tmp_path):
    for args, message in ((['--resume', whole, '--lr', 1], 'another lr'), (['--resume', tmp_path], 'no run'), (['--resume', whole, '--preset', 'ssd300_mobilenet_v2'], 'image_shape')):
        assert message in run(*args, status=2)[1]

def test_a_finished_run_stays_as_it_is(whole):
    before = (whole/'metrics.csv').read_bytes(), checkpoint.load(whole/'last.safetensors')[0]
    run('--resume', whole)
    assert (whole/'metrics.csv').read_bytes() == before[0]
    after = checkpoint.load(whole/'last.safetensors')[0]
    assert all(np.array_equal(after[k], v) for k, v in before[1].items())
