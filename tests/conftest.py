"""Fixtures and functions that several test files share; and a way to run the tests as if a framework were not installed:

    SSD_NB_BLOCK=mindspore pytest tests

What needs the blocked framework is skipped, with that as its reason; `test_missing_framework.py` says what must work all the same.
What a framework does itself is tested with each of them, by the fixture `backend`; all else with one, `BACKEND`."""
import importlib.util, os, subprocess, sys, tempfile
from pathlib import Path
import numpy as np, pytest

from ssd_nb.backends.contract import SMALL

BLOCKED = os.environ.get('SSD_NB_BLOCK', '')

def shadow(name: str, folder: Path) -> None:
    "Put a module into `folder` that behaves, when imported from there, as if `name` were not installed."
    (folder/f'{name}.py').write_text(f'raise ModuleNotFoundError("No module named {name!r}", name={name!r})\n')

if BLOCKED:
    SHADOWS = tempfile.TemporaryDirectory() # found first, in this process and by PYTHONPATH in those that tests start
    shadow(BLOCKED, Path(SHADOWS.name))
    sys.path.insert(0, SHADOWS.name)
    os.environ['PYTHONPATH'] = os.pathsep.join([SHADOWS.name, *filter(None, [os.environ.get('PYTHONPATH')])])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        "A test, or what it starts, that asks for the blocked framework is skipped."
        report = yield
        signs = f"No module named '{BLOCKED}'", f'the {BLOCKED} backend needs {BLOCKED}, which is not installed'
        if report.failed and any(sign in str(call.excinfo.value) or sign in report.longreprtext for sign in signs):
            report.outcome, report.longrepr = 'skipped', (str(item.path), item.location[1], f'needs {BLOCKED}, which is blocked')
        return report

FRAMEWORKS = [name for name in ('torch', 'mindspore') if name != BLOCKED and importlib.util.find_spec(name)]
BACKEND = [*FRAMEWORKS, 'torch'][0] # of tests that either would do for
NET = {k: getattr(SMALL, k) for k in 'image_shape stem_channels features_1 features_2 last_channels extra_channels extra_ratios first_stride steps aspect_ratios'.split()} # for tests that are not about what is learnt

@pytest.fixture(scope='module', params=['torch', 'mindspore'])
def backend(request):
    "The name of each framework that is here."
    if request.param not in FRAMEWORKS: pytest.skip(f'needs {request.param}, which is {"blocked" if request.param == BLOCKED else "not installed"}')
    return request.param

def flags(values: dict) -> list[str]:
    "A configuration's fields as arguments of a command."
    return [text for k, v in values.items() for text in (f'--{k}', str([[*x] if isinstance(x, tuple) else x for x in v]) if isinstance(v, tuple) else str(v))]

def command(module: str, *args, status: int = 0, **kwargs) -> subprocess.CompletedProcess:
    "Run `python -m ssd_nb.<module>`, which must end with this status and without a traceback."
    done = subprocess.run([sys.executable, '-m', f'ssd_nb.{module}', *map(str, args)], capture_output=True, text=True, **kwargs)
    assert done.returncode == status and 'Traceback' not in done.stderr, done.stderr
    return done

def lively_session(cfg, steps: int = 15, shy: float = 0.):
    "A session after some steps on noise: answers that differ from image to image, with logits lowered by `shy`."
    from ssd_nb.backends.contract import random_batch
    from ssd_nb.backends.session import make_session
    session, batch = make_session(cfg.backend, cfg, device='cpu'), random_batch(cfg, 4)
    for _ in range(steps): session.train_step(batch, .02)
    session.set_state({k: v - shy*(k.startswith('logits') and k.endswith('.bias')) for k, v in session.get_state().items()})
    return session

def perfect(dataset) -> dict:
    "Every object of a data set, detected without a doubt."
    from ssd_nb.detection.coco_eval import objects_by_image
    from ssd_nb.detection.postprocess import Detections
    return {i: Detections(o.boxes[~o.crowd], np.ones((~o.crowd).sum(), np.float32), o.labels[~o.crowd]) for i, o in objects_by_image(dataset).items()}

@pytest.fixture
def sample_data():
    "`sample_data(name)`: folder of a sample data set, in $SSD_NB_DATA or in ../shared/data beside the checkout; skips where there is none."
    def find(name: str) -> Path:
        root = Path(os.environ.get('SSD_NB_DATA') or Path(__file__).resolve().parents[2]/'shared'/'data')
        if not (root/name).is_dir(): pytest.skip(f'no sample data {name}: set SSD_NB_DATA to a folder that holds {name}/')
        return root/name
    return find
