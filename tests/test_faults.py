"Data as outside users bring them: what is plain is understood, what is not is named, and nothing ends in a traceback."
import contextlib, io, json, os, random, re, shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
import numpy as np
import pytest
from conftest import NET, command, flags, perfect
from PIL import Image
from ssd_nb import train
from ssd_nb.config import SSDConfig
from ssd_nb.data import doctor, headers
from ssd_nb.data.dataset import open_dataset, training_names
from ssd_nb.data.loader import Loader
from ssd_nb.data.mindrecord import open_both
from ssd_nb.detection.coco_eval import evaluate
from ssd_nb.errors import DataError, UserError
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.networks.table import initial_state

W, H = 80, 60
NAMES = ('cat', 'dog')
OBJECTS = {'a.jpg': [(10, 10, 50, 40, 1), (30, 20, 79, 59, 2)], 'b c.jpg': [(5, 5, 25, 30, 2)]} # x1, y1, x2, y2, class
SMALL = SSDConfig.preset('tiny', **NET | dict(dataset='coco', class_num=3, batch_size=1, num_workers=0))


def draw(path: Path, size=(W, H), **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path, **options)


def coco_lists() -> dict:
    images = [dict(id=i, file_name=name, width=W, height=H) for i, name in enumerate(OBJECTS, 1)]
    boxes = [(im['id'], box) for im in images for box in OBJECTS[im['file_name']]]
    objects = []
    for k, (i, (x1, y1, x2, y2, c)) in enumerate(boxes, 1):
        w, h = x2 - x1, y2 - y1
        objects.append(dict(id=k, image_id=i, category_id=c, bbox=[x1, y1, w, h], area=w*h, iscrowd=0))
    return dict(images=images, categories=[dict(id=c, name=n) for c, n in enumerate(NAMES, 1)], annotations=objects)


def voc_xml(objects) -> str:
    rows = [f'<object><name>{NAMES[c - 1]}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>'
            f'<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>' for x1, y1, x2, y2, c in objects]
    return f'<annotation><size><width>{W}</width><height>{H}</height></size>{"".join(rows)}</annotation>'


def write_coco(root: Path) -> SSDConfig:
    (root/'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        for name in OBJECTS: draw(root/split/name)
        (root/'annotations'/f'instances_{split}.json').write_text(json.dumps(coco_lists()))
    return replace(SMALL, coco_root=root)


def write_voc(root: Path) -> SSDConfig:
    for split in ('train', 'eval'):
        for name, objects in OBJECTS.items():
            draw(root/split/name)
            (root/split/name).with_suffix('.xml').write_text(voc_xml(objects))
    return replace(SMALL, dataset='voc', voc_root=root)


def write_txt(root: Path) -> SSDConfig:
    for name in OBJECTS: draw(root/name)
    rows = [f'{name} ' + ' '.join(','.join(map(str, b)) for b in boxes) for name, boxes in OBJECTS.items()]
    for split in ('train', 'val'): (root/f'{split}.txt').write_text('\n'.join(rows) + '\n')
    return replace(SMALL, dataset='txt', anno_path=root/'train.txt', val_anno_path=root/'val.txt')


def write_yolo(root: Path) -> SSDConfig:
    for split in ('train', 'val'):
        for name, objects in OBJECTS.items():
            draw(root/'images'/split/name)
            rows = [f'{c - 1} {(x1 + x2)/2/W} {(y1 + y2)/2/H} {(x2 - x1)/W} {(y2 - y1)/H}\n'
                    for x1, y1, x2, y2, c in objects]
            path = (root/'labels'/split/name).with_suffix('.txt')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(''.join(rows))
    (root/'data.yaml').write_text('path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n')
    return replace(SMALL, dataset='yolo', data=root)


def write_csv(root: Path) -> SSDConfig:
    for name in OBJECTS: draw(root/'pictures'/name)
    for split in ('train', 'val'):
        rows = [f'{name},{W},{H},{NAMES[c - 1]},{x1},{y1},{x2},{y2}'
                for name, objects in OBJECTS.items() for x1, y1, x2, y2, c in objects]
        (root/f'{split}.csv').write_text('\n'.join(['filename,width,height,class,xmin,ymin,xmax,ymax', *rows]) + '\n')
    return replace(SMALL, dataset='csv', data=root)


def write_heap(root: Path) -> SSDConfig:
    "YOLO's files without splits: some of the pictures are kept for evaluation, whatever is damaged."
    cfg = write_yolo(root)
    for path in [*(root/'images').rglob('*.jpg'), *(root/'labels').rglob('*.txt')]:
        path.rename(path.parent.parent/f'{path.parent.name} {path.name}')
    (root/'data.yaml').write_text('names: [cat, dog]\ntrain: images\n')
    return replace(cfg, dataset='auto')


def change(cfg: SSDConfig, edit, split='train') -> None:
    "Edit the lists of a COCO split."
    path = Path(cfg.coco_root)/'annotations'/f'instances_{split}.json'
    lists = json.loads(path.read_text())
    edit(lists)
    path.write_text(json.dumps(lists))


def checked(cfg: SSDConfig, splits=('train', 'val')) -> tuple[int, str]:
    "Exit status and output of the doctor."
    with contextlib.redirect_stdout(io.StringIO()) as out: status = doctor.check(cfg, splits)
    return status, out.getvalue()


def refusal(cfg: SSDConfig) -> str:
    "Why a training does not begin; '' if it does."
    try: open_both(cfg, evaluated=True)
    except DataError as e: return str(e)
    return ''


def both_say(cfg: SSDConfig, *words: str) -> None:
    "Doctor and training name the same fault, or find none."
    status, out = checked(cfg)
    why = refusal(cfg)
    assert status == bool(words) == bool(why), out + why
    for word in words: assert word in out and word in why, out + why


# Classes are names

def test_an_evaluation_split_is_matched_by_name(tmp_path):
    cfg = write_coco(tmp_path)
    def renumber(lists):
        for c in lists['categories']: c['id'] = 3 - c['id']
        for a in lists['annotations']: a['category_id'] = 3 - a['category_id']
    expected = open_dataset(cfg, training=True)
    change(cfg, renumber, 'val')
    named, learnt, judged = open_both(cfg, evaluated=True)
    assert named.classes == learnt.classes == judged.classes == NAMES and judged.category_ids == (2, 1)
    for again in (judged, open_dataset(named, training=False)): # what eval does with a checkpoint's configuration
        assert [r.labels.tolist() for r in again.records] == [r.labels.tolist() for r in expected.records]
    both_say(cfg)


def test_an_evaluation_split_may_lack_a_class_but_not_add_one(tmp_path):
    cfg = write_coco(tmp_path)
    def lack(lists):
        lists['categories'] = [dict(id=1, name='dog')]
        lists['annotations'] = [a | dict(category_id=1) for a in lists['annotations'] if a['category_id'] == 2]
    change(cfg, lack, 'val')
    both_say(cfg)
    judged = open_both(cfg, evaluated=True)[2]
    assert judged.classes == NAMES and len(set(judged.category_ids)) == 2
    assert {int(label) for r in judged.records for label in r.labels} == {2}
    change(cfg, lambda lists: lists['categories'][0].update(name='dgo'), 'val')
    both_say(cfg, 'strange class', "'dgo'", 'did you mean dog')
    assert training_names(cfg) == NAMES and checked(cfg, ('val',))[0] == 1 # also when it is checked alone
    change(cfg, lambda lists: lists['categories'][0].update(name='cat'), 'val')
    assert checked(replace(cfg, class_num=2, classes=('dog',)))[0] == 0 # cat is left out on purpose, and known


def test_voc_splits_have_the_classes_of_the_training_split(tmp_path):
    cfg = write_voc(tmp_path)
    path = tmp_path/'eval'/'a.xml'
    path.write_text(path.read_text().replace('cat', 'dog'))
    both_say(cfg)
    assert open_dataset(cfg, training=False).classes == NAMES
    path.write_text(path.read_text().replace('dog', 'ape'))
    both_say(cfg, 'strange class', "'ape'")


def test_class_names_with_commas(tmp_path):
    cfg = write_coco(tmp_path)
    for split in ('train', 'val'): change(cfg, lambda lists: lists['categories'][0].update(name='cat, black'), split)
    both_say(cfg)
    args = ['check', '--coco_root', str(tmp_path), '--train_split', 'train', '--val_split', 'val', '--class_num', '3',
            '--picture', '', '--batch_size', '2', '--classes', "['cat, black', dog]"]
    with contextlib.redirect_stdout(io.StringIO()) as out: assert doctor.main(args) == 0
    assert 'unused class' not in out.getvalue()


# Untyped JSON

PLAIN = {
    'crowd flags in quotation marks': lambda t: [a.update(iscrowd='0') for a in t['annotations']],
    'crowd flags in words': lambda t: [a.update(iscrowd='false') for a in t['annotations']],
    'no flags': lambda t: [a.update(iscrowd=None) for a in t['annotations']],
    'area null': lambda t: [a.update(area=None) for a in t['annotations']],
    'area in quotation marks': lambda t: [a.update(area=str(a['area'])) for a in t['annotations']],
    'image ids in quotation marks': lambda t: [a.update(image_id=str(a['image_id'])) for a in t['annotations']],
    'category ids in quotation marks': lambda t: [c.update(id=str(c['id'])) for c in t['categories']],
    'ids as fractions': lambda t: [im.update(id=float(im['id'])) for im in t['images']],
    'boxes in quotation marks': lambda t: [a.update(bbox=[str(v) for v in a['bbox']]) for a in t['annotations']],
    'sizes in quotation marks': lambda t: [im.update(height=str(H), width=str(W)) for im in t['images']]}

@pytest.mark.parametrize('edit', PLAIN.values(), ids=PLAIN)
def test_what_is_plain_is_understood(tmp_path, edit):
    cfg = write_coco(tmp_path)
    expected = open_dataset(cfg, training=True)
    change(cfg, edit)
    data = open_dataset(cfg, training=True)
    assert data.ground_truth == expected.ground_truth and not [f for f in data.findings if f.severity != 'note']
    for r, s in zip(data.records, expected.records, strict=True):
        assert np.array_equal(r.boxes, s.boxes) and np.array_equal(r.labels, s.labels)
    both_say(cfg)


NAMED = {
    'a flag that is none': (lambda t: t['annotations'][0].update(iscrowd='maybe'), "iscrowd is 'maybe'"),
    'a flag of two': (lambda t: t['annotations'][0].update(iscrowd=2), 'iscrowd is 2'),
    'a list as a flag': (lambda t: t['annotations'][0].update(iscrowd=[0]), 'iscrowd is [0]'),
    'half a character': (lambda t: t['categories'][0].update(name='\ud800'), 'an id and a name'),
    'a zero byte': (lambda t: t['images'][0].update(file_name='a\0.jpg'), 'an id and a file_name'),
    'no category': (lambda t: t.update(categories=[]), 'no class can be read'),
    'no image': (lambda t: t.update(images=[], annotations=[]), 'no image is left'),
    'a box of objects': (lambda t: t['annotations'][0].update(bbox=[{}, [], None, 'x']), 'four numbers')}

@pytest.mark.parametrize('edit, words', NAMED.values(), ids=NAMED)
def test_what_is_not_is_named(tmp_path, edit, words):
    cfg = write_coco(tmp_path)
    change(cfg, edit)
    both_say(cfg, words)


def test_an_area_that_is_none_is_computed(tmp_path):
    cfg = write_coco(tmp_path)
    change(cfg, lambda t: [a.update(area=v) for a, v in zip(t['annotations'], ('large', -3, float('nan')))])
    data = open_dataset(cfg, training=True)
    assert [f.kind for f in data.findings] == ['odd area']*3
    assert [a['area'] for a in data.ground_truth['annotations']] == [a['area'] for a in coco_lists()['annotations']]
    both_say(cfg)


def test_ids_beyond_64_bits(tmp_path):
    cfg, huge = write_coco(tmp_path), 2**80
    def enlarge(lists):
        for im in lists['images']: im['id'] += huge
        for a in lists['annotations']: a.update(image_id=a['image_id'] + huge, id=a['id'] + huge)
    for split in ('train', 'val'): change(cfg, enlarge, split)
    data = open_dataset(cfg, training=False)
    assert all(0 < r.image_id < 2**31 for r in data.records)
    assert [a['id'] for a in data.ground_truth['annotations']] == [1, 2, 3]
    assert len(next(Loader(data, cfg, training=False).epoch()).image_ids) == 1
    both_say(cfg)


def test_nothing_but_checked_entries_reaches_an_evaluation(tmp_path):
    cfg = write_coco(tmp_path)
    def add(lists):
        lists['info'] = 7
        lists['images'][0]['date'] = {}
        lists['annotations'][0].update(segmentation='x', keypoints=[])
    change(cfg, add)
    truth = open_dataset(cfg, training=False).ground_truth
    assert truth['info'] == {} and set(truth['images'][0]) == {'id', 'file_name', 'height', 'width'}
    assert set(truth['annotations'][0]) == {'id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'difficult'}


def test_boxes_that_lose_their_area(tmp_path):
    "Cut at the edge or rounded to whole pixels."
    cfg = write_coco(tmp_path)
    change(cfg, lambda t: t['annotations'][0].update(bbox=[-.9, 10, .5, 20])) # a pixel of overhang is forgiven
    both_say(cfg, 'no area', 'nothing is left')
    reference = replace(cfg, protocol='reference')
    change(cfg, lambda t: t['annotations'][0].update(bbox=[10.1, 10, .3, 20]))
    both_say(cfg)
    both_say(reference)
    for wanted, count in ((cfg, 3), (reference, 2)):
        data = open_dataset(wanted, training=True)
        assert sum(b.num_matched[0] > 0 for b in Loader(data, wanted, training=True).epoch(0)) == 2
        assert sum(len(r.labels) for r in data.records) == count


# Nothing hides anything

def test_no_class_hides_no_other_finding(tmp_path):
    cfg = write_coco(tmp_path)
    (tmp_path/'train'/'a.jpg').write_bytes(b'no image')
    change(cfg, lambda t: (t.update(categories=[]), t['images'][1].update(file_name='z.jpg')))
    both_say(cfg, 'no class can be read', 'unreadable image', 'missing image')
    cfg = write_voc(tmp_path/'voc')
    for path in (tmp_path/'voc').glob('*/*.xml'): path.write_text('<annotation>')
    both_say(cfg, 'no class can be read', 'unreadable annotation')


# Headers

TURNED = Image.Exif()
TURNED[0x0112] = 6 # by a quarter

def test_headers_are_read_before_training_and_remembered(tmp_path, monkeypatch):
    cfg, cache = write_coco(tmp_path/'data'), tmp_path/'run'/'headers.json'
    read, look = [], headers.read_header
    monkeypatch.setattr(headers, 'read_header', lambda path: read.append(path.name) or look(path))
    open_both(cfg, evaluated=True, cache=cache)
    assert sorted(read) == sorted([*OBJECTS]*2) and cache.exists()
    read.clear()
    open_both(cfg, evaluated=True, cache=cache)
    assert read == []
    draw(tmp_path/'data'/'train'/'a.jpg', size=(W, H + 10))
    with pytest.raises(DataError, match='80 wide and 70 high'): open_both(cfg, evaluated=True, cache=cache)
    assert read == ['a.jpg']


@pytest.mark.parametrize('spoil, words', [
    (lambda path: path.write_bytes(path.read_bytes()[:-300]), 'cut off'),
    (lambda path: path.write_bytes(b''), 'unreadable image'),
    (lambda path: draw(path, size=(H, W)), 'width and height are exchanged'),
    (lambda path: draw(path, exif=TURNED), 'EXIF')], ids=['torn', 'empty', 'exchanged', 'turned'])
def test_a_bad_image_is_found_before_training_and_can_be_skipped(tmp_path, spoil, words):
    cfg = write_coco(tmp_path)
    spoil(tmp_path/'train'/'a.jpg')
    both_say(cfg, words)
    skipping = replace(cfg, on_bad_data='skip')
    data = open_both(skipping, evaluated=True)[1]
    assert [r.image.name for r in data.records] == ['b c.jpg'] and sum(words in str(f) for f in data.findings) == 1
    assert len(list(Loader(data, skipping, training=True).epoch(0))) == 1
    status, out = checked(skipping)
    assert status == 0 and words in out


def without_tables(path: Path) -> None:
    "A JPEG file whose Huffman table is nonsense."
    data = bytearray(path.read_bytes())
    table = data.index(b'\xff\xc4')
    data[table + 5:table + 21] = b'\xff'*16
    path.write_bytes(data)


def without_middle(path: Path) -> None:
    "A compressed TIFF file with nonsense among its pixels."
    draw(path, format='TIFF', compression='tiff_lzw')
    data = bytearray(path.read_bytes())
    middle = len(data)//2
    data[middle:middle + 64] = b'\xff'*64
    path.write_bytes(data)


@pytest.mark.parametrize('spoil', [without_tables, without_middle])
def test_damage_between_sound_ends_shows_only_when_it_is_decoded(tmp_path, spoil):
    cfg = write_coco(tmp_path)
    spoil(tmp_path/'train'/'a.jpg')
    for choice in ('error', 'skip'):
        chosen = replace(cfg, on_bad_data=choice)
        assert refusal(chosen) == '' # its ends are sound
        status, out = checked(chosen)
        assert status == 1 and 'damaged image' in out and 'cannot leave it out' in out
        loader = Loader(open_both(chosen, evaluated=True)[1], chosen, training=True)
        with pytest.raises(DataError, match='a.jpg'): list(loader.epoch(0))


# Plausibility

@pytest.mark.parametrize('edit, words', [
    (lambda t: [a.update(bbox=[v/100 for v in a['bbox']]) for a in t['annotations']], 'fractions of the image'),
    (lambda t: [im.update(height=W, width=H) for im in t['images']], 'exchanged')], ids=['fractions', 'exchanged'])
def test_likely_causes(tmp_path, edit, words):
    cfg = write_coco(tmp_path)
    change(cfg, edit)
    assert words in checked(cfg)[1]


def test_likely_causes_of_many_boxes(tmp_path):
    cfg = write_coco(tmp_path)
    boxes = [dict(id=k + 1, image_id=1, category_id=1, bbox=[k, 5, 10, 10]) for k in range(60)]
    change(cfg, lambda t: t.update(annotations=boxes))
    out = checked(cfg)[1]
    assert 'equal boxes' in out and '10 wide and 10 high' in out and "60 of 60 objects are of the class 'cat'" in out
    boxes = [dict(id=k + 1, image_id=1, category_id=1, bbox=[10, 50 + k, 10, 20]) for k in range(9)] # y before x
    change(cfg, lambda t: t.update(annotations=boxes))
    assert 'swapped axes' in checked(cfg)[1]


# File names

@pytest.mark.parametrize('name', ['A.JPG', './a.jpg', '.\\a.jpg', '%61.jpg', 'a.png', 'sub\\..\\a.jpg'])
def test_names_of_other_computers(tmp_path, name):
    cfg = write_coco(tmp_path)
    (tmp_path/'train'/'sub').mkdir()
    change(cfg, lambda t: t['images'][0].update(file_name=name))
    assert open_dataset(cfg, training=True).records[0].image.samefile(tmp_path/'train'/'a.jpg')
    both_say(cfg)


def test_a_missing_file_with_a_near_name(tmp_path):
    cfg = write_coco(tmp_path)
    change(cfg, lambda t: t['images'][1].update(file_name='bc.jpg'))
    both_say(cfg, 'missing image', 'did you mean b c.jpg')
    (tmp_path/'train'/'b c.jpg').rename(tmp_path/'bc.jpg')
    both_say(cfg, f'there is {tmp_path}/bc.jpg')


def test_files_of_the_operating_system_are_passed_over(tmp_path):
    cfg = write_voc(tmp_path)
    for split in ('train', 'eval'):
        for name in ('._a.xml', '._a.jpg', '.DS_Store', 'Thumbs.db'): (tmp_path/split/name).write_bytes(b'\0\5\x16\7')
    both_say(cfg)
    assert not open_dataset(cfg, training=True).findings


def test_marks_in_voc_lists(tmp_path):
    for name in ('ImageSets/Main', 'Annotations'): (tmp_path/name).mkdir(parents=True)
    for name, objects in OBJECTS.items():
        draw(tmp_path/'JPEGImages'/name)
        (tmp_path/'Annotations'/name).with_suffix('.xml').write_text(voc_xml(objects))
    for split in ('trainval', 'test'): (tmp_path/'ImageSets'/'Main'/f'{split}.txt').write_text('a  1\nb c -1\n')
    cfg = SSDConfig(dataset='voc', voc_root=tmp_path, class_num=3, batch_size=2)
    assert len(open_dataset(cfg, training=True).records) == 2
    both_say(cfg)


# Any damage at all

COUNT = 100 # mutations of each kind of data set

VALUES = (None, True, 0, 1, -1, 3, 2**80, 1.5, float('nan'), float('inf'), '', '0', '7', 'cat', 'dgo', 'a.jpg',
          '\ud800', '..', '/', [], [1], {}, [[1]]*4, dict(id=1))

def places(tree) -> list:
    "Every list or dictionary of a tree with every key of it."
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [(tree, k) for k in keys] + [place for k in keys for place in places(tree[k])]


def mutate_json(text: str, rng: random.Random) -> str:
    if rng.random() < .08: return text[:rng.randrange(len(text))]
    tree = json.loads(text)
    for _ in range(rng.randrange(1, 3)):
        at = places(tree)
        if not at: break
        node, key = rng.choice(at)
        action, value = rng.random(), node[key]
        if action < .2: del node[key]
        elif action < .3 and isinstance(node, list): node.append(value)
        elif action < .5 and isinstance(value, (int, float)):
            node[key] = rng.choice((str(value), value*100, -value, value + .5))
        else: node[key] = rng.choice(VALUES)
    return json.dumps(tree)


PIECES = ('-5', '1e9', 'nan', 'dog', 'dgo', '0', '3', '1.5', ' ', '<', '&x;', '\0', 'é', '"1"', '9'*30)

def mutate_text(text: str, rng: random.Random) -> str:
    "A piece cut out, doubled or replaced, or the rest cut off."
    pieces = re.findall(r'<[^>]*>|[^<>\s,]+|[\s,]+', text)
    k, action = rng.randrange(len(pieces)), rng.random()
    if action < .15: return text[:rng.randrange(len(text))]
    if action < .4: pieces[k] = ''
    elif action < .5: pieces[k] *= 2
    else: pieces[k] = rng.choice(PIECES)
    return ''.join(pieces)


def mutate_image(path: Path, rng: random.Random) -> None:
    "Taken away, cut off, renamed, of another size, or with nonsense in its middle."
    action = rng.random()
    if action < .2: path.unlink()
    elif action < .4: path.write_bytes(path.read_bytes()[:rng.randrange(1, 2000)])
    elif action < .6: path.rename(path.with_name(path.name.upper()))
    elif action < .8: draw(path, size=(H, W))
    else:
        data, start = bytearray(path.read_bytes()), rng.randrange(2, 2000)
        data[start:start + 16] = rng.randbytes(16)
        path.write_bytes(data)


def mutate_file(path: Path, rng: random.Random) -> None:
    "One random fault in a file of a data set."
    if path.suffix == '.jpg':
        mutate_image(path, rng)
        return
    text = path.read_text(encoding='utf-8')
    changed = mutate_json(text, rng) if path.suffix == '.json' else mutate_text(text, rng)
    path.write_bytes(changed.encode('utf-8', 'surrogatepass'))


first_state = lru_cache(initial_state)

class Stub:
    "A session that learns nothing: all that is left of a training is everything around the network."
    def __init__(self, cfg: SSDConfig): self.cfg, self.state = cfg, first_state(cfg)

    def train_step(self, batch, lr: float) -> float:
        loss = np.abs(batch.locs).mean() + batch.images.mean()/255 + (batch.labels > 0).mean()
        assert np.isfinite(loss) and (batch.num_matched > 0).any() # the others are background
        return float(loss)

    def predict(self, images):
        count = len(images), self.cfg.num_boxes
        return np.zeros((*count, 4), np.float32), np.zeros((*count, self.cfg.class_num), np.float32)

    def get_state(self): return self.state
    def set_state(self, state): self.state = state


@pytest.fixture
def stub(monkeypatch):
    "Trainings with the stand-in, and without the picture of the losses, which knows nothing of the data."
    monkeypatch.setattr(train, 'make_session', lambda name, cfg, **options: Stub(cfg))
    monkeypatch.setattr(train, 'keep_checkpoint', lambda run, epoch: None)


EPOCH = dict(epoch_size=1, warmup_epochs=0., run_eval=True, eval_start_epoch=1, keep_checkpoint_max=0,
             save_best_ckpt=False, device='cpu')

def trained(cfg: SSDConfig, folder: Path) -> str:
    "Why a training of one epoch with its evaluation does not come to its end; '' if it does."
    with contextlib.redirect_stdout(io.StringIO()):
        try: run = train.train(replace(cfg, output_dir=str(folder)))
        except UserError as e: return str(e)
    for name in ('last.safetensors', 'report.json', 'predictions.json', 'detections.png'): assert (folder/name).exists()
    assert run.steps[-1].epoch == 1 and run.steps[-1].mAP is not None
    return ''


@pytest.mark.parametrize('write', [write_coco, write_voc, write_txt, write_yolo, write_csv, write_heap])
def test_any_damage_ends_in_a_finding_and_never_in_a_traceback(tmp_path, stub, write):
    "The doctor and a whole training agree on each of them."
    cfg, runs = replace(write(tmp_path/'data'), **EPOCH), tmp_path/'runs'
    good = {p: p.read_bytes() for p in sorted((tmp_path/'data').rglob('*')) if p.is_file()}
    notes = [p for p in good if p.suffix != '.jpg']
    assert trained(cfg, runs/'whole') == ''
    rng, ends = random.Random(write.__name__), []
    for number in range(COUNT):
        target = rng.choice(notes if rng.random() < .85 else list(good))
        mutate_file(target, rng)
        wanted = replace(cfg, on_bad_data=rng.choice(('error', 'error', 'skip', 'clip')))
        wanted = replace(wanted, batch_size=rng.choice((1, 1, 2)))
        status, out = checked(wanted)
        why = trained(wanted, runs/str(number))
        content = target.read_bytes()[:3000] if target.exists() else 'gone'
        assert status == bool(why), f'mutation {number} of {target}: {content}\n{out}\n{why}'
        ends.append(status)
        shutil.rmtree(runs/str(number), ignore_errors=True)
        for path in (tmp_path/'data').rglob('*.[jJ][pP][gG]'): path.unlink()
        for path, data in good.items(): path.write_bytes(data)
    assert COUNT//10 < sum(ends) < COUNT*95//100 # both ends are met


# The collected inputs

@pytest.fixture
def collected(sample_data):
    "`collected(name)`: folder of one of the collected inputs."
    root = sample_data('faults')
    def find(name: str) -> Path:
        if not (root/name).is_dir(): pytest.skip(f'no input {name} in {root}')
        return root/name
    return find


CLASS_NUM = dict(cjk_names=4, val_fewer_classes=4, mac_dot_underscore=2, one_image_batch_1=2)

def usage(folder: Path, **values) -> list[str]:
    "Flags that use one of the collected inputs rightly."
    where = dict(dataset='coco', coco_root=folder)
    if folder.name in ('mac_dot_underscore', 'doctor_no_class_voc_flags'): where = dict(dataset='voc', voc_root=folder)
    if folder.name == 'roboflow': where['val_split'] = 'valid'
    count = CLASS_NUM.get(folder.name, 3)
    return ['--preset', 'tiny', *flags(dict(class_num=count, batch_size=2, num_workers=0, **where) | values)]


def said(args: list[str]) -> tuple[int, str]:
    "Exit status and output of the command `check`."
    with contextlib.redirect_stdout(io.StringIO()) as out: status = doctor.main(['check', '--picture', '', *args])
    return status, out.getvalue()


def configured(args: list[str], **values) -> SSDConfig:
    "The configuration of the command `train` with these flags."
    return replace(train.config_from_args(train.train_parser().parse_args(args)), **values)


CUT, TURN = ('unreadable image', 'damaged or cut off', 'p1.jpg'), ('wrong size', 'EXIF', 'p1.jpg')
SWAP = ('wrong size', 'width and height are exchanged in all 6 images', 'no image is left')

@pytest.mark.parametrize('name, values, status, words', [
    ('area_null', {}, 0, ('6 images of 6 with 6 objects of 2 classes', 'nothing to report')),
    ('iscrowd_string0', {}, 0, ('6 images of 6 with 6 objects of 2 classes', 'nothing to report')),
    ('backslash_names', {}, 0, ('4 images of 4 with 4 objects of 2 classes', 'nothing to report')),
    ('urlencoded', {}, 0, ('4 images of 4 with 4 objects of 2 classes', 'nothing to report')),
    ('cjk_names', {}, 0, ('8 images of 8 with 8 objects of 3 classes', 'nothing to report')),
    ('dollar_class_names', {}, 0, ('8 images of 8 with 8 objects of 2 classes', 'nothing to report')),
    ('val_fewer_classes', {}, 0, ('unused class', 'no object of 1 of 3 classes: washer')),
    ('normalised_boxes', {}, 0, ('tiny boxes', 'are they fractions of the image?', 'write boxes in pixels')),
    ('mac_dot_underscore', {}, 0, ('6 images of 6 with 6 objects of 1 classes', 'nothing to report')),
    ('doctor_no_class_voc_flags', {}, 0, ('6 images of 6 with 6 objects of 2 classes', 'nothing to report')),
    ('roboflow', {}, 0, ('6 images of 6 with 6 objects of 2 classes', )), # without the heading 'parts'
    ('roboflow', dict(class_num=4), 1, ('class count', '2 classes (bolt, nut)', '--class_num 3')),
    ('one_image_batch_1', {}, 1, ('too few images', 'add images')),
    ('one_image_batch_1', dict(batch_size=1), 1, ('batch norm', 'give --batch_size 2')),
    ('truncated_not_skipped', {}, 1, CUT), ('truncated_not_skipped', dict(on_bad_data='skip'), 0, CUT),
    ('exif_raw_size', {}, 1, TURN), ('exif_raw_size', dict(on_bad_data='skip'), 0, TURN),
    ('wrong_size_mid_training', {}, 1, SWAP), ('wrong_size_mid_training', dict(on_bad_data='skip'), 1, SWAP)])
def test_collected_inputs(collected, stub, tmp_path, name, values, status, words):
    "What check says of each, and that a training with the same flags ends so."
    args = usage(collected(name), **values)
    found, out = said(args)
    assert found == status and ('clean' in out) == (not status), out
    for word in words: assert word in out, out
    why = trained(configured(args, **EPOCH), tmp_path/'runs'/'one')
    assert bool(why) == bool(status), why
    if values.get('on_bad_data') != 'skip': assert not status or any(word in why for word in words), why


@pytest.mark.parametrize('name', ['area_null', 'iscrowd_string0', 'val_fewer_classes', 'dollar_class_names',
                                  'one_image_batch_1', 'normalised_boxes'])
def test_collected_inputs_are_learnt(collected, tmp_path, backend, name):
    small = NET | EPOCH | dict(batch_size=1 if name == 'one_image_batch_1' else 2, backend=backend)
    cfg = configured(usage(collected(name)), **small)
    assert checked(cfg)[0] == 0 and trained(cfg, tmp_path/'runs'/'one') == ''
    assert (tmp_path/'runs'/'one'/'curves.png').exists()


def test_collected_lists_with_rotated_ids(collected, tmp_path):
    "The same scenes with the same names: the same truth."
    rotated = (collected('val_ids_differ')/'instances_perm.json').read_bytes()
    cfg = replace(SMALL, coco_root=write_shapes(tmp_path/'shapes', train=16, val=60), class_num=7)
    named, learnt, plain = open_both(cfg, evaluated=True)
    (tmp_path/'shapes'/'annotations'/'instances_val.json').write_bytes(rotated)
    both_say(cfg)
    judged = open_both(cfg, evaluated=True)[2]
    assert judged.classes == learnt.classes and sorted(judged.category_ids) == sorted(learnt.category_ids)
    assert judged.category_ids != learnt.category_ids
    for again in (judged, open_dataset(named, training=False)): # what training and eval judge by
        for r, s in zip(again.records, plain.records, strict=True):
            assert r.image_id == s.image_id and np.array_equal(r.labels, s.labels) and np.array_equal(r.boxes, s.boxes)
        assert evaluate(perfect(plain), again, cfg.rules).mAP == 1


def test_names_that_the_terminal_cannot_show(collected, tmp_path):
    environment = os.environ | dict(PYTHONUTF8='0', PYTHONIOENCODING='latin-1')
    args = ['check', '--picture', tmp_path/'data.png', *usage(collected('cjk_names'))]
    assert 'clean, exit status 0' in command('data', *args, env=environment).stdout
    assert (tmp_path/'data.png').exists()
