"Large annotation files: opened through an index, they are the same data set with the same findings."
import json, os
from dataclasses import replace
import numpy as np, pytest
from PIL import Image
from ssd_nb.config import SSDConfig
from ssd_nb.data import index
from ssd_nb.data.column_records import object_counts
from ssd_nb.data.columns import ColumnNotes
from ssd_nb.data.coco import read_coco
from ssd_nb.data.dataset import read_split
from ssd_nb.data.findings import Findings
from ssd_nb.data.loader import Plan

W, H = 80, 60

@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch, tmp_path):
    monkeypatch.setattr(index, 'LEAST', 0)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))

def made(seed: int, faults: float = .1) -> dict:
    "A truth with gaps in its ids and, with that probability, a fault of each kind in each object."
    rng, objects = np.random.default_rng(seed), []
    images = [dict(id=3*i + 1, file_name=f'{i}.png', height=H, width=W) for i in range(12)]
    def chance(): return rng.random() < faults
    for number in range(1, 40):
        w, h = rng.uniform(2, 30, 2).tolist()
        a = dict(id=number, image_id=int(rng.integers(0, 10))*3 + 1, category_id=int(rng.integers(1, 4)), iscrowd=0,
                 bbox=[*(rng.random(2)*(W - w, H - h)).tolist(), w, h], area=w*h, segmentation=[[1, 2.5, 3e1]*4])
        if chance(): a['iscrowd'] = 1
        if chance(): a['difficult'] = 1
        if chance(): a['bbox'] = [W - 5, 1, 20, 9]
        if chance(): a['bbox'] = [3, 1, 0, 9]
        if chance(): a['image_id'] = 2
        if chance(): a['category_id'] = 9
        if chance(): a['id'] = 7
        if chance(): del a['area']
        objects.append(a)
    categories = [dict(id=i, name=f'class {i}', supercategory='thing') for i in range(1, 4)]
    return dict(info=dict(note='"segmentation": [1]'), images=images, annotations=objects, categories=categories)

def write(root, truth: dict) -> SSDConfig:
    "A data set on disk."
    (root/'train').mkdir(parents=True, exist_ok=True)
    (root/'annotations').mkdir(exist_ok=True)
    for im in truth['images']: Image.new('RGB', (W, H)).save(root/'train'/im['file_name'])
    (root/'annotations'/'instances_train.json').write_text(json.dumps(truth))
    return SSDConfig(coco_root=str(root), class_num=4, train_split='train', val_split='train', batch_size=2)

def same(a, b) -> None:
    "Two data sets are equal."
    assert a.findings == b.findings
    assert (a.classes, a.category_ids, a.names, a.folder) == (b.classes, b.category_ids, b.names, b.folder)
    assert a.ground_truth == b.ground_truth
    for r, s in zip(a.records, b.records, strict=True):
        assert (r.image, r.image_id, r.height, r.width, r.source) == (s.image, s.image_id, s.height, s.width, s.source)
        for part in ('boxes', 'labels', 'crowd', 'difficult'):
            x, y = getattr(r, part), getattr(s, part)
            assert x.dtype == y.dtype and np.array_equal(x, y)

def both_ways(cfg: SSDConfig, monkeypatch, **how) -> tuple:
    "Through the index, and the ordinary way."
    fast = read_split(cfg, **how)
    with monkeypatch.context() as m:
        m.setattr(index, 'LEAST', 1 << 40)
        return fast, read_split(cfg, **how)

CASES = [dict(), dict(protocol='reference'), dict(on_bad_data='skip'), dict(on_bad_data='clip'),
         dict(classes=('class 3', 'class 1'), class_num=3), dict(background='drop')]

@pytest.mark.parametrize('case', CASES, ids=str)
@pytest.mark.parametrize('seed', range(4))
def test_the_same_data_set(tmp_path, monkeypatch, case, seed):
    truth = made(seed, .1 if seed else 0.)
    cfg = replace(write(tmp_path, truth), **case)
    assert isinstance(read_coco(cfg, True, Findings()), ColumnNotes)
    for _ in range(2): # as it is made, and as it is found
        for training in (True, False):
            fast, ordinary = both_ways(cfg, monkeypatch, training=training)
            same(fast, ordinary)
            for x, y in zip(object_counts(fast.records, cfg), object_counts(ordinary.records, cfg)):
                assert np.array_equal(x, y)
    if len(ordinary.records) > 4:
        fast, ordinary = both_ways(cfg, monkeypatch, training=True)
        assert [b.tolist() for b in Plan(fast, cfg, True).batches(3)] == \
               [b.tolist() for b in Plan(ordinary, cfg, True).batches(3)]

def test_boxes_with_x_and_y_exchanged(tmp_path, monkeypatch):
    truth = made(0, 0.)
    for a in truth['annotations'][:8]: a['bbox'] = [5, 65, 20, 10]
    cfg = write(tmp_path, dict(truth, annotations=truth['annotations'][:8]))
    fast, ordinary = both_ways(cfg, monkeypatch, training=True)
    same(fast, ordinary)
    assert 'swapped axes' in [f.kind for f in fast.findings]

def test_images_that_change(tmp_path, monkeypatch):
    cfg = write(tmp_path, made(0, 0.))
    place = tmp_path/'annotations'/'.instances_train.sound'
    read_split(cfg, training=True)
    assert place.exists()
    Image.new('RGB', (W, H + 1)).save(tmp_path/'train'/'3.png')
    fast, ordinary = both_ways(cfg, monkeypatch, training=True)
    same(fast, ordinary)
    assert [f.kind for f in fast.findings if f.severity == 'error'] == ['wrong size']
    (tmp_path/'train'/'3.png').unlink()
    same(*both_ways(cfg, monkeypatch, training=True))
    Image.new('RGB', (W, H)).save(tmp_path/'train'/'3.png')
    same(*both_ways(cfg, monkeypatch, training=True))

def test_annotations_that_change(tmp_path, monkeypatch):
    cfg, path = write(tmp_path, made(0, 0.)), tmp_path/'annotations'/'instances_train.json'
    read_split(cfg, training=True)
    text = path.read_text()
    path.write_text(text.replace('class 2', 'class 7')) # of the same size
    assert read_split(cfg, training=True).classes[1] == 'class 7'
    (path.parent/'.instances_train.index').write_bytes(b'what is this?')
    assert read_split(cfg, training=True).classes[1] == 'class 7'

@pytest.mark.parametrize('spoil', [
    lambda t: t['annotations'][3].update(bbox='broken'), lambda t: t['annotations'][3].update(image_id='four'),
    lambda t: t['images'][2].pop('file_name'), lambda t: t['categories'].append(7), lambda t: t['images'].append(7),
    lambda t: t['annotations'][3].update(area='large'), lambda t: t['annotations'][3].update(iscrowd='perhaps')])
def test_odd_entries_take_the_ordinary_way(tmp_path, monkeypatch, spoil):
    truth = made(0, 0.)
    images = list(truth['images'])
    spoil(truth)
    cfg = write(tmp_path, dict(truth, images=images if 7 in truth['images'] else [dict(im, file_name=f'{i}.png')
                                                                               for i, im in enumerate(images)]))
    (tmp_path/'annotations'/'instances_train.json').write_text(json.dumps(truth))
    assert not isinstance(read_coco(cfg, True, Findings()), ColumnNotes)
    same(*both_ways(cfg, monkeypatch, training=True))

@pytest.mark.skipif(os.geteuid() == 0, reason='root writes everywhere')
def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    cfg = write(tmp_path/'data', made(0, 0.))
    (tmp_path/'data'/'annotations').chmod(0o555)
    same(*both_ways(cfg, monkeypatch, training=True))
    assert sorted(p.suffix for p in (tmp_path/'cache'/'ssd_nb').iterdir()) == ['.index', '.sound']

def test_nowhere_to_write(tmp_path, monkeypatch, capsys):
    def refuse(*_): raise OSError('read-only')
    monkeypatch.setattr(index, 'write_arrays', refuse)
    cfg = write(tmp_path, made(0, 0.))
    for _ in range(2): same(*both_ways(cfg, monkeypatch, training=True))
    said = capsys.readouterr().err
    assert said.count('index: cannot be written') == 1 and said.count('sound: cannot be written') <= 1
