"The reference model, full size in float32, in torch and in MindSpore: the same numbers. Tiny bounds and the reasons stand in notebook 16."
import numpy as np, pytest
pytest.importorskip('torch'); pytest.importorskip('mindspore')
from ssd_nb.architecture import initial_state, parameters
from ssd_nb.backend import MOMENTUM, make_session, random_batch
from ssd_nb.checkpoint import load, save, to_reference
from ssd_nb.config import SSDConfig
from ssd_nb.postprocess import postprocess
from ssd_nb.schedule import learning_rates

CFG = SSDConfig()
BACKENDS = 'torch', 'mindspore'
STEPS = 20

def away(a, b):
    "Largest difference, relative to the largest value."
    return np.abs(np.asarray(a, np.float64) - b).max()/max(np.abs(b).max(), 1e-30)

@pytest.fixture(scope='module')
def runs():
    "In each framework: logits of the initial weights, and twenty steps on one batch in warm-up."
    batch, rates, found = random_batch(CFG, 4), learning_rates(CFG, 458)[:STEPS], {}
    assert .001 <= rates[0] < rates[-1] < .005
    for name in BACKENDS:
        session = make_session(name, CFG, device='cpu')
        out = session.predict(batch.images)
        losses = [float(session.train_step(batch, rates[0]))]
        state = session.get_state()
        found[name] = dict(out=out, state=state, losses=losses + [float(session.train_step(batch, lr)) for lr in rates[1:]])
    return found

def test_locs_and_logits(runs):
    for a, b in zip(*(runs[n]['out'] for n in BACKENDS)): assert away(a, b) <= 1e-4

def test_loss_of_the_first_step(runs):
    a, b = (runs[n]['losses'][0] for n in BACKENDS)
    assert abs(a/b - 1) <= 1e-5

def test_state_after_one_step(runs):
    a, b = (runs[n]['state'] for n in BACKENDS)
    misses = [(p.name, away(a[p.name], b[p.name])) for p in parameters(CFG) if away(a[p.name], b[p.name]) > 1e-4]
    assert not misses

def test_momentum_after_one_step(runs):
    a, b = (runs[n]['state'] for n in BACKENDS)
    names = [MOMENTUM + p.name for p in parameters(CFG) if p.trainable]
    assert not [(n, away(a[n], b[n])) for n in names if away(a[n], b[n]) > 1e-3]

def test_losses_of_twenty_steps(runs):
    a, b = (np.array(runs[n]['losses']) for n in BACKENDS)
    assert np.abs(a/b - 1).max() <= .01 and b[-1] < b[0]
