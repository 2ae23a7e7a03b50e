"The losses in the frameworks' own operations are those of the specification: values, gradients, ties, empty images."
from __future__ import annotations
import importlib
import numpy as np
import pytest
from ssd_nb.backends.contract import SMALL, known_answers, random_batch
from ssd_nb.backends.session import make_session
from ssd_nb.detection.postprocess import all_scores
from ssd_nb.learning.losses import LossConfig, batch_gradients, batch_loss, hard_negatives

CONFIGS = dict(focal=LossConfig(alpha=.6, gamma=1.), paper=LossConfig(class_loss='hard_negatives'),
               few=LossConfig(class_loss='hard_negatives', negatives_per_positive=.4))

def torch_answers(arrays, labels, cfg):
    "Loss and gradients of torch, in float64."
    import torch
    from ssd_nb.backends.torch_loss import torch_loss
    locs, logits, targets = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays)
    loss = torch_loss(locs, logits, targets.detach(), torch.tensor(labels).long(), cfg)
    loss.backward()
    return loss.item(), locs.grad.numpy(), logits.grad.numpy()

def mindspore_answers(arrays, labels, cfg):
    "Loss and gradients of MindSpore, as a compiled graph in float32."
    from ssd_nb.backends.mindspore_devices import mindspore_device
    from ssd_nb.backends.mindspore_loss import mindspore_loss
    import mindspore as ms
    mindspore_device('CPU')
    batch = [ms.Tensor(a.astype(np.float32)) for a in arrays]
    marks, count = ms.Tensor(labels.astype(np.int32)), ms.Tensor(np.float32((labels > 0).sum()))
    def loss(*answers): return mindspore_loss(*answers, cfg)
    loss, gradients = ms.jit(ms.value_and_grad(loss, (0, 1)))(*batch, marks, count)
    return float(loss), *(g.asnumpy() for g in gradients)

ANSWERS = dict(torch=torch_answers, mindspore=mindspore_answers)

def batch_of(seed, matched=.1):
    "Random answers for three images, of which the last has no object."
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(0, scale, (3, 40, n)).astype(np.float32) for scale, n in ((2, 4), (4, 6), (2, 4))]
    labels = rng.integers(1, 6, (3, 40))*(rng.random((3, 40)) < matched)
    labels[2] = 0
    return arrays, labels

@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('matched', [.1, .6, 0.], ids=['some', 'most', 'none'])
def test_loss_and_gradients_are_those_of_the_specification(backend, name, matched):
    (arrays, labels), cfg = batch_of(1, matched), CONFIGS[name]
    loss, *gradients = ANSWERS[backend](arrays, labels, cfg)
    assert np.isclose(loss, batch_loss(*arrays, labels, cfg), rtol=1e-5)
    expected = batch_gradients(*arrays, labels, cfg)
    for found, known in zip(gradients, expected): assert np.allclose(found, known, atol=1e-5)

@pytest.mark.parametrize('name', CONFIGS)
def test_what_an_image_without_objects_teaches(backend, name):
    "Under the focal loss its boxes learn to be background. Hard negatives of no matched box are none: it is silent."
    (arrays, labels), cfg = batch_of(3), CONFIGS[name]
    assert (labels[:2] > 0).any(1).all() and not labels[2].any()
    loss, by_locs, by_logits = ANSWERS[backend](arrays, labels, cfg)
    company = ANSWERS[backend]([a[:2] for a in arrays], labels[:2], cfg)[0]
    lonely = ANSWERS[backend]([a[2:] for a in arrays], labels[2:], cfg)
    assert not by_locs[2].any()
    if cfg.class_loss == 'focal':
        assert (np.abs(by_logits[2]).sum(-1) > 0).all() and loss > company and lonely[0] > 0
        return
    assert not by_logits[2].any() and np.isclose(loss, company, rtol=1e-6)
    assert lonely[0] == 0 and not any(gradient.any() for gradient in lonely[1:])
    known = batch_gradients(*[a[2:] for a in arrays], labels[2:], cfg)
    assert batch_loss(*[a[2:] for a in arrays], labels[2:], cfg) == 0 and not any(g.any() for g in known)

@pytest.mark.parametrize('ratio', [0., .4, 1., 3., 50.])
def test_of_equal_negatives_the_first_are_chosen(backend, ratio):
    "Few values and many ties, zeros among them: the gradients say who was chosen."
    rng = np.random.default_rng(5)
    arrays, labels = batch_of(2)
    logits = np.zeros((3, 40, 6), np.float32)
    logits[..., 0] = rng.choice([-2., 0., 3., 200.], (3, 40)) # 200: the cross entropy is 0 in float32
    cfg = LossConfig(class_loss='hard_negatives', negatives_per_positive=ratio)
    _, _, by_logits = ANSWERS[backend]([arrays[0], logits, arrays[2]], labels, cfg)
    wrong = np.log1p(5*np.exp(-logits[..., 0].astype(np.float64))).astype(np.float32) # of background boxes
    chosen = hard_negatives(wrong, labels, ratio)
    certain = logits[..., 0] == 200 # chosen or not, there is nothing to learn
    background = (labels == 0) & ~certain
    assert ((np.abs(by_logits).sum(-1) > 0) == chosen)[background].all()

def test_the_papers_loss_learns_a_batch(backend):
    "Sixty steps on one batch, whatever the weights: the loss falls to a fraction."
    cfg = SMALL.replace(class_loss='hard_negatives')
    session, batch = make_session(backend, cfg, device='cpu'), random_batch(cfg, 8)
    losses = [float(session.train_step(batch, .02)) for _ in range(60)]
    assert np.isfinite(losses).all() and losses[-1] < .7*losses[0]

@pytest.mark.parametrize('class_loss', ['focal', 'hard_negatives'])
def test_decoded_networks_score_as_the_library_does(backend, class_loss):
    module = importlib.import_module(f'ssd_nb.backends.{backend}')
    cfg, rng = SMALL.replace(class_loss=class_loss), np.random.default_rng(0)
    session, images = make_session(backend, cfg, training=False, device='cpu'), random_batch(cfg, 2).images
    session.set_state(known_answers(session.get_state(), cfg, rng.standard_normal)[0])
    decoded = dict(torch='TorchDecoded', mindspore='MindSporeDecoded')[backend]
    whole, tensor = getattr(module, decoded)(session.net, cfg), dict(torch='from_numpy', mindspore='Tensor')[backend]
    _, scores = whole(getattr(importlib.import_module(backend), tensor)(images))
    scores = scores.detach().numpy() if backend == 'torch' else scores.asnumpy()
    assert np.allclose(scores, all_scores(session.predict(images)[1], cfg), atol=1e-6)
