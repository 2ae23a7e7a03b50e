"Augmentation: boxes stay boxes and on their objects; windows, mirror and hue can be undone."
from dataclasses import replace
import numpy as np
import pytest
from conftest import encoded, smooth
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from ssd_nb.boxes.coding import to_pixels
from ssd_nb.config import SSDConfig
from ssd_nb.images import load_image
from ssd_nb.learning.augment import augment, flip_boxes, into_window, out_of_window, to_cells, turn_hue

CFG = SSDConfig.preset('tiny', batch_size=4)
RNG = np.random.default_rng(7)

def as_boxes(rows):
    "Corners yxyx of rows (y, x, height, width), cut at the image's edge."
    return np.array([(y, x, min(1, y + h), min(1, x + w)) for y, x, h, w in rows], np.float32).reshape(-1, 4)

corner, side = st.floats(0, .9), st.floats(.005, 1)
boxes_strategy = st.lists(st.tuples(corner, corner, side, side), max_size=8).map(as_boxes)
image_shapes = st.tuples(st.integers(1, 400), st.integers(1, 400))
protocols = st.sampled_from(['standard', 'reference'])

@given(boxes_strategy, st.integers(0, 2**31), image_shapes, protocols, st.booleans())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_augmented_boxes_are_boxes(boxes, seed, shape, protocol, paper):
    cfg = replace(CFG, protocol=protocol, **(dict(expand=.7, hue=.2) if paper else {}))
    image, labels = np.zeros((*shape, 3), np.uint8), np.arange(1, len(boxes) + 1)
    picture, seen, which = augment(image, boxes, labels, cfg, np.random.default_rng(seed))
    assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8 and seen.dtype == np.float32
    assert (seen >= 0).all() and (seen <= 1).all() and (seen[:, 2:] > seen[:, :2]).all()
    assert len(seen) == len(which) and set(which) <= set(labels) and len(set(which)) == len(which)
    assert len(boxes) == 0 or len(which) >= 1 # a crop shows an object


@pytest.mark.parametrize('seed', range(40))
def test_boxes_stay_on_their_objects(seed):
    "Each object is painted in a colour of its own, and looked for in the augmented picture."
    rng = np.random.default_rng(seed)
    height, width = rng.integers(150, 900, 2)
    image, colours, boxes = np.zeros((height, width, 3), np.uint8), np.eye(3, dtype=np.uint8)*255, []
    for n, colour in enumerate(colours): # three columns, so that no object hides another
        column = np.arange(n*width//3, (n + 1)*width//3)
        y1, y2 = np.sort(rng.choice(height, 2, False))
        x1, x2 = np.sort(rng.choice(column, 2, False))
        y2, x2 = max(y2, y1 + 12), max(x2, x1 + 12)
        image[y1:y2, x1:x2] = colour
        boxes.append((y1/height, x1/width, min(y2, height)/height, min(x2, width)/width))
    cfg = replace(CFG, jitter=0., expand=.3 if seed % 2 else 0., expand_ratio=2.)
    for kind in (image, encoded(Image.fromarray(image), 'PNG')):
        rng = np.random.default_rng((seed, 1))
        picture, seen, labels = augment(kind, np.array(boxes), np.arange(3), cfg, rng, (height, width))
        for (x1, y1, x2, y2), label in zip(to_pixels(seen, 128, 128), labels):
            found = (picture.astype(int) @ (2*np.eye(3)[label] - 1)) > 100 # more of this colour than of the others
            ys, xs = np.nonzero(found)
            tight = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert np.abs(tight - [x1, y1, x2, y2]).max() <= 2.5


def test_reading_at_a_fraction_changes_little(tmp_path):
    "The same view from a JPEG file that is read at a half to an eighth, and from its pixels."
    path, labels, boxes = tmp_path/'large.jpg', np.array([1]), np.array([[.1, .1, .9, .9]])
    Image.fromarray(smooth(RNG, 1100, 1300)).save(path)
    pixels = load_image(path)
    def view(source, seed): return augment(source, boxes, labels, CFG, np.random.default_rng(seed), (1100, 1300))
    for seed in range(8):
        (a, a_boxes, _), (b, b_boxes, _) = view(path, seed), view(pixels, seed)
        assert np.array_equal(a_boxes, b_boxes) and np.abs(a.astype(int) - b).mean() < 1.5


@given(st.tuples(*[st.floats(-1, 2)]*4), st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([64, 300]))
@settings(deadline=None, max_examples=200)
def test_cells_cover_the_window(corners, height, width, size):
    (y1, y2), (x1, x2) = sorted(corners[:2]), sorted(corners[2:])
    window, shape = np.array([y1, x1, y2 + .01, x2 + .01]), np.array([height, width])
    cells, k = to_cells(window, shape, size)
    pixels = window*shape[[0, 1, 0, 1]]
    assert (cells[:2]*k <= pixels[:2] + .01).all() and (cells[2:]*k >= pixels[2:] - .01).all()
    assert (np.abs(cells*k - pixels) <= k + .01).all() and (cells[2:] > cells[:2]).all()
    assert k == 1 or (cells[2:] - cells[:2] >= size).all() # reduced, but not below the size that is needed


@given(boxes_strategy, st.tuples(st.floats(-1, .4), st.floats(-1, .4), st.floats(.5, 2), st.floats(.5, 2)))
@settings(deadline=None)
def test_windows_and_mirror_invert(boxes, window):
    assert np.allclose(out_of_window(into_window(boxes, np.array(window)), np.array(window)), boxes, atol=1e-6)
    assert np.allclose(flip_boxes(flip_boxes(boxes)), boxes, atol=1e-6)


def test_a_full_turn_of_the_hue_is_none():
    image = smooth(RNG, 40, 40)
    assert np.array_equal(turn_hue(image, .5), turn_hue(image, -.5))
    assert np.abs(turn_hue(turn_hue(image, .3), -.3).astype(int) - image).mean() < 5
