"""What several test files share; and a way to run the tests as if a framework were not installed:

    SSD_NB_BLOCK=mindspore pytest tests

What needs the blocked framework is skipped, with that as its reason; `test_missing_framework.py` says what must work
all the same. What a framework does itself is tested with each of them, by the fixture `backend`; all else with one,
`BACKEND`."""
import importlib.util, io, json, os, signal, subprocess, sys, tempfile
from pathlib import Path
import cv2, numpy as np, pytest

from ssd_nb.backends.contract import SMALL, random_batch
from ssd_nb.backends.session import make_session
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.detection.coco_eval import Truth, objects_by_image
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

BACKENDS = 'torch', 'mindspore'
FRAMEWORKS = [name for name in BACKENDS if name != BLOCKED and importlib.util.find_spec(name)]
BACKEND = [*FRAMEWORKS, 'torch'][0] # of tests that either would do for
SIZES = ('image_shape', 'stem_channels', 'features_1', 'features_2', 'last_channels', 'extra_channels', 'extra_ratios',
         'first_stride', 'steps', 'aspect_ratios')
NET = {name: getattr(SMALL, name) for name in SIZES} # for tests that are not about what is learnt

@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    "A shell's background jobs start with Ctrl-C ignored and pass that on; a framework may change it on the way."
    signal.signal(signal.SIGINT, signal.default_int_handler)

@pytest.fixture(scope='module', params=BACKENDS)
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

def smooth(rng, height, width, channels=3):
    "A random image without hard edges, which JPEG keeps well."
    few = rng.integers(0, 256, (5, 5, channels)).astype(np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)

def encoded(image, kind, **options):
    "The bytes of a file of this kind."
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()

def detections(boxes, scores, labels):
    "`Detections`, the highest score first."
    order = np.argsort(-np.asarray(scores, float), kind='stable')
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes[order], np.asarray(scores, np.float32)[order], np.asarray(labels, np.int32)[order])

def made_up(seed, images=12, first_id=0, flags=('iscrowd',)):
    "A truth of boxes of all sizes with gaps in its ids, some flagged, some images empty; and a detector's answer."
    rng, annotations, found, ids = np.random.default_rng(seed), [], {}, [10 + 7*i for i in range(images)]
    for image in ids:
        n = int(rng.integers(0, 7))
        side = rng.choice([15., 60., 200.], (n, 2))*rng.uniform(.7, 1.4, (n, 2))
        low, label = rng.uniform(0, 400, (n, 2)), rng.integers(1, 4, n)
        for corner, size, k in zip(low.tolist(), side.tolist(), label):
            given = {flag: int(rng.random() < .15) for flag in flags}
            annotations.append(dict(id=first_id + len(annotations), image_id=image, category_id=int(5*k),
                                    bbox=[*corner, *size], area=.8*size[0]*size[1], **{'iscrowd': 0, **given}))
        boxes = np.concatenate([low, low + side], 1)
        boxes = np.concatenate([boxes + rng.normal(0, 6, boxes.shape), boxes + rng.normal(0, 25, boxes.shape),
                                rng.uniform(0, 200, (3, 4)) + (0, 0, 200, 200)])
        labels = np.concatenate([label, label, rng.integers(1, 4, 3)])
        scores = np.round(rng.random(len(boxes)), 1) # with ties
        if rng.random() < .9: found[image] = detections(boxes, scores, labels)
    truth = dict(images=[dict(id=i, width=640, height=640, file_name=f'{i}.jpg') for i in ids], annotations=annotations,
                 categories=[dict(id=5*c, name=n) for c, n in enumerate(('ant', 'bee', 'cow'), 1)])
    return Truth(('ant', 'bee', 'cow'), (5, 10, 15), truth), found

@pytest.fixture
def photographs(sample_data):
    "Some photographs of COCO, opened for evaluation."
    root = sample_data('coco-tiny')
    return open_dataset(SSDConfig(coco_root=str(root)), training=False)
