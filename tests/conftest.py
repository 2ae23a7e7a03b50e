"""What several test files share; and a way to run the tests as if a framework were not installed:

    SSD_NB_BLOCK=mindspore pytest tests

What needs the blocked framework is skipped, with that as its reason; `test_missing_framework.py` says what must work
all the same. What a framework does itself is tested with each of them, by the fixture `backend`; all else with one,
`BACKEND`."""
import importlib.util, json, os, subprocess, sys, tempfile
from pathlib import Path
import numpy as np, pytest

from ssd_nb.backends.contract import SMALL, random_batch
from ssd_nb.backends.session import make_session
from ssd_nb.detection.coco_eval import objects_by_image
from ssd_nb.detection.postprocess import Detections

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
            report.outcome = 'skipped'
            report.longrepr = str(item.path), item.location[1], f'needs {BLOCKED}, which is blocked'
        return report

FRAMEWORKS = [name for name in ('torch', 'mindspore') if name != BLOCKED and importlib.util.find_spec(name)]
BACKEND = [*FRAMEWORKS, 'torch'][0] # of tests that either would do for
SIZES = ('image_shape', 'stem_channels', 'features_1', 'features_2', 'last_channels', 'extra_channels', 'extra_ratios',
         'first_stride', 'steps', 'aspect_ratios')
NET = {name: getattr(SMALL, name) for name in SIZES} # for tests that are not about what is learnt

@pytest.fixture(scope='module', params=['torch', 'mindspore'])
def backend(request):
    "The name of each framework that is here."
    reason = 'blocked' if request.param == BLOCKED else 'not installed'
    if request.param not in FRAMEWORKS: pytest.skip(f'needs {request.param}, which is {reason}')
    return request.param

def flags(values: dict) -> list[str]:
    "A configuration's fields as arguments of a command."
    found = []
    for name, value in values.items():
        if isinstance(value, tuple): value = json.dumps(value) # a tuple of tuples as a list of lists
        found += [f'--{name}', str(value)]
    return found

def command(module: str, *args, status: int = 0, **kwargs) -> subprocess.CompletedProcess:
    "Run `python -m ssd_nb.<module>`, which must end with this status and without a traceback."
    line = [sys.executable, '-m', f'ssd_nb.{module}', *map(str, args)]
    done = subprocess.run(line, capture_output=True, text=True, **kwargs)
    assert done.returncode == status and 'Traceback' not in done.stderr, done.stderr
    return done

def lively_session(cfg, steps: int = 15, shy: float = 0.):
    """A session whose answers differ from image to image, with logits lowered by `shy`.
    Its weights are drawn, not trained: training would find other weights on another processor. Steps at a rate of 0 let
    the batch-norm statistics settle and leave the weights as they are."""
    session, batch, rng = make_session(cfg.backend, cfg, device='cpu'), random_batch(cfg, 4), np.random.default_rng(0)
    state = session.get_state()
    for name, value in state.items():
        if name.startswith(('locs', 'logits')) and name.endswith('.predict.weight'):
            spread = .7 if name.startswith('locs') else 2. # about the standard deviation of the answers
            state[name] = rng.normal(0, spread/value.shape[1]**.5, value.shape).astype(np.float32)
        if name.startswith('logits') and name.endswith('.predict.bias'): state[name] = value - np.float32(shy)
    session.set_state(state)
    for _ in range(steps): session.train_step(batch, 0.)
    return session

def perfect(dataset) -> dict:
    "Every object of a data set, detected without a doubt."
    found = {}
    for image_id, o in objects_by_image(dataset).items():
        kept = ~o.crowd
        found[image_id] = Detections(o.boxes[kept], np.ones(kept.sum(), np.float32), o.labels[kept])
    return found

@pytest.fixture
def sample_data():
    """`sample_data(name)`: folder of a sample data set, in $SSD_NB_DATA or in ../shared/data beside the checkout;
    skips where there is none."""
    def find(name: str) -> Path:
        root = Path(os.environ.get('SSD_NB_DATA') or Path(__file__).resolve().parents[2]/'shared'/'data')
        missing = f'no sample data {name}: set SSD_NB_DATA to a folder that holds {name}/'
        if not (root/name).is_dir(): pytest.skip(missing)
        return root/name
    return find
