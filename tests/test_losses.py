"The losses as they are specified: what they choose, what they weigh, and how they change."
import math
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from ssd_nb.config import SSDConfig
from ssd_nb.learning.losses import (
    LossConfig, batch_loss, cross_entropy, hard_negative_gradients, hard_negative_loss, hard_negatives,
    multibox_gradients, multibox_loss, sigmoid)

LOSSES = dict(focal=(multibox_loss, multibox_gradients), hard_negatives=(hard_negative_loss, hard_negative_gradients))

def batch_of(seed, images=2, boxes=12, classes=5, matched=.2):
    "Random answers and targets: locs, logits, target locs, labels."
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, classes, (images, boxes))*(rng.random((images, boxes)) < matched)
    locs, targets = rng.normal(0, 1.5, (2, images, boxes, 4))
    return locs, rng.normal(0, 2, (images, boxes, classes)), targets, labels

@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('seed', range(5))
def test_the_loss_falls_as_its_gradients_say(name, seed):
    loss, gradients = LOSSES[name]
    locs, logits, targets, labels = batch_of(seed)
    by_locs, by_logits = gradients(locs, logits, targets, labels)
    rng, h = np.random.default_rng(seed), 1e-6
    for _ in range(5): # in random directions
        a, b = rng.normal(0, 1, locs.shape), rng.normal(0, 1, logits.shape)
        up, down = (loss(locs + s*a, logits + s*b, targets, labels) for s in (h, -h))
        assert abs((up - down)/(2*h) - (by_locs*a).sum() - (by_logits*b).sum()) < 1e-6

@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 5))
def test_hard_negatives_are_background_with_the_highest_loss(seed, ratio):
    _, logits, _, labels = batch_of(seed)
    losses = cross_entropy(logits, labels)
    chosen = hard_negatives(losses, labels, ratio)
    for mask, loss, label in zip(chosen, losses, labels):
        background = label == 0
        assert not mask[~background].any()
        assert mask.sum() == min(np.ceil(ratio*(~background).sum()), background.sum())
        left = background & ~mask
        if mask.any() and left.any(): assert loss[mask].min() >= loss[left].max()

@pytest.mark.parametrize('name', LOSSES)
def test_no_object_no_division_by_zero(name):
    locs, logits, targets, labels = batch_of(0, matched=0)
    assert np.isfinite(batch_loss(locs, logits, targets, labels, LossConfig(class_loss=name)))
    assert all(np.isfinite(g).all() for g in LOSSES[name][1](locs, logits, targets, labels))

@pytest.mark.parametrize('name', LOSSES)
def test_the_divisor_can_be_that_of_all_devices(name):
    batch, cfg = batch_of(3), LossConfig(class_loss=name)
    count = (batch[3] > 0).sum()
    assert np.isclose(batch_loss(*batch, cfg, num_matched=2*count), batch_loss(*batch, cfg)/2)

@settings(deadline=None)
@given(st.lists(st.floats(-800, 800, width=32), min_size=2))
def test_sigmoid_keeps_order_and_precision(logits):
    x = np.sort(np.array(logits, np.float32))
    p = sigmoid(x)
    assert p.dtype == np.float32 and (np.diff(p) >= 0).all() and (p >= 0).all() and (p <= 1).all()

def test_the_class_loss_decides_the_score_function():
    cfg = SSDConfig.preset('tiny', class_loss='hard_negatives')
    assert cfg.score_function == 'softmax' and cfg.replace(class_loss='focal').score_function == 'sigmoid'
    assert SSDConfig().score_function == 'sigmoid' and SSDConfig.preset('ssd300_vgg16').score_function == 'softmax'

@pytest.mark.parametrize('alpha', [.25, .75, 1.])
def test_alpha_weighs_yes_and_the_rest_weighs_no(alpha):
    "The focal loss term by term, in plain Python."
    locs, logits, _, labels = batch_of(4)
    cfg, total = LossConfig(alpha=alpha), 0.
    for image, row in enumerate(labels):
        for box, label in enumerate(row):
            for column, x in enumerate(logits[image, box]):
                p = 1/(1 + math.exp(-x))
                right, weight = (p, alpha) if column == label else (1 - p, 1 - alpha)
                total -= weight*(1 - right)**cfg.gamma*math.log(right)
    assert np.isclose(batch_loss(locs, logits, locs, labels, cfg), total/(labels > 0).sum())
