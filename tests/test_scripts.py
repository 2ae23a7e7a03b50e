"The scripts' arguments; what they compute is in test_distributed."
import os, subprocess, sys
from pathlib import Path
import pytest

SCRIPTS = Path(__file__).resolve().parent.parent/'scripts'
COUNTS = { # arguments that each script takes
    'run_distribute_train.sh': (5, 7), 'run_distribute_train_gpu.sh': (4, 6), 'run_standalone_train.sh': (4, 6),
    'run_eval.sh': (3,), 'run_eval_gpu.sh': (3,)}

def script(name, *args, cwd, sh='bash', **env):
    env, line = {**os.environ, 'PYTHON': sys.executable, **env}, [sh, SCRIPTS/name, *map(str, args)]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)

@pytest.mark.parametrize('name', COUNTS)
def test_wrong_argument_counts_print_the_usage(name, tmp_path):
    for count in set(range(9)) - set(COUNTS[name]):
        done = script(name, *['1']*count, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.startswith(f'usage: bash {name}')
        assert not list(tmp_path.iterdir())

@pytest.fixture
def python(tmp_path):
    "An interpreter that only says how it was called."
    path = tmp_path/'python'
    path.write_text('#!/bin/sh\necho "$@"; env | grep RANK_TABLE_FILE\nexit 3\n')
    path.chmod(0o755)
    return str(path)

@pytest.mark.parametrize('sh', ['bash', 'sh'])
def test_arguments_become_flags(sh, python, tmp_path):
    (tmp_path/'table.json').write_text('{}')
    (tmp_path/'old.ckpt').write_text('')
    args = 8, 500, .2, 'coco', 'table.json', 'old.ckpt', 200
    done = script('run_distribute_train.sh', *args, cwd=tmp_path, sh=sh, PYTHON=python, ARGS='--coco_root /data')
    assert done.returncode == 3 # that of the training
    log = (tmp_path/'LOG/log.txt').read_text()
    assert f'RANK_TABLE_FILE={tmp_path}/table.json' in log
    assert ('-m ssd_nb.train --backend mindspore --device Ascend --device_num 8 '
            '--epoch_size 500 --lr 0.2 --dataset coco') in log
    assert (f'--pre_trained {tmp_path}/old.ckpt --pre_trained_epoch_size 200 '
            '--coco_root /data --output_dir LOG/run') in log

@pytest.mark.parametrize('sh', ['bash', 'sh'])
def test_a_folder_that_is_taken_gets_a_number(sh, python, tmp_path):
    (tmp_path/'LOG').mkdir()
    script('run_distribute_train_gpu.sh', 2, 1, .1, 'voc', cwd=tmp_path, sh=sh, PYTHON=python)
    assert ('--backend torch --device cuda --device_num 2 --epoch_size 1 --lr 0.1 --dataset voc '
            '--output_dir LOG-002/run') in (tmp_path/'LOG-002/log.txt').read_text()

def test_eval_arguments_become_flags(python, tmp_path):
    (tmp_path/'a.safetensors').write_text('')
    script('run_eval.sh', 'coco', 'a.safetensors', 5, cwd=tmp_path, PYTHON=python)
    assert (f'--backend mindspore --device Ascend --dataset coco --checkpoint_path {tmp_path}/a.safetensors '
            '--output_dir eval5/results') in (tmp_path/'eval5/log.txt').read_text()

@pytest.mark.parametrize('name, args', [
    ('run_eval_gpu.sh', ('coco', 'no.ckpt', 0)), ('run_distribute_train_gpu.sh', (1, 1, 1, 'coco', 'no.ckpt', 1))])
def test_missing_files_are_named(name, args, tmp_path):
    done = script(name, *args, cwd=tmp_path)
    assert done.returncode == 1 and 'no.ckpt' in done.stderr and not list(tmp_path.iterdir())

@pytest.mark.parametrize('name, args', [
    ('run_eval.sh', ('coco', '.', 0)), ('run_distribute_train.sh', (1, 1, 1, 'coco', '-'))])
def test_a_device_that_the_framework_does_not_have_is_named(name, args, tmp_path):
    done = script(name, *args, cwd=tmp_path, BACKEND='torch', DEVICE_TARGET='Ascend')
    assert done.returncode == 1 and 'DEVICE_TARGET GPU or CPU, not Ascend' in done.stderr
    assert not list(tmp_path.iterdir())
