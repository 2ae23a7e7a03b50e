"Boxes, matching and loss against oracles that share no formula with them."
from dataclasses import replace
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from ssd_nb.networks.layers import row_sizes, size_after
from ssd_nb.networks.table import count, parameters, rows
from ssd_nb.boxes.coding import decode, encode, iou, to_corners
from ssd_nb.config import SSDConfig
from ssd_nb.boxes.default_boxes import default_boxes
from ssd_nb.boxes.matching import match, match_and_encode
from ssd_nb.learning.schedule import learning_rates

CFG, TINY = SSDConfig(), SSDConfig.preset('tiny')
share = st.floats(1/1024, 1023/1024, width=32)

@st.composite
def boxes(draw, most=12):
    "Boxes yxyx in [0,1] with sides of at least 1/300."
    n = draw(st.integers(1, most))
    values = np.array(draw(st.lists(st.tuples(share, share, share, share), min_size=n, max_size=n)), np.float32)
    low, high = np.minimum(values[:, :2], values[:, 2:]), np.maximum(values[:, :2], values[:, 2:])
    return np.concatenate([low, np.maximum(high, low + np.float32(1/300))], 1)

def test_published_numbers():
    assert default_boxes(CFG).shape == (1917, 4) and count(CFG) == 4_393_461 and CFG.feature_sizes == (19, 10, 5, 3, 2, 1)

@settings(deadline=None, max_examples=50)
@given(boxes())
def test_encoding_is_undone_by_decoding(b):
    for cfg in (CFG, TINY):
        tiled = np.resize(b, (cfg.num_boxes, 4))
        assert np.abs(decode(encode(tiled, cfg), cfg) - tiled).max() < 1e-5

@settings(deadline=None, max_examples=50)
@given(boxes(6), boxes(6))
def test_iou_by_counting_points(a, b):
    "The share of grid points in both boxes among those in either, up to the grid's fineness."
    grid = (np.arange(400) + .5)/400
    def inside(box): return np.outer((grid > box[0]) & (grid < box[2]), (grid > box[1]) & (grid < box[3]))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            either = (inside(p) | inside(q)).sum()
            if either > 2000: assert abs(iou(a, b)[i, j] - (inside(p) & inside(q)).sum()/either) < .06

def brute_force_match(b, cfg):
    "The two rules in plain Python: best pair first; then every free box takes its best object above the threshold."
    overlap = iou(b, to_corners(default_boxes(cfg)))
    learns = {}
    pairs = sorted(((-v, m, n) for m, row in enumerate(overlap) for n, v in enumerate(row)), key=lambda t: t)
    objects = set()
    for _, m, n in pairs:
        if m not in objects and n not in learns: learns[n] = m; objects.add(m)
        if len(objects) == len(b): break
    for n, column in enumerate(overlap.T):
        if n not in learns and column.max() > cfg.match_threshold: learns[n] = int(column.argmax())
    return learns

@settings(deadline=None, max_examples=40)
@given(boxes(8))
def test_matching_by_brute_force(b):
    learns = match(b, TINY)
    overlap = iou(b, to_corners(default_boxes(TINY)))
    expected = brute_force_match(b, TINY)
    for n in np.flatnonzero(learns != [expected.get(n, -1) for n in range(TINY.num_boxes)]): # only where rounding makes a tie
        close = [overlap[m, n] for m in (learns[n], expected.get(n, -1)) if m >= 0] + [TINY.match_threshold]*(min(learns[n], expected.get(n, -1)) < 0)
        assert max(close) - min(close) < 1e-5 or len(np.unique(overlap.argmax(1))) < len(b)

def one_object_at_a_time(b, cfg):
    "Both protocols in the plainest way: no grid, no bar, no sorting; float32 as in the library, so that even ties agree."
    corners = to_corners(default_boxes(cfg))
    overlap = np.array([iou(box[None], corners)[0] for box in b])
    learns, best = np.full(cfg.num_boxes, -1), np.full(cfg.num_boxes, np.float32(cfg.match_threshold))
    for m, row in enumerate(overlap):
        better = row > best
        learns[better], best[better] = m, row[better]
    if cfg.rules.bipartite: # the best of all pairs, then the best of what is left
        left = overlap.copy()
        for _ in range(min(left.shape)):
            m, n = divmod(int(left.argmax()), cfg.num_boxes)
            learns[n], left[m], left[:, n] = m, -1, -1
    else:
        for m in range(len(b) - 1, -1, -1): learns[overlap[m].argmax()] = m # the first object has the last word
    return learns

CONFIGS = [replace(c, protocol=p, match_threshold=t) for c in (CFG, TINY) for p in ('standard', 'reference') for t in (.5, .3)]
CONFIGS += [replace(CFG, match_threshold=0.), replace(TINY, match_threshold=1.), replace(CFG, first_scale=.01, min_scale=.05, steps=(16, 31, 64, 110, 151, 300))]

@st.composite
def hard_boxes(draw):
    "Boxes with the ties of real data: copies, default boxes themselves, symmetric ones, and boxes along the border down to a hair's breadth."
    found = list(draw(boxes(8)))
    defaults = np.clip(to_corners(default_boxes(CFG)), 0, 1)
    for kind in draw(st.lists(st.sampled_from(('copy', 'default', 'square', 'border', 'dot')), max_size=8)):
        k, box = draw(st.integers(0, 1916)), found[draw(st.integers(0, len(found) - 1))]
        side = draw(st.sampled_from((1/1024, 1/64, 1/8, 1/4, 1/2)))
        if kind == 'copy': found += [box]*draw(st.integers(1, 4))
        if kind == 'default': found.append(defaults[k])
        if kind == 'square': found.append(np.array([.5 - side, .5 - side, .5 + side, .5 + side]))
        if kind == 'border': found.append(np.array(draw(st.sampled_from(([0, 0, side, 1], [1 - side, 0, 1, 1], [0, 1 - side, 1, 1], [0, 0, side, side], [0, 0, 1, 1])))))
        if kind == 'dot': found.append(np.array([k/1917, .5, k/1917 + 1e-6, .5 + 1e-6]))
    return np.array(found, np.float32)

@pytest.mark.parametrize('cfg', CONFIGS, ids=lambda c: f'{c.image_size}-{c.protocol}-{c.match_threshold}-{c.first_scale}')
@settings(deadline=None, max_examples=60)
@given(hard_boxes())
def test_matching_equals_one_object_at_a_time(cfg, b):
    expected = one_object_at_a_time(b, cfg)
    assert np.array_equal(match(b, cfg), expected)
    locs, labels, matched = match_and_encode(b, np.arange(len(b)) + 1, cfg)
    assert np.array_equal(labels, expected + 1) and matched == (expected >= 0).sum()
    whole = encode(b[np.maximum(expected, 0)], cfg)
    assert np.array_equal(locs[expected >= 0], whole[expected >= 0]) and not locs[expected < 0].any()

def test_matching_where_the_grid_does_not_help():
    "Objects that touch no default box, more equal objects than contenders, more objects than default boxes."
    few = replace(TINY, image_shape=(32, 32))
    outside, many = np.array([[3, 3, 4, 4], [-4, -4, -3, -3]], np.float32), np.tile(np.array([[.2, .2, .4, .4]], np.float32), (60, 1))
    for cfg in CONFIGS[:4] + [few]:
        for b in (outside, many, np.concatenate([outside, many]), np.resize(many, (few.num_boxes + 3, 4))[:None if cfg is few else 70]):
            assert np.array_equal(match(b, cfg), one_object_at_a_time(b, cfg))

def test_an_overlap_of_exactly_the_threshold_is_background():
    b = np.array([[.2, .2, .6, .6], [.5, .1, .9, .5]], np.float32)
    for exact in np.sort(iou(b, to_corners(default_boxes(CFG))).ravel())[-12:]:
        cfg = replace(CFG, match_threshold=float(exact))
        assert np.array_equal(match(b, cfg), one_object_at_a_time(b, cfg))

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

def test_names_of_the_checkpoint_follow_the_table():
    assert len(parameters(CFG)) == 409 and len({p.name for p in parameters(CFG)}) == 409
    sizes = row_sizes(rows(CFG), CFG.image_shape)
    for row in rows(CFG):
        size = sizes[row.sources[0]]
        for layer in row.layers:
            after = size_after(layer, size)
            assert layer.groups in (1, layer.cin) and after == tuple(-(-n//layer.stride) for n in size)
            size = after

@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(1, 30), st.floats(0, 5))
def test_rates_stay_between_their_ends(epochs, steps, warmup):
    cfg = SSDConfig(epoch_size=epochs, warmup_epochs=warmup)
    rates = learning_rates(cfg, steps)
    assert len(rates) == epochs*steps and rates.min() >= cfg.lr*cfg.lr_end_rate*.999 and rates.max() <= cfg.lr*1.001
    top = min(int(warmup*steps), epochs*steps)
    assert (np.diff(rates[:top]) >= 0).all() and (np.diff(rates[top:]) <= 0).all()
