"Default boxes, coding, IoU and matching against oracles that share no formula with them."
import itertools, math
from dataclasses import replace
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from ssd_nb.networks.table import count
from ssd_nb.boxes.coding import decode, default_corners, encode, iou
from ssd_nb.config import SSDConfig
from ssd_nb.boxes.default_boxes import BoxConfig, default_boxes, exact_boxes
from ssd_nb.errors import ConfigError
from ssd_nb.boxes.matching import match, match_and_encode

CFG, TINY = SSDConfig(), SSDConfig.preset('tiny')
fraction = st.floats(1/1024, 1023/1024, width=32)

@st.composite
def boxes(draw, most=12):
    "Boxes yxyx in [0,1] with sides of at least 1/300."
    n = draw(st.integers(1, most))
    corners = st.tuples(fraction, fraction, fraction, fraction)
    values = np.array(draw(st.lists(corners, min_size=n, max_size=n)), np.float32)
    low, high = np.minimum(values[:, :2], values[:, 2:]), np.maximum(values[:, :2], values[:, 2:])
    return np.concatenate([low, np.maximum(high, low + np.float32(1/300))], 1)

def test_published_numbers():
    assert default_boxes(CFG).shape == (1917, 4) and count(CFG) == 4_393_461
    assert [m.size for m in CFG.maps] == [(n, n) for n in (19, 10, 5, 3, 2, 1)]

def test_default_boxes_of_the_reference_in_plain_python():
    "Python's own floats, rounded to float32 once: boxes and corners agree to the bit."
    boxes, corners, scales = [], [], [.2 + .75/5*k for k in range(6)] + [1.]
    for k, (cells, step) in enumerate(zip((19, 10, 5, 3, 2, 1), (16, 32, 64, 100, 150, 300))):
        side, ratios = (.1, (2,)) if k == 0 else (scales[k], (2, 3))
        shapes = [(side, side)]
        for r in ratios:
            short, long = scales[k]/math.sqrt(r), scales[k]*math.sqrt(r)
            shapes += [(short, long), (long, short)]
        if k: shapes.append((math.sqrt(scales[k]*scales[k + 1]),)*2)
        for i, j, (h, w) in itertools.product(range(cells), range(cells), shapes):
            y, x = (i + .5)/(300/step), (j + .5)/(300/step)
            boxes.append((y, x, h, w))
            corners.append((y - h/2, x - w/2, y + h/2, x + w/2))
    assert np.array_equal(default_boxes(CFG), np.array(boxes, np.float32))
    assert np.array_equal(default_corners(CFG), np.array(corners, np.float32))
    assert np.abs(exact_boxes(CFG) - np.array(boxes)).max() < 1e-15

def test_fractional_steps_give_the_centres_of_the_paper():
    sizes = (19, 10, 5, 3, 2, 1)
    for cfg in (BoxConfig(steps=[300/n for n in sizes]), BoxConfig(steps=())):
        boxes, start = exact_boxes(cfg), 0
        for n, shapes in zip(sizes, cfg.num_default):
            x = boxes[start:start + n*shapes:shapes, 1]
            assert np.allclose(x, (np.arange(n) + .5)/n, atol=1e-12)
            start += n*n*shapes
        assert start == cfg.num_boxes == 1917

def test_steps_that_do_not_cover_the_image_are_refused_with_the_remedy():
    with pytest.raises(ConfigError, match='steps: 100 pixels for 4 cells do not cover 512 pixels; leave steps empty'):
        BoxConfig(image_shape=(512, 512))
    large = BoxConfig(image_shape=(512, 512), steps=())
    assert [m.step for m in large.maps] == [16, 32, 64, 128, 256, 512]
    assert default_boxes(large)[-1, :2].tolist() == [.5, .5]

def test_arrays_of_default_boxes_cannot_be_changed():
    for array in (default_boxes(CFG), exact_boxes(CFG), default_corners(CFG)):
        with pytest.raises(ValueError): array[0] = 0

@settings(deadline=None, max_examples=50)
@given(boxes())
def test_encoding_is_undone_by_decoding(b):
    for cfg in (CFG, TINY):
        tiled = np.resize(b, (cfg.num_boxes, 4))
        assert np.abs(decode(encode(tiled, cfg), cfg) - tiled).max() < 1e-5

@settings(deadline=None, max_examples=50)
@given(boxes(6), boxes(6))
def test_iou_by_counting_points(a, b):
    "The fraction of grid points in both boxes among those in either, up to the grid's fineness."
    grid = (np.arange(400) + .5)/400
    def inside(box): return np.outer((grid > box[0]) & (grid < box[2]), (grid > box[1]) & (grid < box[3]))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            either = (inside(p) | inside(q)).sum()
            if either > 2000: assert abs(iou(a, b)[i, j] - (inside(p) & inside(q)).sum()/either) < .06

def naive_reference(b, cfg):
    "The reference in float32: object after object, each best box scores 2, a box changes hands only for more."
    corners, zero = default_corners(cfg), np.float32(0)
    areas = (corners[:, 2] - corners[:, 0])*(corners[:, 3] - corners[:, 1])
    score, learns = np.zeros(len(corners), np.float32), np.full(len(corners), -1)
    for m, (y1, x1, y2, x2) in enumerate(b):
        height = np.maximum(np.minimum(corners[:, 2], y2) - np.maximum(corners[:, 0], y1), zero)
        width = np.maximum(np.minimum(corners[:, 3], x2) - np.maximum(corners[:, 1], x1), zero)
        both = height*width
        overlap = both/(areas + (y2 - y1)*(x2 - x1) - both)
        overlap[overlap.argmax()] = 2
        takes = (overlap > np.float32(cfg.match_threshold)) & (overlap > score)
        score[takes], learns[takes] = overlap[takes], m
    return learns

def naive_standard(b, cfg):
    "Every pair, the best first, makes a free object keep a free box; then each box that is left takes its best object."
    overlap = iou(b, default_corners(cfg))
    order = np.argsort(-overlap, axis=None, kind='stable') # of equals the earlier object, then the earlier box
    kept, owner = {}, {}
    for m, n in zip(*np.unravel_index(order, overlap.shape)):
        if m in kept or n in owner: continue
        kept[m], owner[n] = n, m
        if len(kept) == min(overlap.shape): break
    learns = np.full(overlap.shape[1], -1)
    for n, column in enumerate(overlap.T):
        if n in owner: learns[n] = owner[n]
        elif column.max() > np.float32(cfg.match_threshold): learns[n] = column.argmax()
    return learns

def naive_match(b, cfg):
    return naive_standard(b, cfg) if cfg.rules.bipartite else naive_reference(b, cfg)

VARIANTS = itertools.product((CFG, TINY), ('standard', 'reference'), (.5, .3))
CONFIGS = [replace(c, protocol=p, match_threshold=t) for c, p, t in VARIANTS]
CONFIGS += [replace(CFG, match_threshold=0.), replace(TINY, match_threshold=1.)]
CONFIGS += [replace(CFG, first_scale=.01, min_scale=.05, steps=(16, 31, 64, 110, 151, 300))]

BORDER = ([0, 0, 1, 1], [0, 0, .25, 1], [.75, 0, 1, 1], [0, .5, 1, 1], [0, 0, .125, .125], [0, 0, 1/64, 1/64])

@st.composite
def hard_boxes(draw):
    "Boxes with the ties of real data: copies, default boxes, symmetric ones, some along the border, some tiny."
    found = list(draw(boxes(8)))
    defaults = np.clip(default_corners(CFG), 0, 1)
    for kind in draw(st.lists(st.sampled_from(('copy', 'default', 'square', 'border', 'dot')), max_size=8)):
        k, side = draw(st.integers(0, 1916)), draw(st.sampled_from((1/1024, 1/64, 1/8, 1/4, 1/2)))
        if kind == 'copy': found += [found[k % len(found)]]*draw(st.integers(1, 4))
        if kind == 'default': found.append(defaults[k])
        low, high = .5 - side, .5 + side
        if kind == 'square': found.append(np.array([low, low, high, high]))
        if kind == 'border': found.append(np.array(draw(st.sampled_from(BORDER))))
        if kind == 'dot': found.append(np.array([k/1917, .5, k/1917 + 1e-6, .5 + 1e-6]))
    return np.array(found, np.float32)

def name_of(cfg): return f'{cfg.image_size}-{cfg.protocol}-{cfg.match_threshold}-{cfg.first_scale}'

@pytest.mark.parametrize('cfg', CONFIGS, ids=name_of)
@settings(deadline=None, max_examples=60)
@given(hard_boxes())
def test_matching_equals_the_naive_loop(cfg, b):
    expected = naive_match(b, cfg)
    assert np.array_equal(match(b, cfg), expected)
    locs, labels, matched = match_and_encode(b, np.arange(len(b)) + 1, cfg)
    assert np.array_equal(labels, expected + 1) and matched == (expected >= 0).sum()
    whole = encode(b[np.maximum(expected, 0)], cfg)
    assert np.array_equal(locs[expected >= 0], whole[expected >= 0]) and not locs[expected < 0].any()
    assert locs.dtype == np.float32 and labels.dtype == np.int32

def test_matching_at_its_limits():
    "Objects that touch no default box, equal objects, more objects than default boxes."
    few = replace(TINY, image_shape=(32, 32))
    outside = np.array([[3, 3, 4, 4], [-4, -4, -3, -3]], np.float32)
    many = np.tile(np.array([[.2, .2, .4, .4]], np.float32), (60, 1))
    for cfg in CONFIGS[:4] + [few]:
        crowd = np.resize(many, (few.num_boxes + 3 if cfg is few else 70, 4))
        for b in (outside, many, np.concatenate([outside, many]), crowd):
            assert np.array_equal(match(b, cfg), naive_match(b, cfg))
    assert (match(np.zeros((0, 4), np.float32), CFG) == -1).all() and len(match([], CFG)) == 1917

def test_an_overlap_of_exactly_the_threshold_is_background():
    b = np.array([[.2, .2, .6, .6], [.5, .1, .9, .5]], np.float32)
    for exact in np.sort(iou(b, default_corners(CFG)).ravel())[-12:]:
        cfg = replace(CFG, match_threshold=float(exact))
        assert np.array_equal(match(b, cfg), naive_match(b, cfg))

@settings(deadline=None, max_examples=50)
@given(boxes())
def test_every_object_is_learnt(b):
    assert set(range(len(b))) <= set(match(b, CFG))
    locs, labels, matched = match_and_encode(b, np.arange(len(b)) + 1, CFG)
    assert matched == (labels > 0).sum() and not locs[labels == 0].any()
    assert np.abs(decode(locs, CFG)[labels > 0] - b[labels[labels > 0] - 1]).max() < 1e-4

@pytest.mark.parametrize('bad', [[[.5, .5, .5, .9]], [[.5, .5, .2, .9]], [[np.nan, 0, 1, 1]]])
def test_boxes_without_area_are_refused(bad):
    with pytest.raises(ValueError, match='without area'): match_and_encode(bad, [1], CFG)
