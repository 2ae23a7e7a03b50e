"Pictures: labels stay inside and legible whatever the boxes, files are whole."
import subprocess, sys
from types import SimpleNamespace
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from ssd_nb import visualize
from ssd_nb.captions import class_colour, place_label, text_colour
from ssd_nb.visualize import draw_boxes, panels, plot_lines, running_mean, save_figure, show_grid, show_image

numbers = st.floats(-50, 250, allow_nan=False)

@settings(deadline=None, max_examples=200)
@given(st.tuples(numbers, numbers, numbers, numbers), st.lists(st.tuples(numbers, numbers), max_size=4))
def test_a_label_that_fits_lies_inside_the_image(box, corners):
    x1, y1, x2, y2 = place_label(box, (40, 12), (200, 100), [(x, y, x + 40, y + 12) for x, y in corners])
    assert x1 >= 0 and y1 >= 0 and x2 <= 200 and y2 <= 100 and (x2 - x1, y2 - y1) == pytest.approx((40, 12))

@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=6), st.integers(20, 300), st.integers(20, 300))
def test_any_boxes_can_be_drawn(boxes, height, width):
    boxes = np.array(boxes).reshape(-1, 4)
    labels, scores = np.ones(len(boxes), int), np.linspace(0, 1, len(boxes))
    fig = show_image(np.zeros((height, width, 3), np.uint8), boxes, labels, scores, names=('x',), side=2.)
    assert fig._repr_png_()[:4] == b'\x89PNG'

def test_labels_of_two_calls_keep_apart():
    fig = show_image(np.zeros((200, 200, 3), np.uint8), [(50, 50, 150, 150)], [1], names=('truth',))
    draw_boxes(fig.axes[0], [(50, 50, 150, 150)], [1], [.5], names=('truth',), style='--')
    fig._repr_png_()
    a, b = (t.place for t in fig.axes[0].texts)
    assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]

def test_text_contrast_is_legible_on_every_class_colour():
    def luminance(c):
        c = np.array(c)
        return np.where(c <= .04045, c/12.92, ((c + .055)/1.055)**2.4) @ (.2126, .7152, .0722)
    for colour in map(class_colour, range(91)):
        a, b = sorted((luminance(colour), 1. if text_colour(colour) == 'white' else 0.))
        assert (b + .05)/(a + .05) >= 4.5

@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(0, 30))
def test_running_mean_stays_between_the_extremes(y, half):
    mean = running_mean(np.array(y), 2*half + 1)
    assert len(mean) == len(y) and min(y) - 1e-6 <= mean.min() and mean.max() <= max(y) + 1e-6

def test_short_and_empty_curves_are_drawn():
    for n in (0, 1, 2, 3): plot_lines({'loss': (range(n), np.ones(n))}, smooth=51, log=True)._repr_png_()

def test_images_of_different_shapes_share_a_grid():
    images = [np.zeros((h, w, 3), np.uint8) for h, w in ((10, 30), (30, 10), (5, 5))]
    grid = show_grid(images, columns=2, titles=['a', 'b', 'c'])
    assert len(grid.axes) == 3 and grid._repr_png_()

def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path/'a.png'
    path.write_bytes(b'old')
    fig, axes = panels()
    axes[0, 0].set_title('$\\mathdefault{\\broken}$') # as if it were a formula of matplotlib's own
    with pytest.raises(ValueError): save_figure(fig, path)
    assert path.read_bytes() == b'old' and [p.name for p in tmp_path.iterdir()] == ['a.png']

def test_import_leaves_pyplot_alone():
    code = '''import sys, ssd_nb.visualize as v
v.plot_lines({'a': ([1], [1])})._repr_png_()
sys.exit('matplotlib.pyplot' in sys.modules)'''
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

def wave(length=20., height=1.): return plot_lines({'wave': ([0, length], [0, height])})

def test_without_ipywidgets_a_picture_stands_for_its_sliders(monkeypatch):
    monkeypatch.setattr(visualize, 'find_spec', lambda name: None)
    fig = visualize.with_sliders(wave, length=(5, 50, 1))
    assert fig.axes[0].lines[0].get_xdata().tolist() == [0, 20]

def test_sliders_start_at_the_defaults_and_draw(monkeypatch):
    "With a stand-in, since ipywidgets is optional."
    made = {}
    def slider(value, **more): return dict(value=value, **more)
    def interactive(draw, options, **sliders):
        made.update(sliders)
        return draw(**{name: s['value'] for name, s in sliders.items()})
    monkeypatch.setattr(visualize, 'find_spec', lambda name: object())
    monkeypatch.setitem(sys.modules, 'ipywidgets', SimpleNamespace(FloatSlider=slider, interactive=interactive))
    fig = visualize.with_sliders(wave, length=(5, 50, 1), height=(0, 2, .1))
    assert made['length'] == dict(value=20., min=5, max=50, step=1, description='length') and len(made) == 2
    assert fig.axes[0].lines[0].get_ydata().tolist() == [0, 1]
