"Boxes, matching and loss against oracles that share no formula with them."
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from ssd_nb.architecture import count, parameters, rows
from ssd_nb.box_coding import decode, encode, iou, to_corners
from ssd_nb.config import SSDConfig
from ssd_nb.default_boxes import default_boxes
from ssd_nb.matching import match, match_and_encode
from ssd_nb.schedule import learning_rates

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
    convs = [c for r in rows(CFG) for c in r.convs]
    assert all(c.groups in (1, c.cin) and c.size == -(-c.size_in//c.stride) for c in convs)

@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(1, 30), st.floats(0, 5))
def test_rates_stay_between_their_ends(epochs, steps, warmup):
    cfg = SSDConfig(epoch_size=epochs, warmup_epochs=warmup)
    rates = learning_rates(cfg, steps)
    assert len(rates) == epochs*steps and rates.min() >= cfg.lr*cfg.lr_end_rate*.999 and rates.max() <= cfg.lr*1.001
    top = min(int(warmup*steps), epochs*steps)
    assert (np.diff(rates[:top]) >= 0).all() and (np.diff(rates[top:]) <= 0).all()
