"Readers and doctor: 65 kinds of bad input, the three formats against each other, any bytes as input."
import json, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from ssd_nb.data import doctor
from ssd_nb.data.loader import Loader
from ssd_nb.config import SSDConfig
from ssd_nb.errors import ConfigError
from ssd_nb.data.doctor import main
from ssd_nb.data.entries import stable_id, stable_ids
from ssd_nb.data.dataset import open_dataset
from ssd_nb.data.findings import Findings
from ssd_nb.data.txt import parse_row
from ssd_nb.data.voc import parse_voc
from ssd_nb.errors import DataError
from ssd_nb.images import image_bytes

W, H = 80, 60
NAMES = ('cat', 'dog')
OBJECTS = {'a.jpg': [(10, 10, 50, 40, 1), (30, 20, 79, 59, 2)], 'b c.jpg': [(5, 5, 25, 30, 2)]} # x1, y1, x2, y2, class

def draw(path: Path, size=(W, H), **kwargs) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path, **kwargs)

def coco_truth(objects=OBJECTS) -> dict:
    images = [dict(id=i, file_name=name, width=W, height=H) for i, name in enumerate(objects, 1)]
    boxes = [(im['id'], box) for im in images for box in objects[im['file_name']]]
    return dict(images=images, categories=[dict(id=c, name=n) for c, n in enumerate(NAMES, 1)],
                annotations=[dict(id=k, image_id=i, category_id=c, bbox=[x1, y1, x2 - x1, y2 - y1])
                             for k, (i, (x1, y1, x2, y2, c)) in enumerate(boxes, 1)])

def voc_xml(objects, size=(W, H)) -> str:
    def one(x1, y1, x2, y2, c):
        corners = f'<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>'
        return f'<object><name>{NAMES[c-1]}</name><bndbox>{corners}</bndbox></object>'
    sides = f'<size><width>{size[0]}</width><height>{size[1]}</height></size>'
    return f'<annotation>{sides}{"".join(one(*o) for o in objects)}</annotation>'

def txt_rows(objects=OBJECTS) -> str:
    return ''.join(f'{name} {" ".join(",".join(map(str, b)) for b in boxes)}\n' for name, boxes in objects.items())

@pytest.fixture
def coco(tmp_path):
    for name in OBJECTS: draw(tmp_path/'train'/name)
    (tmp_path/'annotations').mkdir()
    (tmp_path/'annotations'/'instances_train.json').write_text(json.dumps(coco_truth()))
    return SSDConfig(class_num=3, coco_root=tmp_path, train_split='train', val_split='train')

@pytest.fixture
def voc(tmp_path):
    for name, objects in OBJECTS.items():
        draw(tmp_path/'JPEGImages'/name)
        path = (tmp_path/'Annotations'/name).with_suffix('.xml')
        path.parent.mkdir(exist_ok=True)
        path.write_text(voc_xml(objects))
    (tmp_path/'ImageSets'/'Main').mkdir(parents=True)
    for split in ('trainval', 'test'): (tmp_path/'ImageSets'/'Main'/f'{split}.txt').write_text('a\nb c\n')
    return SSDConfig(class_num=3, dataset='voc', voc_root=tmp_path)

@pytest.fixture
def txt(tmp_path):
    for name in OBJECTS: draw(tmp_path/name)
    (tmp_path/'train.txt').write_text(txt_rows())
    return SSDConfig(class_num=3, dataset='txt', anno_path=tmp_path/'train.txt', val_anno_path=tmp_path/'train.txt')

# what is done to a good data set, then words of the message: the place, the fault, the remedy
def truth(change):
    def spoil(cfg):
        path = Path(cfg.coco_root)/'annotations'/'instances_train.json'
        t = json.loads(path.read_text())
        change(t)
        path.write_text(json.dumps(t))
    return spoil

def first(kind, **values): return truth(lambda t: t[kind][0].update(values))
def coco_file(data): return lambda cfg: (Path(cfg.coco_root)/'annotations'/'instances_train.json').write_bytes(data)

def break_sizeless(cfg):
    truth(lambda t: t['images'][0].pop('width'))(cfg)
    (Path(cfg.coco_root)/'train'/'a.jpg').write_bytes(b'no picture')

BAD_COCO = {
    'no root': (lambda c: replace(c, coco_root='/nowhere'), '/nowhere', 'no such folder', '--coco_root'),
    'no drawn scenes': (lambda c: replace(c, dataset='shapes', coco_root='/nowhere'),
        '/nowhere', 'no such folder', 'ssd_nb.learning.shapes'),
    'no split': (lambda c: replace(c, train_split='trian'), 'instances_trian.json', 'cannot be read', 'split'),
    'not JSON': (coco_file(b'{"images": [}'), 'instances_train.json', 'not JSON', 'line 1 column'),
    'cut off': (coco_file(b'{"images": [{"id": 1'), 'instances_train.json', 'not JSON', 'again'),
    'not UTF-8': (coco_file(b'{"images": "\xff\xfe"}'), 'instances_train.json', 'not JSON', 'again'),
    'captions': (coco_file(b'{"images": [], "annotations": []}'),
        'instances_train.json', "no list 'categories'", 'instances_*.json'),
    'a list': (coco_file(b'[1, 2]'), 'instances_train.json', "no list 'images'", 'instances_*.json'),
    'category without name': (truth(lambda t: t['categories'].append(dict(id=3))),
        'category 3', 'incomplete entry', 'an id and a name'),
    'category twice': (truth(lambda t: t['categories'].append(dict(id=3, name='cat'))),
        'instances_train.json', 'occurs twice', 'rename'),
    'category id twice': (truth(lambda t: t['categories'].append(dict(id=1, name='cow'))),
        'instances_train.json', 'occurs twice', 'rename'),
    'class count': (lambda c: replace(c, class_num=81),
        'instances_train.json', '2 classes (cat, dog)', '--class_num 3'),
    'class subset': (lambda c: replace(c, class_num=2, classes=('dgo',)),
        'instances_train.json', "no class 'dgo'", 'did you mean dog'),
    'image without name': (truth(lambda t: t['images'][0].pop('file_name')),
        'image 1', 'incomplete entry', 'id and a file_name'),
    'image is a number': (truth(lambda t: t['images'].append(3)),
        'image number 2', 'incomplete entry', 'id and a file_name'),
    'missing image': (first('images', file_name='z.jpg'), 'image 1', 'missing image', 'z.jpg'),
    'image twice': (truth(lambda t: t['images'].append(dict(t['images'][0], id=9))),
        'image 9', 'duplicate image', 'keep one'),
    'image id twice': (truth(lambda t: t['images'][1].update(id=1)), 'image 1', 'duplicate id', 'of its own'),
    'annotation id twice': (truth(lambda t: t['annotations'][1].update(id=1)),
        'annotation 1', 'duplicate id', 'of its own'),
    'unknown image': (first('annotations', image_id=77), 'annotation 1', 'unknown image', '77'),
    'unknown category': (first('annotations', category_id=5), 'annotation 1', 'unknown class', 'id 5'),
    'category is a list': (first('annotations', category_id=[1]), 'annotation 1', 'incomplete entry', 'category_id'),
    'no box': (truth(lambda t: t['annotations'][0].pop('bbox')), 'annotation 1', 'incomplete entry', 'four numbers'),
    'three numbers': (first('annotations', bbox=[1, 2, 3]), 'annotation 1', 'incomplete entry', 'four numbers'),
    'words': (first('annotations', bbox=['one', '2', '3', '4']), 'annotation 1', 'incomplete entry', 'four numbers'),
    'enormous': (first('annotations', bbox=[0, 0, 10**400, 5]), 'annotation 1', 'incomplete entry', 'four numbers'),
    'NaN': (first('annotations', bbox=[1, float('nan'), 3, 4]), 'annotation 1', 'not a number', 'in pixels'),
    'infinite': (first('annotations', bbox=[1, 1, float('inf'), 4]), 'annotation 1', 'not a number', 'in pixels'),
    'no width': (first('annotations', bbox=[10, 10, 0, 5]), 'annotation 1', 'no area', 'class cat, x 10 to 10'),
    'negative height': (first('annotations', bbox=[10, 10, 5, -5]), 'annotation 1', 'no area', 'y 10 to 5'),
    'outside': (first('annotations', bbox=[50, 10, 50, 5]), 'annotation 1', 'outside', '--on_bad_data clip'),
    'corners instead of sizes': (first('annotations', bbox=[10, 10, 75, 55]),
        'annotation 1', 'outside', 'belongs to this image'),
    'sizeless broken image': (break_sizeless,

                              'image 1', 'unreadable image', 'replace the file'),
    'nothing left': (truth(lambda t: t.update(annotations=[])), 'coco', 'no image is left to learn from', 'check')}

def xml(change):
    def spoil(cfg):
        path = Path(cfg.voc_root)/'Annotations'/'a.xml'
        path.write_text(change(path.read_text()))
    return spoil
BAD_VOC = {
    'no root given': (lambda c: replace(c, voc_root=''), 'voc_root', 'no such folder', '--voc_root'),
    'no layout': (lambda c: replace(c, voc_root=Path(c.voc_root)/'JPEGImages'),
        'JPEGImages', 'neither ImageSets/ nor train/', 'three layouts'),
    'no pictures': (lambda c: replace(c, voc_root=Path(c.voc_root)/'Annotations'),
        'Annotations', 'no picture of their names', 'put the pictures beside them'),
    'no list': (lambda c: replace(c, train_split='trian'), 'trian.txt', 'no such list', 'there is test, trainval'),
    'no XML': (lambda c: (Path(c.voc_root)/'Annotations'/'a.xml').unlink(),
        'a.xml', 'missing annotation', 'off the list'),
    'cut off XML': (xml(lambda s: s[:99]), 'a.xml', 'not XML', 'line 1, column'),
    'other XML': (xml(lambda s: '<html></html>'), 'a.xml', 'begins with <annotation>', '<html>'),
    'no XML image': (lambda c: (Path(c.voc_root)/'JPEGImages'/'a.jpg').unlink(),
        'a.xml', 'missing image', 'put the image there'),
    'object without name': (xml(lambda s: s.replace('<name>cat</name>', '', 1)),
        'a.xml: object 1', 'incomplete entry', 'needs a name'),
    'object without corner': (xml(lambda s: s.replace('<xmin>10</xmin>', '', 1)),
        'a.xml: object 1', 'incomplete entry', 'xmin'),
    'corner in words': (xml(lambda s: s.replace('<xmin>30<', '<xmin>thirty<')),
        'a.xml: object 2', 'not a number', "'thirty'"),
    'difficult': (xml(lambda s: s.replace('<name>cat', '<difficult>very</difficult><name>cat')),
        'a.xml: object 1', 'incomplete entry', "'very'"),
    'no area': (xml(lambda s: s.replace('<xmax>50<', '<xmax>10<')), 'a.xml: object 1', 'no area', 'take it out'),
    'swapped corners': (xml(lambda s: s.replace('<ymax>40<', '<ymax>4<')), 'a.xml: object 1', 'no area', 'y 10 to 4'),
    'misspelt class': (lambda c: replace(c, classes=('catt', 'dog')), 'catt', 'no class', 'did you mean cat'),
    'class count': (lambda c: replace(c, class_num=21), '2 classes (cat, dog)', 'class_num is 21', '--class_num 3')}

def row(text): return lambda c: Path(c.anno_path).write_text('b c.jpg 5,5,25,30,2\n' + text + '\n') and None
BAD_TXT = {
    'no list given': (lambda c: replace(c, anno_path=''), 'TXT', 'needs', '--anno_path'),
    'no list': (lambda c: replace(c, anno_path='/nowhere.txt'), '/nowhere.txt', 'no such file', '--anno_path'),
    'not UTF-8': (lambda c: Path(c.anno_path).write_bytes(b'a.jpg\n\xff.jpg\n') and None,
        'train.txt: line 2', 'not UTF-8', 'save'),
    'missing image': (row('z.jpg 1,1,20,20,1'), 'train.txt: line 2', 'missing image', 'z.jpg'),
    'comment': (row('# my pictures'), 'train.txt: line 2', 'missing image', '# my pictures'),
    'no path': (row('1,1,20,20,1'), 'train.txt: line 2', 'incomplete entry', 'file_name'),
    'four numbers': (row('a.jpg 1,1,20,20'), 'train.txt: line 2', 'malformed box', "'1,1,20,20'"),
    'a word': (row('a.jpg 1,1,20,20,cat 1,1,20,20,1'), 'train.txt: line 2', 'malformed box', "'1,1,20,20,cat'"),
    'class 0': (row('a.jpg 1,1,20,20,0'), 'train.txt: line 2: box 1', 'unknown class', 'count from 1'),
    'class too large': (row('a.jpg 1,1,20,20,1 1,1,20,20,4'),
        'train.txt: line 2: box 2', 'unknown class', '--class_num 5'),
    'class not whole': (row('a.jpg 1,1,20,20,1.5'),
        'train.txt: line 2: box 1', 'unknown class', 'whole numbers from 1 to 2'),
    'NaN': (row('a.jpg nan,1,20,20,1'), 'train.txt: line 2: box 1', 'not a number', 'in pixels'),
    'no area': (row('a.jpg 20,1,20,20,1'), 'train.txt: line 2: box 1', 'no area', 'x 20 to 20'),
    'outside': (row('a.jpg 20,1,200,20,1'), 'train.txt: line 2: box 1', 'outside', 'clip'),
    'twice': (row('b c.jpg 5,5,25,30,1'), 'train.txt: line 2', 'duplicate image', 'keep one'),
    'no image file': (lambda c: (Path(c.anno_path).parent/'a.jpg').write_bytes(b'') and None,
        'train.txt: line 1', 'unreadable image', 'replace the file')}

def check_refused(cfg, fault):
    change, *words = fault
    changed = change(cfg)
    cfg = changed if isinstance(changed, SSDConfig) else cfg
    coco_root = cfg.coco_root if cfg.dataset == 'coco' else ''
    root = Path(coco_root or cfg.voc_root or Path(cfg.anno_path).parent)
    before = sorted(p for p in root.rglob('*')) if root.is_dir() and root != Path('.') and root != Path('/') else []
    with pytest.raises((DataError, ConfigError)) as e: open_dataset(cfg, training=True)
    for word in words: assert word in str(e.value), str(e.value)
    if before: assert sorted(p for p in root.rglob('*')) == before # nothing is written
    return cfg

@pytest.mark.parametrize('fault', BAD_COCO.values(), ids=BAD_COCO)
def test_bad_coco(coco, fault): check_refused(coco, fault)

@pytest.mark.parametrize('fault', BAD_VOC.values(), ids=BAD_VOC)
def test_bad_voc(voc, fault): check_refused(voc, fault)

@pytest.mark.parametrize('fault', BAD_TXT.values(), ids=BAD_TXT)
def test_bad_txt(txt, fault): check_refused(txt, fault)

def test_skip_and_clip(coco):
    def spoil(lists):
        lists['annotations'][0]['bbox'] = [50, 10, 50, 5]
        lists['annotations'][1]['bbox'] = [100, 10, 5, 5]
        del lists['annotations'][2]['bbox']
    truth(spoil)(coco)
    with pytest.raises(DataError, match='3 errors'): open_dataset(coco, training=True)
    with pytest.raises(DataError, match='no image is left'):
        open_dataset(replace(coco, on_bad_data='skip'), training=True)
    data = open_dataset(replace(coco, on_bad_data='clip'), training=True)
    assert [r.boxes.tolist() for r in data.records] == [[np.float32([10/60, 50/80, 15/60, 1]).tolist()]]
    # nothing was left of the second
    assert [f.kind for f in data.findings if f.severity == 'error'] == ['no area', 'incomplete entry']

def test_the_first_ten_and_the_count(coco):
    def spoil(lists):
        lists['annotations'] = [dict(lists['annotations'][0], id=i, bbox=[1, 1, 0, 0]) for i in range(1, 30)]
    truth(spoil)(coco)
    with pytest.raises(DataError) as e: open_dataset(coco, training=True)
    message = str(e.value)
    assert '29 errors' in message and '19 more' in message
    assert 'annotation 10:' in message and 'annotation 11:' not in message

def test_evaluation_takes_faulty_boxes_as_they_are(coco):
    first('annotations', bbox=[10, 10, 0, 5])(coco)
    data = open_dataset(coco, training=False)
    assert len(data.ground_truth['annotations']) == 3
    assert [f.severity for f in data.findings if f.kind == 'no area'] == ['warning']

@pytest.mark.parametrize('protocol, learnt', [('standard', 2), ('reference', 3)])
def test_crowds(coco, protocol, learnt):
    first('annotations', iscrowd=1)(coco)
    cfg = replace(coco, protocol=protocol)
    assert sum(len(r.labels) for r in open_dataset(cfg, training=True).records) == learnt
    assert [r.crowd.tolist() for r in open_dataset(cfg, training=False).records] == [[True, False], [False]]

def test_difficult_objects(voc):
    xml(lambda s: s.replace('<name>cat', '<difficult>1</difficult><name>cat'))(voc)
    assert sum(len(r.labels) for r in open_dataset(voc, training=True).records) == 2
    objects = open_dataset(voc, training=False).ground_truth['annotations']
    assert [(a['iscrowd'], a['difficult']) for a in objects] == [(0, 1), (0, 0), (0, 0)]
    assert [r.difficult.tolist() for r in open_dataset(voc, training=False).records] == [[True, False], [False]]
    reference = replace(voc, protocol='reference')
    assert sum(len(r.labels) for r in open_dataset(reference, training=True).records) == 3
    assert sum(a['difficult'] for a in open_dataset(reference, training=False).ground_truth['annotations']) == 0

def test_images_without_objects(txt):
    Path(txt.anno_path).write_text('b c.jpg 5,5,25,30,2\na.jpg\n')
    def learnt(**values): return [len(r.labels) for r in open_dataset(replace(txt, **values), training=True).records]
    assert learnt() == [1, 0] and learnt(background='drop') == [1]
    data = open_dataset(txt, training=False)
    assert [len(r.labels) for r in data.records] == [1, 0] and len(data.ground_truth['images']) == 2
    Path(txt.anno_path).write_text('b c.jpg\na.jpg\n')
    with pytest.raises(DataError, match='no image is left to learn from'): open_dataset(txt, training=True)

def test_an_image_whose_objects_are_faulty_is_no_background(coco):
    truth(lambda t: t['annotations'][2].update(bbox=[10, 10, 0, 5]))(coco) # the only object of the second image
    data = open_dataset(replace(coco, on_bad_data='skip'), training=True)
    assert [len(r.labels) for r in data.records] == [2]

@pytest.mark.parametrize('format', ['txt', 'voc'])
def test_what_a_reader_leaves_out_is_no_background(format, request):
    cfg = request.getfixturevalue(format)
    if format == 'txt': Path(cfg.anno_path).write_text('b c.jpg 5,5,25,30,9\na.jpg 10,10,50,40,1\n') # no class 9
    else:
        path = next(Path(cfg.voc_root).rglob('b c.xml'))
        path.write_text(path.read_text().replace('<xmin>5<', '<xmin>five<'))
    records = open_dataset(replace(cfg, on_bad_data='skip'), training=True).records
    assert len(records) == 1 and len(records[0].labels)

def test_axes_of_txt_rows(txt):
    box = open_dataset(txt, training=True).records[1].boxes[0]
    swapped = open_dataset(replace(txt, protocol='reference'), training=True).records[1].boxes[0] # 5,5,25,30
    assert np.allclose(box, [5/60, 5/80, 30/60, 25/80]) and np.allclose(swapped, [5/60, 5/80, 25/60, 30/80])
    with pytest.raises(DataError, match='--protocol standard'):
        open_dataset(replace(txt, protocol='reference'), training=False)

def test_whole_pixels(coco):
    first('annotations', bbox=[10.4, 10.6, 20.2, 20.3])(coco)
    box = open_dataset(replace(coco, protocol='reference'), training=True).records[0].boxes[0]
    assert np.allclose(box*[60, 80, 60, 80], [11, 10, 31, 31], atol=1e-4)

@pytest.mark.parametrize('ids', [(0, 7), ('kitten', 'puppy'), (1.0, 2.0), (-3, 10**12)])
def test_ids_of_any_kind(coco, ids):
    def renumber(t):
        for c in t['categories']: c['id'] = ids[c['id'] - 1]
        for a in t['annotations']: a.update(category_id=ids[a['category_id'] - 1], id=a['id'] - 1)
        for x in t['images']: x['id'] = f'image/{x["id"]}'
        for a in t['annotations']: a['image_id'] = f'image/{a["image_id"]}'
    expected = open_dataset(coco, training=True)
    truth(renumber)(coco)
    data = open_dataset(coco, training=True)
    assert data.classes == NAMES
    assert [r.labels.tolist() for r in data.records] == [r.labels.tolist() for r in expected.records]
    gt = data.ground_truth
    assert all(type(entry['id']) is int and entry['id'] > 0 for entry in gt['annotations'] + gt['images'])
    assert all(type(c['id']) is int for c in gt['categories'])
    assert [c['id'] for c in gt['categories']] == list(data.category_ids)

def test_class_subset(coco):
    dogs = replace(coco, classes=('dog',), class_num=2)
    data = open_dataset(dogs, training=False)
    assert data.classes == ('dog',) and data.category_ids == (2,)
    assert [r.labels.tolist() for r in data.records] == [[1], [1]]
    assert len(data.ground_truth['annotations']) == 2 and len(data.ground_truth['categories']) == 1
    whole = open_dataset(replace(dogs, protocol='reference'), training=False)
    assert len(whole.ground_truth['annotations']) == 3 and len(whole.ground_truth['categories']) == 2
    assert whole.category_ids == (2,)
    assert open_dataset(replace(coco, classes=('dog', 'cat')), training=True).records[0].labels.tolist() == [2, 1]

def test_reference_layouts_of_voc(tmp_path):
    for folders in (('.', '.'), ('Images', 'Annotations')):
        root = tmp_path/folders[0].strip('.')/'voc'
        for split in ('train', 'eval'):
            for name, objects in OBJECTS.items():
                draw(root/split/folders[0]/name)
                (root/split/folders[1]).mkdir(exist_ok=True)
                (root/split/folders[1]/name).with_suffix('.xml').write_text(voc_xml(objects))
        draw(root/'eval'/folders[0]/'unannotated.jpg')
        cfg = SSDConfig(class_num=3, dataset='voc', voc_root=root)
        assert [len(r.labels) for r in open_dataset(cfg, training=True).records] == [2, 1]
        assert [f.kind for f in open_dataset(cfg, training=False).findings] == ['no annotation file']

def test_sizes_from_headers_and_exif(txt):
    turned = Image.Exif()
    turned[0x0112] = 6
    draw(Path(txt.anno_path).parent/'a.jpg', size=(H, W), exif=turned) # shown 80 wide and 60 high
    r = open_dataset(txt, training=True).records[0]
    assert (r.height, r.width) == (H, W)

def test_ground_truth_suits_pycocotools(voc, txt):
    pytest.importorskip('pycocotools')
    import contextlib, io
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    for cfg in (voc, txt):
        truth = open_dataset(cfg, training=False).ground_truth
        with contextlib.redirect_stdout(io.StringIO()):
            api = COCO()
            api.dataset = truth
            api.createIndex()
            keys = ('image_id', 'category_id', 'bbox')
            found = api.loadRes([{key: a[key] for key in keys} | dict(score=.9) for a in truth['annotations']])
            e = COCOeval(api, found, 'bbox')
            for step in (e.evaluate, e.accumulate, e.summarize): step()
        assert e.stats[0] == pytest.approx(1)

# ---------------------------------------------------------------- properties

@settings(deadline=None, max_examples=300)
@given(st.text(max_size=80))
def test_any_row(row):
    path, boxes = parse_row(row)
    assert path == path.strip() and all(len(b) == 5 for b in boxes) and path in row

NUMBERS = st.integers(-999, 9999)
@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=('Z', 'C')), min_size=1, max_size=12).filter(lambda s: ',' not in s),
       st.lists(st.tuples(*[NUMBERS]*5), max_size=4))
def test_rows_survive(path, boxes):
    path = f'{path} with spaces.jpg'
    row = ' '.join([path, *(','.join(map(str, b)) for b in boxes)])
    assert parse_row(row) == (path, [list(map(float, b)) for b in boxes])

@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b'a.jpg ' + b + b'\nb c.jpg 5,5,25,30,2\n'))
def test_any_bytes_as_txt(tmp_path_factory, data):
    root = tmp_path_factory.getbasetemp()/'any_txt'
    if not root.exists():
        for name in OBJECTS: draw(root/name)
    (root/'list.txt').write_bytes(data)
    cfg = SSDConfig(class_num=3, dataset='txt', anno_path=root/'list.txt')
    try: records = open_dataset(cfg, training=True).records
    except DataError as e: assert 'list.txt' in str(e) or 'no image is left' in str(e)
    else: assert all(((0 <= r.boxes) & (r.boxes <= 1)).all() and set(r.labels) <= {1, 2} for r in records)

PIECES = st.sampled_from([
    '<annotation>', '</annotation>', '<object>', '</object>', '<name>cat</name>', '<bndbox>', '</bndbox>',
    '<xmin>1</xmin>', '<ymin>-5</ymin>', '<xmax>nan</xmax>', '<ymax>1e999</ymax>', '<size>', '</size>',
    '<width>x</width>',
    '<height>-3</height>', '<difficult>1</difficult>', 'ä', '&x;', '\0', '<!--'])
def in_an_object(pieces): return f'<annotation><object>{"".join(pieces)}</object></annotation>'.encode()

@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=120) | st.lists(PIECES, max_size=14).map(lambda p: ''.join(p).encode())
       | st.lists(PIECES, max_size=10).map(in_an_object))
def test_any_bytes_as_xml(data):
    findings = Findings()
    content = parse_voc(data, 'x.xml', findings)
    assert (content is None) == any(f.kind == 'unreadable annotation' for f in findings)
    if content: assert all(len(a['bbox']) == 4 and name for name, a in content[1])

KEYS = st.sampled_from(
    ['id', 'image_id', 'category_id', 'bbox', 'file_name', 'height', 'width', 'iscrowd', 'area', 'name'])
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda x: st.lists(x, max_size=4) | st.dictionaries(KEYS, x, max_size=6), max_leaves=12)
@settings(deadline=None, max_examples=200)
@given(JSON, st.sampled_from(['images', 'annotations', 'categories']))
def test_any_json_in_coco(tmp_path_factory, thing, where):
    root = tmp_path_factory.getbasetemp()/'any_json'
    if not root.exists():
        for name in OBJECTS: draw(root/'train'/name)
        (root/'annotations').mkdir()
    t = coco_truth()
    t[where].append(thing)
    (root/'annotations'/'instances_train.json').write_text(json.dumps(t))
    try: data = open_dataset(SSDConfig(class_num=3, coco_root=root, train_split='train'), training=True)
    except DataError as e: assert 'instances_train.json' in str(e)
    else: assert len(data.records) == 2

@settings(deadline=None)
@given(st.lists(st.text(max_size=10), max_size=20))
def test_stable_ids(names):
    ids = stable_ids(names)
    assert len(set(ids.values())) == len(set(names)) and all(0 < i < 2**31 for i in ids.values())
    assert stable_ids(names[::-1]) == ids and all(stable_ids([n])[n] == stable_id(n) for n in names)

# ---------------------------------------------------------------- doctor

def test_doctor(coco, capsys, tmp_path):
    root = Path(coco.coco_root)
    args = ['check', '--coco_root', str(root), '--class_num', '3', '--batch_size', '2',
            '--train_split', 'train', '--val_split', 'train',
            '--picture', str(tmp_path/'p.png')]
    assert main(args) == 0 and (tmp_path/'p.png').exists()
    assert 'clean' in capsys.readouterr().out
    path = root/'train'/'a.jpg'
    path.write_bytes(path.read_bytes()[:-200])
    assert main(args) == 1
    out = capsys.readouterr().out
    assert 'unreadable image' in out and 'image 1' in out and 'a.jpg' in out
    draw(path, size=(W, H + 1))
    assert main(args) == 1 and '80 wide and 61 high' in capsys.readouterr().out

def test_doctor_reads_on_with_a_wrong_class_count(coco, capsys):
    cfg = replace(coco, class_num=81)
    assert doctor.check(cfg, ('train',)) == 1
    assert '--class_num 3' in (out := capsys.readouterr().out) and '3 objects' in out

def test_doctor_reads_the_same_rows_once(txt, capsys, monkeypatch):
    Path(txt.anno_path).write_text(txt_rows() + 'b c.jpg 5,5,5,30,1\n')
    seen, look = [], doctor.damage
    def watched(path):
        seen.append(path.name)
        return look(path)
    monkeypatch.setattr(doctor, 'damage', watched)
    def report(cfg, splits=('train', 'val')):
        seen.clear()
        return doctor.check(cfg, splits), capsys.readouterr().out, sorted(seen)
    once, twice = report(replace(txt, val_anno_path='')), report(txt)
    assert once[2] == ['a.jpg', 'b c.jpg'] and twice[2] == sorted(once[2]*2)
    assert once[0] == twice[0] == 1 and once[1].count('duplicate image') == 1 and twice[1].count('duplicate image') == 2
    assert 'training and evaluation split' in once[1]
    assert 'give --val_anno_path' in once[1] and 'give --val_anno_path' not in twice[1]
    assert 'give --val_anno_path' in report(replace(txt, val_anno_path=''), ('val',))[1]
    other = report(replace(txt, val_anno_path='', val_image_dir=Path(txt.anno_path).parent/'elsewhere'))
    assert 'evaluation split of txt:\n' in other[1] and 'elsewhere' in other[1]
    assert 'does not evaluate TXT' in report(replace(txt, val_anno_path='', protocol='reference'))[1]

def test_doctor_as_a_command(tmp_path):
    def call(*args):
        command = [sys.executable, '-m', 'ssd_nb.data', *args]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert call().returncode == 2 and call('check', '--datset', 'coco').returncode == 2
    absent = call('check', '--coco_root', '/nowhere')
    assert absent.returncode == 1 and '/nowhere: no such folder' in absent.stdout and not list(tmp_path.iterdir())

# ---------------------------------------------------------------- sample data

def same_records(a, b):
    for r, s in zip(a.records, b.records, strict=True):
        assert image_bytes(r.image) == image_bytes(s.image) and (r.height, r.width) == (s.height, s.width)
        for name in ('boxes', 'labels', 'crowd', 'difficult'): assert np.array_equal(getattr(r, name), getattr(s, name))

def test_bccd_in_three_formats(sample_data, tmp_path):
    root = sample_data('bccd')
    cfg = SSDConfig(class_num=4, dataset='voc', voc_root=root, on_bad_data='skip')
    with pytest.raises(DataError) as e: open_dataset(replace(cfg, on_bad_data='error'), training=True)
    assert '2 errors' in str(e.value)
    for number in (338, 343): assert f'BloodImage_00{number}.xml: object' in str(e.value)
    voc = open_dataset(cfg, training=True)
    assert len(voc.records) == 292 and voc.classes == ('Platelets', 'RBC', 'WBC')
    rows, names = [], list(voc.classes)
    truth = dict(images=[], annotations=[], categories=[dict(id=i, name=n) for i, n in enumerate(names)])
    import xml.etree.ElementTree as ET # an independent rewriting from the XML files
    for i, stem in enumerate((root/'ImageSets'/'Main'/'trainval.txt').read_text().split()):
        tree, row = ET.parse(root/'Annotations'/f'{stem}.xml'), [f'{stem}.jpg']
        truth['images'].append(dict(id=i, file_name=f'{stem}.jpg', height=480, width=640))
        for o in tree.iter('object'):
            x1, y1, x2, y2 = (int(o.findtext(f'bndbox/{k}')) for k in ('xmin', 'ymin', 'xmax', 'ymax'))
            c = names.index(o.findtext('name'))
            bbox = [x1, y1, x2 - x1, y2 - y1]
            truth['annotations'].append(dict(id=len(truth['annotations']), image_id=i, category_id=c, bbox=bbox))
            row.append(f'{x1},{y1},{x2},{y2},{c + 1}')
        rows.append(' '.join(row))
    (tmp_path/'train.txt').write_text('\n'.join(rows))
    (tmp_path/'annotations').mkdir()
    (tmp_path/'annotations'/'instances_train.json').write_text(json.dumps(truth))
    (tmp_path/'train').symlink_to(root/'JPEGImages')
    as_txt = replace(cfg, dataset='txt', anno_path=tmp_path/'train.txt', image_dir=root/'JPEGImages')
    txt = open_dataset(as_txt, training=True)
    coco = open_dataset(replace(cfg, dataset='coco', coco_root=tmp_path, train_split='train'), training=True)
    same_records(voc, txt)
    same_records(voc, coco)
    assert [r.image_id for r in voc.records] == [r.image_id for r in txt.records]
    epochs = [Loader(d, cfg, training=True, num_workers=0).epoch(0) for d in (voc, txt, coco)]
    for batches in zip(*epochs, strict=True): # the whole first epoch, augmented
        for other in batches[1:]:
            for part in ('images', 'locs', 'labels', 'num_matched'):
                assert np.array_equal(getattr(batches[0], part), getattr(other, part))

def test_coco_tiny_passes_the_doctor(sample_data, capsys):
    assert doctor.check(SSDConfig(coco_root=sample_data('coco-tiny'))) == 0
    out = capsys.readouterr().out
    assert '112 images of 112 with 983 objects' in out and '86 images of 86 with 951 objects (12 of them crowds)' in out
