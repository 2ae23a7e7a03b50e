"The drawn data set: what it promises about every scene, and that it appears whole or not at all."
import json, os, subprocess, sys
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pycocotools.coco import COCO
from ssd_nb.learning import scenes, shapes
from ssd_nb.learning.drawings import CATEGORY_IDS, CLASSES
from ssd_nb.learning.landscape import landscape
from ssd_nb.learning.scenes import MIN_VISIBLE, draw_scene, make_scene, owners, visible
from ssd_nb.learning.shapes import ShapesError, ensure, scene_of, write_shapes

@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_every_scene_keeps_its_promises(seed):
    scene = make_scene(np.random.default_rng(seed))
    n = len(scene.labels)
    assert 3 <= n <= 8 and scene.labels.min() >= 1 and scene.labels.max() <= len(CLASSES)
    assert scene.image.shape == (256, 256, 3) and scene.image.dtype == np.uint8
    assert set(np.unique(scene.owner)) == set(range(n + 1))
    for i, (x1, y1, x2, y2) in enumerate(scene.boxes.astype(int)):
        mine, inside = scene.owner == i + 1, np.zeros((256, 256), bool)
        inside[y1:y2, x1:x2] = True
        assert not (mine & ~inside).any()
        edges = mine[y1, x1:x2], mine[y2 - 1, x1:x2], mine[y1:y2, x1], mine[y1:y2, x2 - 1]
        assert all(edge.any() for edge in edges)

@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_every_thing_is_visible(seed):
    rng = np.random.default_rng(seed)
    _, land = landscape(rng)
    things = scenes._arrange(rng, land, 256)
    assert visible(things, owners(things, 256)).min() >= MIN_VISIBLE

def test_other_sizes():
    image, boxes, labels = draw_scene(np.random.default_rng(1), size=96)
    assert image.shape == (96, 96, 3) and boxes.max() <= 96 and len(boxes) == len(labels)

def test_a_split_does_not_depend_on_its_length(tmp_path):
    for name, count in (('a', 2), ('b', 4)): write_shapes(tmp_path/name, train=count, val=1)
    for file in ('train/000001.jpg', 'val/000000.jpg', 'annotations/instances_val.json'):
        assert (tmp_path/'a'/file).read_bytes() == (tmp_path/'b'/file).read_bytes()

def test_annotations_are_valid_coco(tmp_path):
    coco = COCO(str(write_shapes(tmp_path/'d', train=3, val=1)/'annotations'/'instances_train.json'))
    assert {c['name']: c['id'] for c in coco.dataset['categories']} == dict(zip(CLASSES, CATEGORY_IDS))
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    for i, image in enumerate(coco.dataset['images']):
        anns = coco.imgToAnns[image['id']]
        assert [a['category_id'] for a in anns] == [CATEGORY_IDS[k - 1] for k in scene_of(0, 'train', i).labels]
        for a in anns:
            assert a['iscrowd'] == 0 and 0 < a['area'] <= a['bbox'][2]*a['bbox'][3] and a['segmentation']

def test_a_failure_leaves_the_old_data_set_and_nothing_else(tmp_path, monkeypatch):
    root = write_shapes(tmp_path/'d', train=2, val=1)
    def fail(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(shapes, '_annotations', fail)
    with pytest.raises(ShapesError, match='No space left'): write_shapes(root, train=3, val=1)
    assert json.loads((root/'shapes.json').read_text())['train'] == 2 and os.listdir(tmp_path) == ['d']

def test_a_failed_rename_brings_the_old_data_set_back(tmp_path, monkeypatch):
    root, replace = write_shapes(tmp_path/'d', train=2, val=1), os.replace
    def fail_the_second(a, b):
        if str(a).endswith('.tmp'): raise OSError('device gone')
        replace(a, b)
    monkeypatch.setattr(os, 'replace', fail_the_second)
    with pytest.raises(ShapesError, match='device gone'): write_shapes(root, train=3, val=1)
    assert json.loads((root/'shapes.json').read_text())['train'] == 2 and os.listdir(tmp_path) == ['d']

def test_ensure_draws_only_what_is_missing(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(shapes, 'write_shapes', lambda root: asked.append(root) or root)
    ensure(tmp_path/'none')
    monkeypatch.undo()
    ensure(write_shapes(tmp_path/'some', train=2, val=1, seed=3))
    assert asked == [tmp_path/'none'] and len(os.listdir(tmp_path/'some'/'train')) == 2

def test_a_data_set_with_the_older_name_is_known(tmp_path):
    root = write_shapes(tmp_path/'d', train=2, val=1)
    recipe = json.loads((root/'shapes.json').read_text())
    (root/'shapes.json').write_text(json.dumps({**recipe, 'made_by': 'ssd_nb.shapes'}))
    before = (root/'train'/'000000.jpg').stat().st_ino
    assert ensure(root) == root and (root/'train'/'000000.jpg').stat().st_ino == before
    assert len(os.listdir(write_shapes(root, train=3, val=1)/'train')) == 3

def test_two_writers_at_once(tmp_path):
    command = [sys.executable, '-m', 'ssd_nb.learning.shapes', str(tmp_path/'d'), '--train', '4', '--val', '2']
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [p.communicate() and p.returncode for p in both] == [0, 0]
    assert os.listdir(tmp_path) == ['d'] and len(os.listdir(tmp_path/'d'/'train')) == 4

@pytest.mark.parametrize('arguments, says', [
    (['--train', '0'], 'not between 1'), (['--trian', '3'], 'did you mean --train?'),
    (['--seed', '-1'], 'not between 0')])
def test_wrong_arguments_are_named(tmp_path, capsys, arguments, says):
    with pytest.raises(SystemExit) as e: shapes.main([str(tmp_path/'d'), *arguments])
    assert e.value.code == 2 and says in capsys.readouterr().err and not os.listdir(tmp_path)

def test_a_file_or_foreign_folder_is_left_alone(tmp_path):
    (tmp_path/'file').write_text('x')
    (tmp_path/'full').mkdir()
    (tmp_path/'full'/'shapes.json').write_text('{"made_by": "me"}')
    for name in ('file', 'full'):
        with pytest.raises(ShapesError, match='left alone'): write_shapes(tmp_path/name, train=1, val=1)
    (tmp_path/'empty').mkdir()
    assert write_shapes(tmp_path/'empty', train=1, val=1).is_dir()
