"""The reference model, full size in float32, in torch and in MindSpore: the same numbers. Where the bounds come from
stands in nbs/7_frameworks/11_parity."""
import numpy as np, pytest
pytest.importorskip('torch')
pytest.importorskip('mindspore')
from ssd_nb.networks.table import initial_state, parameters
from ssd_nb.backends.contract import random_batch
from ssd_nb.backends.session import MOMENTUM, make_session
from ssd_nb.backends.ckpt import write_ckpt
from ssd_nb.checkpoint import load, save
from ssd_nb.backends.reference import to_reference
from ssd_nb.config import SSDConfig
from ssd_nb.detection.postprocess import postprocess
from ssd_nb.learning.schedule import learning_rates

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
        losses += [float(session.train_step(batch, lr)) for lr in rates[1:]]
        found[name] = dict(out=out, state=state, losses=losses)
    return found

def test_locs_and_logits(runs):
    for a, b in zip(*(runs[n]['out'] for n in BACKENDS)): assert away(a, b) <= 1e-4

def test_loss_of_the_first_step(runs):
    a, b = (runs[n]['losses'][0] for n in BACKENDS)
    assert abs(a/b - 1) <= 1e-5

def test_losses_of_twenty_steps(runs):
    a, b = (np.array(runs[n]['losses']) for n in BACKENDS)
    assert np.abs(a/b - 1).max() <= .01 and b[-1] < b[0]

@pytest.fixture(scope='module')
def exact():
    "The state after the first step, computed in float64: what both frameworks round."
    from ssd_nb.backends.torch_loss import torch_loss
    from ssd_nb.backends.torch_net import TorchNet
    import torch
    batch, net, first = random_batch(CFG, 4), TorchNet(CFG), initial_state(CFG)
    with torch.no_grad():
        for name, t in net.tensors().items(): t.copy_(torch.from_numpy(first[name]))
    net = net.double().train()
    locs, logits = net(torch.from_numpy(batch.images))
    targets = torch.from_numpy(batch.locs).double(), torch.from_numpy(batch.labels).long()
    torch_loss(locs, logits, *targets, CFG).backward()
    state, lr, tensors = {}, learning_rates(CFG, 458)[0], net.tensors()
    for p in parameters(CFG):
        state[p.name] = tensors[p.name].detach().numpy()
        if not p.trainable: continue
        v = state[MOMENTUM + p.name] = tensors[p.name].grad.numpy() + CFG.weight_decay*p.decays*state[p.name]
        state[p.name] = state[p.name] - lr*v
    return state

@pytest.mark.parametrize('prefix, bound', [('', 1e-4), (MOMENTUM, 1e-3)])
def test_state_after_one_step(runs, exact, prefix, bound):
    """Every tensor within the bound; or, where float32 itself is less exact than that, MindSpore about as near to the
    float64 result as torch is. Gradients that are exactly 0 (a shift before a batch norm) are rounding alone."""
    names = [prefix + p.name for p in parameters(CFG) if p.trainable or not prefix]
    torch32, mindspore32 = (runs[n]['state'] for n in BACKENDS)
    faults = []
    for n in names:
        if away(mindspore32[n], torch32[n]) <= bound: continue
        rounding, ours = (np.abs(s[n] - exact[n]).max() for s in (torch32, mindspore32))
        if ours > max(bound*np.abs(exact[n]).max(), 20*rounding, 1e-6): faults.append((n, ours, rounding))
    assert not faults
    others = [n for n in names if np.abs(exact[n]).max() > 1e-10]
    of_mindspore, of_torch = (np.median([away(s[n], exact[n]) for n in others]) for s in (mindspore32, torch32))
    assert of_mindspore <= 2*of_torch + 1e-7, 'MindSpore is as exact as torch'

@pytest.fixture(scope='module')
def published(tmp_path_factory):
    "A checkpoint made by MindSpore itself under the published names, of a network whose logits spread."
    import mindspore as ms
    state = initial_state(CFG, seed=7)
    rng = np.random.default_rng(0)
    for name, a in state.items():
        if name.startswith('logits') and 'predict' in name: state[name] = rng.normal(0, .3, a.shape).astype(np.float32)
    path = tmp_path_factory.mktemp('published')/'ssd.ckpt'
    ms.save_checkpoint([dict(name=n, data=ms.Tensor(a)) for n, a in to_reference(state, CFG).items()], str(path))
    return path

def test_published_checkpoint_detects_the_same_everywhere(published, tmp_path):
    state, cfg, _ = load(published)
    images, sizes = random_batch(cfg, 2).images, np.array([[300, 300], [200, 400]])
    save(tmp_path/'a.safetensors', state, cfg)
    write_ckpt(tmp_path/'b.ckpt', to_reference(load(tmp_path/'a.safetensors')[0], cfg))
    found = {}
    for name, file in [(name, file) for file in (published, tmp_path/'b.ckpt') for name in BACKENDS]:
        session = make_session(name, cfg, training=False, device='cpu')
        session.set_state(load(file)[0])
        found[name, file.name] = postprocess(*session.predict(images), sizes, cfg)
    first = found['torch', 'ssd.ckpt']
    assert all(len(d.scores) for d in first)
    for name, other in found.items():
        for d, e in zip(first, other):
            assert np.array_equal(d.labels, e.labels), name
            assert np.allclose(d.scores, e.scores, atol=1e-5) and np.allclose(d.boxes, e.boxes, atol=1e-2), name
            if name[0] == 'torch': assert np.array_equal(d.boxes, e.boxes) and np.array_equal(d.scores, e.scores)
