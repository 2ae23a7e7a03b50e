"The onnx backend: the same answers from the same state, for every network, and sentences for what it cannot do."
import numpy as np, pytest

pytest.importorskip('onnxruntime', reason='needs the extra export')
from conftest import FRAMEWORKS
from ssd_nb.backends.session import StateError, make_session
from ssd_nb.checkpoint import save
from ssd_nb.config import PRESETS, SSDConfig
from ssd_nb.detector import detect, load_detector
from ssd_nb.errors import ConfigError
from ssd_nb.networks.table import initial_state, parameters

@pytest.mark.skipif('torch' not in FRAMEWORKS, reason='needs torch')
@pytest.mark.parametrize('name', PRESETS)
def test_every_network_answers_as_torch_does(name):
    cfg, rng = SSDConfig.preset(name), np.random.default_rng(0)
    theirs, ours = (make_session(b, cfg, training=False, device='cpu') for b in ('torch', 'onnx'))
    state = theirs.get_state()
    for p in parameters(cfg): # statistics and scales that batch norm does not have by default
        if p.name.endswith('variance'): state[p.name] = rng.uniform(.5, 2, p.shape).astype(np.float32)
        if p.name.endswith(('mean', 'beta', 'bias')): state[p.name] = rng.normal(0, .1, p.shape).astype(np.float32)
    for session in (theirs, ours): session.set_state(state)
    images = rng.integers(0, 256, (1, *cfg.image_shape, 3), np.uint8)
    for mine, other in zip(ours.predict(images), theirs.predict(images)):
        assert mine.shape == other.shape and mine.dtype == other.dtype == np.float32
        assert np.abs(mine - other).max() <= 1e-4*max(1, np.abs(other).max())

def test_what_it_refuses(tmp_path):
    cfg = SSDConfig.preset('tiny')
    session = make_session('onnx', cfg, training=False)
    with pytest.raises(ConfigError, match='does not learn'): make_session('onnx', cfg)
    with pytest.raises(ConfigError, match='does not learn'): session.train_step(None, .1)
    with pytest.raises(ConfigError, match='on the cpu'): make_session('onnx', cfg, training=False, device='cuda:0')
    with pytest.raises(ConfigError, match='raw answers'): session.export(tmp_path/'a.onnx', decoded=True)
    with pytest.raises(StateError): session.set_state({})

def test_state_and_file(tmp_path):
    import onnxruntime
    cfg = SSDConfig.preset('tiny')
    session, other = (make_session('onnx', cfg.replace(seed=seed), training=False) for seed in (1, 2))
    images = np.random.default_rng(0).integers(0, 256, (3, *cfg.image_shape, 3), np.uint8)
    assert not np.array_equal(session.predict(images)[1], other.predict(images)[1])
    other.set_state(session.get_state())
    session.export(tmp_path/'a.onnx')
    run = onnxruntime.InferenceSession(str(tmp_path/'a.onnx'), providers=['CPUExecutionProvider'])
    for a, b, c in zip(session.predict(images), other.predict(images), run.run(None, {'images': images})):
        assert np.array_equal(a, b) and np.allclose(a, c, atol=1e-5)

def test_detect_takes_it(tmp_path):
    "A checkpoint of another backend, answered by this one."
    cfg = SSDConfig.preset('tiny', device='cpu')
    save(tmp_path/'net.safetensors', initial_state(cfg), cfg)
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    detector = load_detector(tmp_path/'net.safetensors', backend='onnx', min_score=.01)
    found, = detect(image, tmp_path/'net.safetensors', backend='onnx', min_score=.01)
    assert type(detector.session).__name__ == 'OnnxAnswers' and len(found)
    assert np.array_equal(found.boxes, detector(image)[0].boxes)
