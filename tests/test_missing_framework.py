"Any framework may be missing: everything but its backend works, and asking for it says what to install."
import os, subprocess, sys
from pathlib import Path
import pytest
from conftest import BACKENDS, BLOCKED, shadow

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(p.relative_to(ROOT) for p in (ROOT/'ssd_nb').rglob('*.py') if not p.name.startswith('_'))
ALL = ['.'.join(p.with_suffix('').parts) for p in FILES]

def only(framework: str) -> set[str]:
    "The modules that may import a framework: its backend."
    backend = f'ssd_nb.backends.{framework}'
    return {n for n in ALL if n == backend or n.startswith((f'{backend}.', f'{backend}_'))}

def run(code, missing, tmp_path):
    shadow(missing, tmp_path)
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': path}
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, cwd=tmp_path)

@pytest.mark.parametrize('missing', BACKENDS)
def test_all_else_can_be_imported(missing, tmp_path):
    blocked = only(BLOCKED) if BLOCKED in BACKENDS else set()
    names = [n for n in ALL if n not in only(missing) | blocked]
    code = f'''
import importlib, sys
for name in {["ssd_nb", *names]!r}: importlib.import_module(name)
assert {missing!r} not in sys.modules'''
    done = run(code, missing, tmp_path)
    assert done.returncode == 0, done.stderr

@pytest.mark.parametrize('missing', BACKENDS)
def test_asking_says_what_to_install(missing, tmp_path):
    code = f'''
from ssd_nb.backends.session import make_session
from ssd_nb.config import SSDConfig
from ssd_nb.errors import MissingPackage
try: make_session({missing!r}, SSDConfig.preset('tiny'))
except MissingPackage as e: print(e)'''
    done = run(code, missing, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (f"the {missing} backend needs {missing}, which is not installed: "
                                   f"pip install 'ssd_nb[{missing}]', or pip install -e '.[{missing}]' in a clone")

@pytest.mark.parametrize('missing', BACKENDS)
def test_the_command_says_it_plainly(missing, tmp_path):
    code = f'''
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.train import main
write_shapes('d', train=4, val=2)
main('--preset tiny --coco_root d --batch_size 2 --backend {missing} --output_dir out'.split())'''
    done = run(code, missing, tmp_path)
    assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr
    assert f"pip install 'ssd_nb[{missing}]'" in done.stderr

@pytest.mark.parametrize('missing', BACKENDS)
def test_it_is_said_before_any_work(missing, tmp_path):
    code = f"from ssd_nb.train import main; main('--preset tiny --backend {missing}'.split())"
    done = run(code, missing, tmp_path)
    assert done.returncode == 2 and f"pip install 'ssd_nb[{missing}]'" in done.stderr, done.stderr
    assert [p.name for p in tmp_path.iterdir() if p.name != '__pycache__'] == [f'{missing}.py'] # no scenes were drawn

@pytest.mark.parametrize('missing', BACKENDS)
def test_another_one_trains(missing, tmp_path):
    other = next(name for name in BACKENDS if name != missing)
    if BLOCKED == other: pytest.skip(f'needs {other}, which is blocked')
    pytest.importorskip(other)
    code = f'''
from ssd_nb.backends.contract import SMALL, random_batch
from ssd_nb.backends.session import make_session
session, batch = make_session({other!r}, SMALL, device='cpu'), random_batch(SMALL, 2)
losses = [float(session.train_step(batch, .01)) for _ in range(3)]
assert losses[2] < losses[0]'''
    done = run(code, missing, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip() and not done.stdout.strip(), 'no noise reaches the user'
