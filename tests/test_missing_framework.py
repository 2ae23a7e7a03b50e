"Either framework may be missing: everything but its backend works, and asking for it says what to install."
import os, subprocess, sys
from pathlib import Path
import pytest
from conftest import BLOCKED, shadow

ROOT = Path(__file__).resolve().parent.parent
ALL = sorted('.'.join(p.relative_to(ROOT).with_suffix('').parts) for p in (ROOT/'ssd_nb').rglob('*.py') if not p.name.startswith('_'))
ONLY = dict(torch={'ssd_nb.backends.torch'}, mindspore={'ssd_nb.backends.mindspore'}) # modules that may import the framework

def run(code, missing, tmp_path):
    shadow(missing, tmp_path)
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get('PYTHONPATH', '')])
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': path}, cwd=tmp_path)

@pytest.mark.parametrize('missing', ['torch', 'mindspore'])
def test_all_else_can_be_imported(missing, tmp_path):
    other = {'torch', 'mindspore'} - {missing}
    names = [n for n in ALL if n not in ONLY[missing] and not (BLOCKED in other and n in ONLY[BLOCKED])]
    code = f'import importlib, sys\nfor n in {["ssd_nb", *names]!r}: importlib.import_module(n)\nassert {missing!r} not in sys.modules'
    done = run(code, missing, tmp_path)
    assert done.returncode == 0, done.stderr

@pytest.mark.parametrize('missing', ['torch', 'mindspore'])
def test_asking_says_what_to_install(missing, tmp_path):
    code = f'''
from ssd_nb.backends.session import make_session
from ssd_nb.config import SSDConfig
from ssd_nb.errors import MissingPackage
try: make_session({missing!r}, SSDConfig.preset('tiny'))
except MissingPackage as e: print(e)'''
    done = run(code, missing, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"the {missing} backend needs {missing}, which is not installed: pip install 'ssd_nb[{missing}]', or pip install -e '.[{missing}]' in a clone"

@pytest.mark.parametrize('missing', ['torch', 'mindspore'])
def test_the_command_says_it_plainly(missing, tmp_path):
    code = f"import sys; from ssd_nb.learning.shapes import write_shapes; write_shapes('d', train=4, val=2); from ssd_nb.train import main; main(['--preset', 'tiny', '--coco_root', 'd', '--batch_size', '2', '--backend', {missing!r}, '--output_dir', 'out'])"
    done = run(code, missing, tmp_path)
    assert done.returncode == 2 and 'Traceback' not in done.stderr and f"pip install 'ssd_nb[{missing}]'" in done.stderr, done.stderr

@pytest.mark.parametrize('missing', ['torch', 'mindspore'])
def test_the_other_one_trains(missing, tmp_path):
    other = 'mindspore' if missing == 'torch' else 'torch'
    if BLOCKED == other: pytest.skip(f'needs {other}, which is blocked')
    pytest.importorskip(other)
    code = f'''
from ssd_nb.backends.session import make_session, random_batch
from ssd_nb.config import SSDConfig
cfg = SSDConfig.preset('tiny', image_shape=(64, 64))
session, batch = make_session({other!r}, cfg, device='cpu'), random_batch(cfg, 2)
losses = [float(session.train_step(batch, .01)) for _ in range(3)]
assert losses[2] < losses[0]'''
    done = run(code, missing, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip() and not done.stdout.strip(), 'no noise reaches the user'
