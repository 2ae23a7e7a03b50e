"One command for all, and what the world does to a command: closed pipes, Ctrl-C, folders, odd names, narrow terminals."
import importlib, json, os, signal, subprocess, sys, time, weakref
from configparser import ConfigParser
from pathlib import Path
import pytest
from conftest import BACKEND
from ssd_nb import cli
from ssd_nb.checkpoint import load, save
from ssd_nb.config import SSDConfig
from ssd_nb.errors import heard_again
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.networks.table import initial_state

ROOT = Path(__file__).resolve().parents[1]
NAMES = ('$5 note', 'b', '杯', 'd', 'e', 'f$') # as users may call their classes

def start(*args, **env):
    "A command in a process group of its own."
    env = {**os.environ, 'PYTHONPATH': str(ROOT), **env}
    return subprocess.Popen([sys.executable, '-m', 'ssd_nb', *map(str, args)], env=env, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def ended(*args, **env):
    "Exit status, output and errors of a command."
    process = start(*args, **env)
    out, err = process.communicate(timeout=120)
    return process.returncode, out.decode(), err.decode()

@pytest.fixture(scope='module')
def scenes(tmp_path_factory): return write_shapes(tmp_path_factory.mktemp('data')/'shapes', train=1, val=40)

@pytest.fixture(scope='module')
def checkpoint(scenes, tmp_path_factory):
    "An untrained network, which sees things everywhere, with odd class names."
    cfg = SSDConfig.preset('tiny', backend=BACKEND, coco_root=str(scenes), device='cpu', num_workers=0, batch_size=2)
    path = tmp_path_factory.mktemp('run')/'last.safetensors'
    save(path, initial_state(cfg), cfg.replace(classes=NAMES))
    return path

def looking(checkpoint, folder):
    "Arguments that make few boxes."
    return ['--checkpoint_path', checkpoint, '--max_boxes', '2', '--min_score', '.4', '--output_dir', folder]

def test_help_is_quick_and_light():
    begun = time.perf_counter()
    status, out, err = ended('--help')
    seconds = time.perf_counter() - begun
    assert status == 0 and not err and out.strip() == cli.overview()
    assert all(f'  {name} ' in out for name in cli.COMMANDS)
    code = 'import sys, ssd_nb.cli; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {'torch', 'mindspore', 'numpy', 'matplotlib'} & set(done.stdout.split())
    assert seconds < 2 # 0.1 s where nothing else runs

HEAVY = {'torch', 'mindspore', 'matplotlib', 'cv2', 'PIL.Image', 'onnxruntime'}

def loaded(code: str) -> set[str]:
    "Which heavy modules a program loads until it ends."
    ending = 'import sys; print(*sys.modules)'
    line = [sys.executable, '-c', f'import atexit; atexit.register(lambda: exec({ending!r})); {code}']
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    return HEAVY & set(done.stdout.strip().splitlines()[-1].split())

@pytest.mark.parametrize('code', ['import ssd_nb.config', *(
    f'from ssd_nb.cli import main; main(["{name}", "--help"])'
    for name in ('train', 'eval', 'predict', 'export', 'checkpoint', 'weights'))])
def test_numbers_and_help_load_nothing_heavy(code):
    "`make bench` says how long they take."
    light = set() if 'config' in code else {'cv2', 'PIL.Image'} # beside the others
    assert not loaded(code) - light

@pytest.mark.parametrize('typed, meant', [('trian', 'train'), ('evaluate', 'eval'), ('chekpoint', 'checkpoint')])
def test_unknown_commands_get_the_nearest_name(typed, meant):
    status, out, err = ended(typed, '--help')
    assert status == 2 and not out and f'did you mean {meant}?' in err and err.count('\n') == 1

@pytest.mark.parametrize('name', cli.COMMANDS)
def test_every_command_is_there(name, capsys):
    words = [name, 'check', '--help'] if name == 'data' else [name, '--help']
    with pytest.raises(SystemExit) as e: sys.exit(cli.main(words))
    out = capsys.readouterr().out
    assert not e.value.code and out.startswith(f'usage: ssd_nb {name} ')

def test_a_usage_says_how_its_command_was_called():
    for words, called in ((['ssd_nb', 'eval'], 'ssd_nb eval'), (['ssd_nb.eval'], 'python -m ssd_nb.eval')):
        line = [sys.executable, '-m', *words, '--help']
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.startswith(f'usage: {called} RUN') and f'  {called} runs/' in done.stdout

@pytest.mark.parametrize('name, shown, hidden', [
    ('predict', ('min_score', 'tta', 'agnostic_nms', 'format', 'frames'), ('lr', 'epoch_size', 'dataset', 'gamma')),
    ('demo', ('min_score', 'tta'), ('lr', 'dataset', 'frames')),
    ('eval', ('dataset', 'protocol', 'quirks', 'tta', 'every_image'), ('lr', 'augment', 'freeze_layer')),
    ('checkpoint', ('class_num', 'stem_channels'), ('lr', 'nms_threshold', 'dataset')),
    ('train', ('lr', 'dataset', 'nms_threshold', 'class_num'), ())])
def test_help_lists_what_matters(name, shown, hidden, capsys):
    with pytest.raises(SystemExit): cli.main([name, '--help'])
    words = capsys.readouterr().out.split()
    assert all(f'--{flag}' in words for flag in shown) and not any(f'--{flag}' in words for flag in hidden)

def test_the_installed_name_points_here():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini', encoding='utf-8')
    name, place = config['DEFAULT']['console_scripts'].split('=')
    module, function = place.split(':')
    assert name == 'ssd_nb' and getattr(importlib.import_module(module), function) is cli.main

def test_a_closed_pipe_stops_nothing(scenes, checkpoint, tmp_path):
    "As `| head -1`: all files are written all the same."
    process = start('predict', scenes/'val', *looking(checkpoint, tmp_path/'out'), PYTHONUNBUFFERED='1')
    assert b'.jpg: ' in process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) == 0 and b'Traceback' not in (err := process.stderr.read()) and b'Broken' not in err
    assert len(list((tmp_path/'out').glob('*.png'))) == 40 and (tmp_path/'out'/'predictions.json').exists()

def ctrl_c(process) -> str:
    "Press Ctrl-C, and again where Python swallowed it, as it does inside a weak reference's callback; standard error."
    for _ in range(5):
        os.killpg(process.pid, signal.SIGINT)
        try: return process.communicate(timeout=12)[1].decode()
        except subprocess.TimeoutExpired: continue
    raise AssertionError('five times Ctrl-C did not end the command')

def test_ctrl_c_is_one_sentence(scenes, checkpoint, tmp_path):
    "Sent as a terminal does it: to all processes of the command."
    looking_on = looking(checkpoint, tmp_path/'out')
    process = start('predict', scenes/'val', *looking_on, '--num_workers', '2', PYTHONUNBUFFERED='1')
    assert process.stdout.readline() # 39 images are left
    err = ctrl_c(process)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1].startswith('interrupted') and not (tmp_path/'out'/'predictions.json').exists()

def test_a_swallowed_ctrl_c_comes_again():
    class Thing: pass
    def interrupted(_): raise KeyboardInterrupt
    thing = Thing()
    watched = weakref.ref(thing, interrupted)
    with pytest.raises(KeyboardInterrupt), heard_again():
        del thing # the callback raises, and Python only reports it
        assert watched() is None
        time.sleep(5)

def test_ctrl_c_in_the_midst_of_evaluation(checkpoint, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr('ssd_nb.eval.evaluate_by', interrupted)
    plain = checkpoint.with_name('plain.safetensors')
    state, cfg, _ = load(checkpoint)
    save(plain, state, cfg.replace(classes=()))
    with pytest.raises(SystemExit) as e: cli.main(['eval', '--checkpoint_path', str(plain), '--num_workers', '2'])
    assert e.value.code == 130 and capsys.readouterr().err.startswith('interrupted')

def test_a_folder_is_no_file_to_export_to(checkpoint, tmp_path):
    status, _, err = ended('export', checkpoint, '--output', tmp_path)
    assert status == 2 and 'a folder; give the name of a file' in err and not list(tmp_path.iterdir())

@pytest.mark.parametrize('first, messages', [
    (b'PK\x03\x04', ['cannot be read as a file of torch.save']), # its own reader has tried
    (b'\x89HDF\r\n', ['HDF5', '.safetensors files of this library']),
    (b'hello', ['not a readable safetensors', '.safetensors files of this library'])])
def test_files_of_others_are_recognised(first, messages, scenes, tmp_path):
    (tmp_path/'net.pth').write_bytes(first + b'1'*99)
    status, _, err = ended('predict', scenes/'val', *looking(tmp_path/'net.pth', tmp_path/'out'))
    assert status == 2 and all(message in err for message in messages) and 'Traceback' not in err

def test_what_the_system_refuses(scenes, checkpoint, tmp_path):
    (tmp_path/'file').write_text('x', encoding='utf-8')
    status, _, err = ended('predict', scenes/'val', *looking(checkpoint, tmp_path/'file'/'out'))
    assert status == 2 and 'Not a directory' in err and 'Traceback' not in err

def test_the_data_command_says_what_the_system_refuses(scenes, tmp_path):
    "Called as a module of its own, too, where the command for all does not stand around it."
    (tmp_path/'file').write_text('x', encoding='utf-8')
    words = ['check', '--preset', 'tiny', '--coco_root', str(scenes), '--picture', str(tmp_path/'file'/'check.png')]
    for module in (['ssd_nb', 'data'], ['ssd_nb.data']):
        done = subprocess.run([sys.executable, '-m', *module, *words], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 2 and done.stderr.startswith(f'error: {tmp_path}/file: '), done.stderr
        assert 'Traceback' not in done.stderr

def test_a_terminal_that_knows_no_such_letter(scenes, checkpoint, tmp_path):
    image = sorted((scenes/'val').iterdir())[0]
    status, out, err = ended('predict', image, *looking(checkpoint, tmp_path/'out'), PYTHONIOENCODING='ascii')
    assert status == 0 and 'Traceback' not in err and err.count('no font') <= 1 and 'Glyph' not in err
    found = {row['category'] for row in json.loads((tmp_path/'out'/'predictions.json').read_text(encoding='utf-8'))}
    assert found <= set(NAMES) and ('?' in out) == ('杯' in found)
