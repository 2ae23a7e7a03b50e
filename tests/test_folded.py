"Weights whose batch norms were folded: measured again, they answer as before and can be trained."
from __future__ import annotations
import numpy as np
import pytest
from conftest import BACKEND, FRAMEWORKS
from ssd_nb.backends.contract import SMALL, random_batch
from ssd_nb.backends.session import for_inference, make_session
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.data.loader import Plan
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.networks.table import initial_state, parameters
from ssd_nb.training.folded import comes_folded, first_pictures, joint_statistics, measure_norms, with_statistics
from ssd_nb.weights import load

def random_state(cfg, seed=0):
    "A network with random slopes and biases in norms that have no statistics."
    rng, state = np.random.default_rng(seed), initial_state(cfg)
    for p in parameters(cfg):
        if p.kind == 'gamma': state[p.name] = rng.uniform(.5, 2, p.shape).astype(np.float32)
        if p.kind == 'beta': state[p.name] = rng.normal(0, .5, p.shape).astype(np.float32)
        if p.kind == 'weight': state[p.name] = 5*state[p.name]
    return state

def away(a, b): return np.abs(a - b).max()/np.abs(b).max()

def test_measured_norms_answer_as_before_and_training_sees_what_prediction_sees(backend):
    cfg = SMALL.replace(norm_momentum=0., weight_decay=0.) # the running statistics are those of the last batch
    session, batch = make_session(backend, cfg, device='cpu'), random_batch(cfg, 8)
    session.set_state(random_state(cfg))
    before = session.predict(batch.images)
    session.train_step(batch, 0.)
    upset = session.predict(batch.images) # by the statistics that training sees
    session.set_state(random_state(cfg))
    seen = session.norm_inputs(batch.images)
    assert set(seen) == {p.name for p in parameters(cfg) if not p.trainable}
    session.set_state(with_statistics(for_inference(session.get_state()), seen, cfg.norm_eps))
    for a, b in zip(session.predict(batch.images), before): assert away(a, b) < 1e-4
    session.train_step(batch, 0.)
    state = session.get_state()
    for name, value in seen.items():
        if name.endswith('.mean'): assert np.allclose(state[name], value, atol=1e-3*np.abs(value).max()), name
    for a, b, wrong in zip(session.predict(batch.images), before, upset):
        assert away(a, b) < .1 < away(wrong, b) # torch and MindSpore keep the unbiased variance, hence not to the digit

def test_the_frameworks_measure_the_same():
    if len(FRAMEWORKS) < 2: pytest.skip('needs two frameworks')
    images, seen = random_batch(SMALL, 4).images, []
    for backend in FRAMEWORKS:
        session = make_session(backend, SMALL, training=False, device='cpu')
        session.set_state(random_state(SMALL))
        seen.append(session.norm_inputs(images))
    assert list(seen[0]) == list(seen[1])
    for name, value in seen[0].items(): assert np.allclose(seen[1][name], value, atol=1e-4*np.abs(value).max()), name

def test_groups_of_images_are_measured_as_one():
    session, images = make_session(BACKEND, SMALL, training=False, device='cpu'), random_batch(SMALL, 24).images
    images[8:] //= 3
    for name, value in session.norm_inputs(images).items():
        assert np.allclose(joint_statistics(session, images)[name], value, atol=1e-6*np.abs(value).max())

def test_pictures_are_those_of_the_first_epoch_and_follow_the_seed(scenes):
    cfg, learn = scenes
    one, again = first_pictures(learn, cfg), first_pictures(learn, cfg)
    other = first_pictures(learn, cfg.replace(seed=cfg.seed + 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert len(one) == min(64, len(Plan(learn, cfg, training=True))*cfg.batch_size)

@pytest.fixture
def scenes(tmp_path):
    cfg = SSDConfig.preset('tiny', coco_root=str(write_shapes(tmp_path/'shapes', train=40, val=4)), num_workers=0)
    return cfg, open_dataset(cfg, training=True)

def test_published_weights_say_that_they_are_folded(monkeypatch, scenes, sample_data):
    pytest.importorskip('tflite')
    monkeypatch.setenv('SSD_NB_CACHE', str(sample_data('openimages_ssd')))
    state, cfg, about = load('openimages')
    assert about['folded'] and comes_folded(cfg.replace(pre_trained='openimages')) and not comes_folded(cfg)
    assert not any(state[p.name].any() for p in parameters(cfg) if p.kind == 'mean')
    session = make_session(BACKEND, cfg, device='cpu')
    session.set_state(state)
    _, learn = scenes
    few = cfg.replace(batch_size=4, augment=False)
    images = first_pictures(learn, few)[:4]
    before = session.predict(images)
    said = measure_norms(session, learn, few.replace(batch_size=8))
    assert 'folded' in said
    for a, b in zip(session.predict(images), before): assert away(a, b) < 1e-3
    after = session.get_state()
    assert all(after[p.name].any() for p in parameters(cfg) if p.kind == 'mean')
