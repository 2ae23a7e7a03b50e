"Postprocessing against definitions written without NumPy, on ties, heavy overlap and whatever a network may answer."
from __future__ import annotations
import tracemalloc
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from ssd_nb.boxes.coding import clip_boxes, decode, to_pixels
from ssd_nb.config import SSDConfig
from ssd_nb.detection.postprocess import all_scores, grouped_nms, logit, nms, postprocess
from ssd_nb.learning.losses import log_softmax, sigmoid

SMALL = dict(class_num=4, aspect_ratios=((),)*5, max_boxes=3) # tiny's maps with one or two boxes a place

def plain_iou(a, b, offset):
    "Overlap of two boxes in plain Python numbers."
    sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + offset for k in (0, 1)]
    areas = [(c[2] - c[0] + offset)*(c[3] - c[1] + offset) for c in (a, b)]
    both = max(sides[0], 0)*max(sides[1], 0)
    return both/(sum(areas) - both) if sum(areas) - both > 0 else 0.

def brute_nms(boxes, scores, threshold, max_boxes, offset=0.):
    "By definition: a box is kept if no better kept box overlaps it by more than the threshold."
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if all(plain_iou(boxes[k], boxes[i], offset) <= threshold for k in kept): kept.append(i)
    return kept[:max_boxes]

def corners(t):
    "Two points as a box, which may have no area."
    (x1, x2), (y1, y2) = sorted(t[::2]), sorted(t[1::2])
    return x1, y1, x2, y2

box = st.tuples(*[st.integers(0, 8)]*4).map(corners)
# few places and scores: many equal boxes and ties
candidates = st.lists(st.tuples(box, st.integers(0, 3), st.integers(0, 2)), max_size=24)

@settings(deadline=None, max_examples=200)
@given(candidates, st.sampled_from([0., .25, .5, .6, 1.]), st.sampled_from([0., 1.]), st.integers(1, 30))
def test_nms_is_the_definition(found, threshold, offset, max_boxes):
    boxes, scores = np.array([f[0] for f in found], float).reshape(-1, 4), np.array([f[1] for f in found], float)
    expected = brute_nms(boxes.tolist(), scores.tolist(), threshold, max_boxes, offset)
    assert nms(boxes, scores, threshold, max_boxes, offset).tolist() == expected

@settings(deadline=None, max_examples=100)
@given(candidates, st.sampled_from([0., .5, .6]), st.integers(1, 5))
def test_groups_do_not_see_each_other(found, threshold, max_boxes):
    boxes, scores, groups = (np.array([f[k] for f in found], float) for k in range(3))
    boxes = boxes.reshape(-1, 4)
    expected = []
    for g in range(3):
        mine = np.flatnonzero(groups == g)
        expected += mine[nms(boxes[mine], scores[mine], threshold, max_boxes)].tolist()
    assert grouped_nms(boxes, scores, groups.astype(int), threshold, max_boxes).tolist() == expected

def brute_postprocess(locs, logits, size, cfg, class_agnostic):
    "One image, class by class, candidates and comparisons in plain Python."
    rules, boxes = cfg.rules, to_pixels(clip_boxes(decode(locs, cfg)), *size)
    floor, classes = logit(rules.min_score), range(1, cfg.class_num)
    if cfg.class_loss == 'hard_negatives':
        floor, logits = np.float32(np.log(rules.min_score)), log_softmax(logits).astype(np.float32)
    all_of = [(b, c) for c in classes for b in range(len(boxes)) if logits[b, c] > floor]
    found, per_class = [], rules.per_class_limit and not class_agnostic
    threshold, offset = np.float32(cfg.nms_threshold), np.float32(rules.nms_offset)
    for group in [all_of] if class_agnostic else [[f for f in all_of if f[1] == c] for c in classes]:
        values = [logits[f] for f in group]
        kept = brute_nms([boxes[b] for b, _ in group], values, threshold, len(group), offset)
        found += [group[k] for k in kept[:cfg.max_boxes]]
    found.sort(key=lambda f: (-logits[f], f[1]))
    return [(boxes[b].tolist(), c) for b, c in (found if per_class else found[:cfg.max_boxes])]

@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(['standard', 'reference']), st.booleans(),
       st.sampled_from(['spread', 'ties', 'crowded', 'few']), st.sampled_from(['focal', 'hard_negatives']))
def test_postprocess_is_the_definition(seed, protocol, class_agnostic, kind, class_loss):
    rng, rules = np.random.default_rng(seed), dict(protocol=protocol, nms_threshold=.5, class_loss=class_loss)
    cfg = SSDConfig.preset('tiny', **rules, **SMALL)
    locs = rng.normal(0, 1, (2, cfg.num_boxes, 4)).astype(np.float32)
    logits = rng.normal(-6 if kind == 'few' else 0, 1.5, (2, cfg.num_boxes, cfg.class_num)).astype(np.float32)
    if kind == 'ties': logits = np.round(logits)
    if kind == 'crowded': locs[..., 2:] += 30 # nearly all boxes cover the image, so the first candidates are not enough
    some = np.sort(rng.choice(cfg.num_boxes, 40, replace=False)) # the brute force is slow: forty boxes may speak
    silent = np.ones(cfg.num_boxes, bool)
    silent[some] = False
    logits[:, silent, 1:] = -50
    sizes = np.array([[90, 160], [200, 120]])
    found_in = postprocess(locs, logits, sizes, cfg.replace(agnostic_nms=class_agnostic))
    for found, l, g, size in zip(found_in, locs, logits, sizes):
        expected = brute_postprocess(l, g, size, cfg, class_agnostic)
        assert list(zip(found.boxes.tolist(), found.labels.tolist())) == expected
        assert (found.scores > cfg.rules.min_score).all() and (np.diff(found.scores) <= 0).all()

def test_softmax_scores_compare_classes_and_sigmoid_scores_do_not():
    logits = np.array([[[5., 5, 0], [0, 5, 0]]], np.float32) # as certain as the background, and more certain
    cfg = SSDConfig.preset('tiny', class_num=3)
    assert np.allclose(all_scores(logits, cfg)[0, :, 0], [1/(1 + np.exp(-5))]*2)
    hard = all_scores(logits, cfg.replace(class_loss='hard_negatives'))[0, :, 0]
    assert abs(hard[0] - .5) < .01 < .9 < hard[1]

def random_answer(cfg, images, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, .1, (images, cfg.num_boxes, k)).astype(np.float32) for k in (4, cfg.class_num)]

def test_an_image_does_not_depend_on_its_batch():
    cfg = SSDConfig.preset('tiny')
    (locs, logits), sizes = random_answer(cfg, 37), np.array([[100 + i, 200 - i] for i in range(37)])
    together = postprocess(locs, logits, sizes, cfg)
    assert len(together) == 37
    for i in (0, 15, 16, 36):
        alone, = postprocess(locs[i:i + 1], logits[i:i + 1], sizes[i:i + 1], cfg)
        for field in ('boxes', 'scores', 'labels'):
            assert np.array_equal(getattr(alone, field), getattr(together[i], field))
    assert postprocess(locs[:0], logits[:0], np.zeros((0, 2)), cfg) == []

def test_limits_and_types():
    (locs, logits), size = random_answer(SSDConfig.preset('tiny'), 1), np.array([[480, 640]])
    standard, = postprocess(locs, logits, size, SSDConfig.preset('tiny'))
    reference, = postprocess(locs, logits, size, SSDConfig.preset('tiny', protocol='reference'))
    assert len(standard) == 100 and np.bincount(reference.labels).tolist() == [0] + [100]*6
    assert [a.dtype for a in (standard.boxes, standard.scores, standard.labels)] == [np.float32, np.float32, np.int32]
    assert (standard.boxes >= 0).all() and (standard.boxes <= (640, 480, 640, 480)).all()
    logits[..., 0] = 99 # the background may shout as it likes
    assert 0 not in postprocess(locs, logits, size, SSDConfig.preset('tiny'))[0].labels
    silent, = postprocess(locs, logits - 200, size, SSDConfig.preset('tiny'))
    assert silent.boxes.shape == (0, 4) and len(silent) == 0

def test_equal_scores_go_to_the_lower_label_then_to_the_lower_box():
    cfg = SSDConfig.preset('tiny', max_boxes=5)
    locs, logits = np.zeros((1, cfg.num_boxes, 4)), np.zeros((1, cfg.num_boxes, cfg.class_num))
    found, = postprocess(locs, logits, np.array([[128, 128]]), cfg)
    assert found.labels.tolist() == [1]*5 and (found.scores == .5).all()
    boxes = to_pixels(clip_boxes(decode(np.zeros((cfg.num_boxes, 4), np.float32), cfg)), 128, 128)
    assert found.boxes.tolist() == boxes[brute_nms(boxes[:60].tolist(), [0]*60, cfg.nms_threshold, 5)].tolist()

@pytest.mark.parametrize('scale', [0., .1], ids=['all equal', 'untrained'])
@pytest.mark.parametrize('protocol', ['standard', 'reference'])
def test_memory_stays_bounded_when_every_box_is_a_candidate(scale, protocol):
    cfg = SSDConfig(protocol=protocol)
    locs, logits = random_answer(cfg, 2)
    tracemalloc.start()
    try:
        postprocess(locs, logits*(scale > 0), np.tile([480, 640], (2, 1)), cfg)
        peak = tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()
    assert peak < 60e6

@settings(deadline=None)
@given(st.floats(.001, .999))
def test_logit_undoes_sigmoid(score):
    assert abs(float(sigmoid(logit(score))) - score) < 1e-6

def test_higher_logits_never_score_lower():
    x = [np.random.default_rng(0).normal(0, 10, 100_000), np.linspace(-1e-6, 1e-6, 10_001), np.linspace(16, 18, 10_001)]
    x = np.sort(np.concatenate(x).astype(np.float32))
    assert (np.diff(sigmoid(x)) >= 0).all()

@pytest.mark.parametrize('change, message', [
    (dict(locs=np.zeros((1, 9, 4))), 'locs: shape'), (dict(logits=np.zeros((1, 9, 7))), 'logits: shape'),
    (dict(sizes=np.zeros((2, 2))), '2 images')])
def test_wrong_shapes_are_refused(change, message):
    cfg = SSDConfig.preset('tiny')
    given = dict(zip(('locs', 'logits'), random_answer(cfg, 1)), sizes=np.array([[10, 10]])) | change
    with pytest.raises(ValueError, match=message): postprocess(**given, cfg=cfg)

@pytest.mark.parametrize('which', [0, 1])
def test_nan_is_refused_by_name(which):
    cfg = SSDConfig.preset('tiny')
    answer = random_answer(cfg, 1)
    answer[which][0, 5, 2] = np.nan
    with pytest.raises(ValueError, match='NaN'): postprocess(*answer, np.array([[10, 10]]), cfg)
