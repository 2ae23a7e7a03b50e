"Data sets as tools leave them: every format recognised, converted there and back, divided, and refused with a place."
import contextlib, csv, io, itertools, json
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from ssd_nb.config import SSDConfig, config_from_args, make_parser
from ssd_nb.data import __main__ as command
from ssd_nb.data.csv_files import parse_csv
from ssd_nb.data.dataset import annotation_files, bare_pictures, data_sentence, is_divided, open_dataset, settled
from ssd_nb.data.findings import Findings
from ssd_nb.data.formats import other_splits, recognise
from ssd_nb.data.layouts import read_lines
from ssd_nb.data.mindrecord import fingerprint, open_both
from ssd_nb.data.split import moved_pictures, position
from ssd_nb.data.writing import WRITERS, convert_data
from ssd_nb.data.yolo import parse_label, read_data_yaml, yolo_names
from ssd_nb.errors import ConfigError, DataError, UserError
from ssd_nb.images import image_bytes

W, H = 80, 60
NAMES = ('cat', 'dog')
OBJECTS = {'a.jpg': [(10, 10, 50, 40, 1), (30.5, 20.25, 79, 59, 2)], 'b c.jpg': [(5, 5, 25, 30, 2)], 'empty.jpg': [],
           'd.jpg': [(1, 2, 33, 44, 1)], 'e.jpg': [(0, 0, 80, 60, 1), (7, 7, 9, 9, 2)]} # x1, y1, x2, y2, class

def draw(path: Path, size=(W, H)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, path.name))
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path)

def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path

def yolo_rows(objects) -> str:
    rows = [f'{c - 1} {(x1 + x2)/2/W} {(y1 + y2)/2/H} {(x2 - x1)/W} {(y2 - y1)/H}\n' for x1, y1, x2, y2, c in objects]
    return ''.join(rows)

def voc_xml(objects) -> str:
    rows = [f'<object><name>{NAMES[c - 1]}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>'
            f'<ymax>{y2}</ymax></bndbox></object>' for x1, y1, x2, y2, c in objects]
    return f'<annotation><size><width>{W}</width><height>{H}</height></size>{"".join(rows)}</annotation>'

def coco_lists(objects=OBJECTS) -> dict:
    images = [dict(id=n, file_name=name, width=W, height=H) for n, name in enumerate(objects, 1)]
    boxes = [(im['id'], box) for im in images for box in objects[im['file_name']]]
    notes = [dict(id=k, image_id=n, category_id=c, bbox=[x1, y1, x2 - x1, y2 - y1])
             for k, (n, (x1, y1, x2, y2, c)) in enumerate(boxes, 1)]
    heading = dict(id=0, name='pets', supercategory='none')
    return dict(images=images, annotations=notes,
                categories=[heading, *(dict(id=c, name=n, supercategory='pets') for c, n in enumerate(NAMES, 1))])

def csv_table(objects=OBJECTS) -> str:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow('filename width height class xmin ymin xmax ymax'.split())
    for name, boxes in objects.items():
        for *corners, c in boxes: table.writerow([name, W, H, NAMES[c - 1], *corners])
        if not boxes: table.writerow([name, W, H, *['']*5])
    return text.getvalue()

def yolo_at(root: Path) -> Path:
    for name, objects in OBJECTS.items():
        draw(root/'images'/name)
        if objects: put((root/'labels'/name).with_suffix('.txt'), yolo_rows(objects))
    put(root/'data.yaml', 'path: .\ntrain: images\nnames:\n  0: cat\n  1: dog\n')
    return root

def flat_at(root: Path) -> Path:
    for name, objects in OBJECTS.items():
        draw(root/'my photos'/name)
        put((root/'my labels'/name).with_suffix('.xml'), voc_xml(objects))
    return root

def roboflow_at(root: Path) -> Path:
    for name in OBJECTS: draw(root/'train'/name)
    put(root/'train'/'_annotations.coco.json', json.dumps(coco_lists()))
    put(root/'README.dataset.txt', 'pets\nProvided by a user\n')
    return root

def single_at(root: Path) -> Path:
    for name in OBJECTS: draw(root/'photos'/name)
    return put(root/'notes'/'labels.json', json.dumps(coco_lists()))

def csv_at(root: Path) -> Path:
    for name in OBJECTS: draw(root/'pictures'/name)
    put(root/'all.csv', csv_table())
    return root

def txt_at(root: Path) -> Path:
    for name in OBJECTS: draw(root/name)
    rows = [' '.join([name, *(','.join(map(str, b)) for b in boxes)]) for name, boxes in OBJECTS.items()]
    put(root/'rows.txt', '\n'.join(rows))
    put(root/'classes.txt', '\n'.join(NAMES))
    return root

LAYOUTS = dict(yolo=yolo_at, voc=flat_at, roboflow=roboflow_at, coco=single_at, csv=csv_at, txt=txt_at)

def at(path: Path, **values) -> SSDConfig:
    "The configuration of a command that was given this path alone."
    return SSDConfig(data=path, dataset='auto', class_num=0, **values)

def content(path: Path, training: bool, **values) -> tuple:
    "Classes, and boxes, labels and bytes of every record by its name."
    data = open_dataset(at(path, **values), training)
    records = {r.image.name: (r.boxes.tolist(), r.labels.tolist(), image_bytes(r.image)) for r in data.records}
    return data.classes, records

# The path alone

@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_is_recognised_and_gives_the_same(tmp_path, layout):
    path, expected = LAYOUTS[layout](tmp_path/'data'), yolo_at(tmp_path/'yolo')
    kind = 'coco' if layout == 'roboflow' else layout
    assert recognise(path)[0] == kind == settled(at(path)).dataset and is_divided(settled(at(path)))
    for training in (True, False): assert content(path, training) == content(expected, training)
    said = data_sentence(at(path))
    assert f'read as {kind}, because ' in said and 'about 20% of the pictures' in said
    assert annotation_files(at(path), True) == annotation_files(at(path), False)
    cfg, learnt, judged = open_both(at(path), evaluated=True)
    assert (cfg.dataset, cfg.class_num, cfg.classes) == (kind, 3, NAMES) and cfg.val_moved is not None
    names = [{r.image.name for r in data.records} for data in (learnt, judged)]
    assert names[0] | names[1] == {*OBJECTS} and not names[0] & names[1] and names[1]

def test_a_picture_that_nobody_wrote_down_changes_the_fingerprint(tmp_path):
    "Of YOLO, where a picture without a label file is background; a MindRecord without it is out of date."
    path = yolo_at(tmp_path)
    before = [fingerprint(at(path), training) for training in (True, False)]
    assert not (path/'images'/'new.png').exists() and before[0] == before[1]
    draw(path/'images'/'new.png')
    after = [fingerprint(at(path), training) for training in (True, False)]
    assert after[0] == after[1] != before[0] and path/'images'/'new.png' in bare_pictures(at(path), True)
    put(path/'labels'/'new.txt', '')
    assert fingerprint(at(path), True) not in (before[0], after[0])
    assert path/'images'/'new.png' not in bare_pictures(at(path), True)
    for name, layout in LAYOUTS.items(): # the others name every picture
        if name != 'yolo': assert bare_pictures(at(layout(tmp_path/name)), True) == []

def test_a_number_that_is_given_is_not_changed(tmp_path):
    path = str(flat_at(tmp_path))
    parser = make_parser('x', 'y', path=True)
    def parsed(*flags): return config_from_args(parser.parse_args([path, *flags]))
    assert parsed().class_num == 0 and open_both(parsed('--preset', 'tiny'), True)[0].class_num == 3
    dogs = parsed('--classes', 'dog')
    assert dogs.class_num == 2 and open_both(dogs, False)[0].classes == ('dog',)
    with pytest.raises(DataError, match='--class_num 3'): open_both(parsed('--class_num', '5'), True)
    with pytest.raises(ConfigError, match='class_num: 5 does not fit 2 classes'):
        parsed('--class_num', '5', '--classes', 'cat,dog')
    with pytest.raises(ConfigError, match='name one data set'): parsed('--data', '/elsewhere')

def test_splits_of_tools_stand_for_the_defaults(tmp_path):
    for names in (('train', 'valid'), ('train', 'test'), ('Train', 'Val')):
        root = tmp_path/'-'.join(names)
        for split, name in zip(names, OBJECTS):
            draw(root/split/'images'/name)
            put(root/split/'labels'/f'{Path(name).stem}.txt', yolo_rows(OBJECTS[name]))
        put(root/'data.yaml', f'train: ../{names[0]}/images\nval: ../{names[1]}/images\nnc: 2\nnames: [cat, dog]\n')
        for values in ({}, dict(train_split='train', val_split='val')):
            found = [[*content(root, training, **values)[1]] for training in (True, False)]
            assert found == [['a.jpg'], ['b c.jpg']]
        (root/'data.yaml').unlink() # folders tell as much
        put(root/'classes.txt', 'cat\ndog\n')
        assert [[*content(root, training)[1]] for training in (True, False)] == [['a.jpg'], ['b c.jpg']]

def test_yolo_lists_outlines_and_labels_beside_the_pictures(tmp_path):
    for name in OBJECTS: draw(tmp_path/name)
    put(tmp_path/'a.txt', '0 .125 .25 .5 .25 .5 .75 .125 .75\n')
    put(tmp_path/'train.txt', './a.jpg\nempty.jpg\n')
    put(tmp_path/'data.yaml', 'names: [cat]\ntrain: train.txt\n')
    data = open_dataset(at(tmp_path, val_fraction=0), True)
    assert {r.image.name: (r.boxes*[H, W, H, W]).tolist() for r in data.records} == {
        'a.jpg': [[15, 10, 45, 40]], 'empty.jpg': []}

# There and back

PAIRS = [*itertools.product(WRITERS, WRITERS)]

@pytest.mark.parametrize('there, back', PAIRS, ids=['-'.join(pair) for pair in PAIRS])
def test_there_and_back_the_records_are_the_same(tmp_path, there, back):
    "From COCO into a format, into a second, and each is read like the first."
    path = single_at(tmp_path/'first')
    convert_data(at(path, image_dir=tmp_path/'first'/'photos'), there, tmp_path/'there')
    convert_data(at(tmp_path/'there'), back, tmp_path/'back')
    for training in (True, False):
        first = content(path, training)
        assert first == content(tmp_path/'there', training) == content(tmp_path/'back', training)

@pytest.mark.parametrize('kind', WRITERS)
def test_splits_survive_and_flags_are_not_learnt(tmp_path, kind):
    root = tmp_path/'coco'
    lists = coco_lists()
    lists['annotations'][0]['iscrowd'], lists['annotations'][1]['difficult'] = 1, 1
    for split in ('train', 'val'):
        for name in OBJECTS: draw(root/split/name)
        put(root/'annotations'/f'instances_{split}.json', json.dumps(lists))
    _, lost = convert_data(at(root), kind, tmp_path/'new')
    assert lost == dict(coco=0, voc=2).get(kind, 4) # in two splits
    for training in (True, False):
        before, after = content(root, training)[1], content(tmp_path/'new', training)[1]
        if training: assert {**before, **{n.replace('-2', ''): r for n, r in after.items()}} == before
    judged = {r.image.name.replace('-2', '') for r in open_dataset(at(tmp_path/'new'), False).records}
    assert judged == {*OBJECTS} - ({'a.jpg'} if kind not in ('coco', 'voc') else set())

def test_split_writes_the_division_down(tmp_path, capsys):
    path = flat_at(tmp_path/'flat')
    assert command.main(['split', str(path), '--out', str(tmp_path/'new')]) == 0
    assert 'train: ' in capsys.readouterr().out and not is_divided(settled(at(tmp_path/'new')))
    for training in (True, False): assert content(tmp_path/'new', training) == content(path, training)

def three_splits_at(root: Path, labelled: bool = True) -> Path:
    "YOLO with pictures for train, val and test; the last perhaps without labels."
    for split, names in dict(train=['a.jpg', 'empty.jpg'], val=['b c.jpg', 'd.jpg'], test=['e.jpg']).items():
        for name in names:
            draw(root/'images'/split/name)
            if split != 'test' or labelled:
                put((root/'labels'/split/name).with_suffix('.txt'), yolo_rows(OBJECTS[name]))
    places = ''.join(f'{split}: images/{split}\n' for split in ('train', 'val', 'test'))
    put(root/'data.yaml', f'names: [cat, dog]\n{places}')
    return root

@pytest.mark.parametrize('kind', WRITERS)
def test_a_test_split_is_converted(tmp_path, kind, capsys):
    path, new = three_splits_at(tmp_path/'data'), tmp_path/'new'
    assert command.main(['convert', str(path), '--to', kind, '--out', str(new)]) == 0
    said = capsys.readouterr().out
    assert 'test: 1 images with 2 objects' in said and 'not written' not in said
    for training in (True, False): assert content(new, training) == content(path, training)
    assert content(new, False, val_split='test') == content(path, False, val_split='test')
    assert [*content(new, False)[1]] == ['b c.jpg', 'd.jpg'] # not of test, whatever the format calls the rest

def test_what_is_not_converted_is_named(tmp_path, capsys):
    "A test split without labels, and one of another name."
    path, new = three_splits_at(tmp_path/'data', labelled=False), tmp_path/'new'
    assert command.main(['convert', str(path), '--to', 'csv', '--out', str(new)]) == 0
    said = capsys.readouterr().out
    assert 'split test is not written' in said and 'none of 1 pictures has labels' in said
    assert not (new/'test.csv').exists() and 'val: 2 images' in said
    lists = tmp_path/'coco'/'annotations'
    for split in ('train', 'val', 'holdout'):
        draw(tmp_path/'coco'/split/'a.jpg')
        put(lists/f'instances_{split}.json', json.dumps(coco_lists({'a.jpg': OBJECTS['a.jpg']})))
    assert command.main(['convert', str(tmp_path/'coco'), '--to', 'yolo', '--out', str(tmp_path/'other')]) == 0
    said = capsys.readouterr().out
    assert 'split holdout is not written: only train, val and test are; --val_split holdout writes it as val' in said

def test_lists_of_voc_that_tools_write_beside_test(tmp_path):
    "train, val and test: the defaults mean the first two; with trainval, as VOC has it, that and test."
    root = tmp_path/'voc'
    for split, names in dict(train=['a.jpg'], val=['b c.jpg'], test=['d.jpg']).items():
        for name in names:
            draw(root/'JPEGImages'/name)
            put((root/'Annotations'/name).with_suffix('.xml'), voc_xml(OBJECTS[name]))
        put(root/'ImageSets'/'Main'/f'{split}.txt', ''.join(f'{Path(name).stem}\n' for name in names))
    assert [[*content(root, training)[1]] for training in (True, False)] == [['a.jpg'], ['b c.jpg']]
    assert other_splits(settled(at(root))) == ['test']
    put(root/'ImageSets'/'Main'/'trainval.txt', 'a\nb c\n')
    put(root/'ImageSets'/'Main'/'cat_train.txt', 'a 1\n')
    assert [[*content(root, training)[1]] for training in (True, False)] == [['a.jpg', 'b c.jpg'], ['d.jpg']]
    assert other_splits(settled(at(root))) == []

def said_by_check(capsys, *words) -> tuple[int, str]:
    status = command.main(['check', *map(str, words), '--picture', ''])
    return status, capsys.readouterr().out

def test_check_says_what_to_do_next(tmp_path, capsys):
    "A plain `train PATH` fits its batch to the images, so six are enough; a batch that is asked for must fit."
    path = three_splits_at(tmp_path/'my pictures')
    status, said = said_by_check(capsys, path)
    assert status == 0 and f'next: `ssd_nb data show "{path}"`' in said and f'`ssd_nb train "{path}"`' in said
    status, said = said_by_check(capsys, path, '--batch_size', 16)
    assert status == 1 and 'too few for a batch of 16' in said and 'give --batch_size 2 or less' in said
    assert said.rstrip().endswith('check again') # nothing can be left out
    put(path/'labels'/'train'/'a.txt', '0 .9 .5 .5 .1\n0 .5 .5 .1 .1\n')
    status, said = said_by_check(capsys, path)
    assert status == 1 and 'clip cuts it at the edge' in said and 'train without the faulty objects' in said
    assert said_by_check(capsys, path, '--on_bad_data', 'clip')[0] == 0

def test_background_is_called_useless_where_it_is(tmp_path, capsys):
    path = three_splits_at(tmp_path/'data')
    assert 'learnt as an image without objects' in said_by_check(capsys, path)[1]
    said = said_by_check(capsys, path, '--class_loss', 'hard_negatives')[1]
    assert 'teaches nothing with --class_loss hard_negatives' in said and 'learnt as an image' not in said

def test_split_of_a_format_that_is_only_read(tmp_path, monkeypatch):
    path = flat_at(tmp_path/'flat')
    monkeypatch.delitem(WRITERS, 'voc')
    said = refused('split', str(path), '--out', str(tmp_path/'new'))
    assert 'nothing writes voc; use convert --to {coco,yolo,csv,txt}' in said and not (tmp_path/'new').exists()

def test_json_without_images_is_no_sign_of_coco(tmp_path):
    path = flat_at(tmp_path/'flat')
    file = put(path/'camera.json', '{"exposure": 2}')
    assert recognise(path)[0] == 'voc'
    with pytest.raises(DataError, match='known are COCO'): recognise(file)
    put(file, json.dumps(dict(annotations=[], images=[])))
    with pytest.raises(DataError, match='could be coco or voc'): recognise(path)

def test_show_draws(tmp_path, capsys):
    file = tmp_path/'look.png'
    assert command.main(['show', str(csv_at(tmp_path/'data')), '--count', '2', '--picture', str(file)]) == 0
    assert file.stat().st_size > 5000 and '2 of ' in capsys.readouterr().out

# The division

def test_adding_pictures_moves_none_of_the_others(tmp_path):
    root = tmp_path/'data'
    for n in range(30):
        draw(root/'images'/f'{n}.jpg')
        put(root/'labels'/f'{n}.txt', yolo_rows([(5, 5, 25, 30, 1 + (n % 10 == 0))]))
    put(root/'data.yaml', 'names: [cat, dog]\ntrain: images\n')
    cfg, learnt, judged = open_both(at(root), evaluated=True)
    def names(data): return {r.image.name for r in data.records}
    assert {label for r in judged.records for label in r.labels} == {1, 2} # every class is judged
    for n in range(30, 60):
        draw(root/'images'/f'{n}.jpg')
        put(root/'labels'/f'{n}.txt', yolo_rows([(5, 5, 25, 30, 2)]))
    again = [open_dataset(cfg, training) for training in (True, False)] # what eval does with the run's configuration
    assert names(learnt) <= names(again[0]) and names(judged) <= names(again[1])
    assert len(names(again[0])) + len(names(again[1])) == 60

@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.text('abcdefgh', min_size=1, max_size=3), st.sets(st.sampled_from('xyz')), max_size=30),
       st.sampled_from([.05, .2, .5]), st.integers(0, 9))
def test_every_class_is_learnt(classes, fraction, seed):
    moved = moved_pictures(classes, fraction, seed)
    kept = {key: (position(key, seed) < fraction) != (key in moved) for key in classes}
    for name in 'xyz':
        mine = [key for key in classes if name in classes[key]]
        assert not mine or not all(kept[key] for key in mine)
    assert moved_pictures(dict(reversed(classes.items())), fraction, seed) == moved

# What is refused: a layout, what is done to it, then words of the message: the place, the fault, the remedy

def edit(name, change):
    def spoil(root):
        path = root/name
        path.write_text(change(path.read_text()))
    return spoil

def line(name, number, text):
    "Another line in a file."
    return edit(name, lambda s: '\n'.join([*s.split('\n')[:number - 1], text, *s.split('\n')[number:]]))

def raw(name, data): return lambda root: (root/name).write_bytes(data) and None
def also(name, text): return lambda root: put(root/name, text) and None
def drop(*names): return lambda root: [(root/name).unlink() for name in names] and None
def elsewhere(name, **values): return lambda root: at(root/name, **values)
def with_flags(**values): return lambda root: replace(at(root), **values)

LABELS = tuple(f'labels/{stem}.txt' for stem in ('a', 'b c', 'd', 'e'))
BAD = {
    'no such path': ('yolo', elsewhere('nowhere'), 'nowhere', 'no such folder or file', 'check the path'),
    'auto without a path': ('yolo', lambda root: SSDConfig(dataset='auto'), 'dataset', 'auto', 'give --data PATH'),
    'nothing known': ('voc', elsewhere('my photos'), 'photos', 'no annotations in a known format',
        '5 pictures', '--dataset'),
    'two formats': ('yolo', also('labels.json', '{"images": []}'),
        'could be coco or yolo', 'data.yaml names classes', '--dataset yolo'),
    'wrong format named': ('yolo', with_flags(dataset='csv'),
        'no CSV file of that split', 'train.csv', 'give the file itself'),
    'yolo: not YAML': ('yolo', line('data.yaml', 3, 'names: [cat'), 'data.yaml: line', 'not YAML', 'fix the line'),
    'yolo: not UTF-8': ('yolo', raw('data.yaml', b'names: [cat]\ntrain: \xff\n'),
        'data.yaml: line 2', 'not UTF-8', 'save'),
    'yolo: names a word': ('yolo', also('data.yaml', 'names: cat\ntrain: images'),
        'data.yaml', "names is 'cat'", 'names: [cat, dog]'),
    'yolo: name twice': ('yolo', also('data.yaml', 'names: [cat, cat]\ntrain: images'),
        'data.yaml', "'cat' occurs twice", 'a name of its own'),
    'yolo: nc': ('yolo', also('data.yaml', 'names: [cat, dog]\nnc: 80\ntrain: images'),
        'data.yaml', 'nc is 80', 'correct one of them'),
    'yolo: class number in words': ('yolo', also('data.yaml', 'names: {one: cat}\ntrain: images'),
        'data.yaml', "'one' is no class number", 'whole numbers from 0'),
    'yolo: no train': ('yolo', also('data.yaml', 'names: [cat, dog]'), 'data.yaml', 'no train', 'train: images/train'),
    'yolo: no folder': ('yolo', also('data.yaml', 'names: [cat, dog]\ntrain: pictures'),
        'data.yaml', 'there is no', 'correct the entry'),
    'yolo: empty folder': ('yolo', also('data.yaml', 'names: [cat, dog]\ntrain: labels'),
        'data.yaml', 'no pictures', 'correct the entry'),
    'yolo: a number for a folder': ('yolo', also('data.yaml', 'names: [cat, dog]\ntrain: [[1]]'),
        'data.yaml', '[1] is not a folder', 'images/train'),
    'yolo: no labels': ('yolo', drop(*LABELS), 'data.yaml', 'none of 5 pictures has labels', 'move the labels there'),
    'yolo: pixels': ('yolo', line('labels/d.txt', 1, '0 30 20 40 30'),
        'd.txt: line 1', '40 is not a fraction', 'in pixels?', 'fractions'),
    'yolo: three numbers': ('yolo', line('labels/d.txt', 1, '0 .5 .5 .1'), 'd.txt: line 1', '3 numbers', 'centre x'),
    'yolo: a name for a class': ('yolo', line('labels/d.txt', 1, 'cat .5 .5 .1 .1'),
        'd.txt: line 1', "'cat' is no number", 'write class'),
    'yolo: class 7': ('yolo', line('labels/d.txt', 1, '7 .5 .5 .1 .1'), 'd.txt: line 1', 'class 7', 'add its name'),
    'yolo: half a class': ('yolo', line('labels/d.txt', 1, '.5 .5 .5 .1 .1'), 'd.txt: line 1', 'class 0.5', 'correct'),
    'yolo: no area': ('yolo', line('labels/d.txt', 1, '0 .5 .5 0 .1'), 'd.txt: line 1', 'no area', 'take it out'),
    'yolo: outside': ('yolo', line('labels/d.txt', 1, '0 .9 .5 .5 .1'), 'd.txt: line 1', 'outside', 'clip'),
    'yolo: list of nothing': ('yolo', lambda root: [put(root/'data.yaml', 'names: [cat, dog]\ntrain: l.txt'),
        put(root/'l.txt', 'images/a.jpg\nimages/x.jpg')] and None,
        'l.txt: line 2', 'missing image', 'put the image there'),
    'csv: no heading': ('csv', line('all.csv', 1, 'a.jpg,80,60,cat,1,2,30,40'),
        'no annotations in a known format', 'CSV (filename', '--dataset'),
    'csv: column missing': ('csv', line('all.csv', 1, 'filename,width,height,class,xmin,ymin,xmax'),
        'all.csv: line 1', 'no column ymax', 'it should be filename'),
    'csv: open quotes': ('csv', line('all.csv', 3, '"a.jpg,80,60,cat,1,2,3,4'),
        'all.csv: line 3', 'not CSV', 'fix the'),
    'csv: not UTF-8': ('csv', raw('all.csv', csv_table().encode() + b'\xff.jpg,80,60,cat,1,2,3,4\r\n'),
        'all.csv: line 9', 'not UTF-8', 'save'),
    'csv: short row': ('csv', line('all.csv', 2, 'a.jpg,80,60,cat,1,2,3'),
        'all.csv: line 2', '7 columns', 'missing columns'),
    'csv: corner in words': ('csv', line('all.csv', 2, 'a.jpg,80,60,cat,1,2,three,4'),
        'all.csv: line 2', "'three'", 'in pixels'),
    'csv: decimal comma': ('csv', line('all.csv', 2, 'a.jpg,80,60,cat,"1,5",2,30,40'),
        'all.csv: line 2', "'1,5'", 'in pixels'),
    'csv: no class': ('csv', line('all.csv', 2, 'a.jpg,80,60,,1,2,3,4'),
        'all.csv: line 2', 'incomplete entry', 'a class'),
    'csv: no file': ('csv', line('all.csv', 2, 'z.jpg,80,60,cat,1,2,30,40'),
        'all.csv: line 2', 'missing image', 'z.jpg'),
    'csv: no area': ('csv', line('all.csv', 2, 'a.jpg,80,60,cat,1,2,1,4'), 'all.csv: line 2', 'no area', 'take it out'),
    'csv: wrong size': ('csv', edit('all.csv', lambda s: s.replace('d.jpg,80', 'd.jpg,90')),
        'wrong size', '80 wide', 'check that the boxes'),
    'csv: two sizes': ('csv', line('all.csv', 3, 'a.jpg,80,61,cat,1,2,30,40'),
        'all.csv: line 3', 'other numbers', 'true size'),
    'flat: no pictures': ('voc', lambda root: at(root/'my labels'),
        'my labels', 'no picture of their names', 'put the pictures beside them'),
    'flat: two folders of XML': ('voc', also('more/x.xml', '<annotation/>'),
        'several folders', 'more, my labels', 'give one of them as --data'),
    'flat: not XML': ('voc', also('my labels/a.xml', '<annotation><object>'), 'a.xml', 'not XML', 'fix the file'),
    'roboflow: only a test split': ('roboflow', lambda root: (root/'train').rename(root/'test') and None,
        'no such split', 'there is test', '--train_split'),
    'roboflow: the heading counted': ('roboflow', with_flags(class_num=4),
        'class count', '2 classes (cat, dog)', '--class_num 3'),
    'txt: names twice': ('txt', also('classes.txt', 'cat\ncat\n'), 'classes.txt: line 2', 'occurs twice', 'rename'),
    'txt: too few names': ('txt', also('classes.txt', 'cat\n'), 'rows.txt: line 1', 'class 2', 'from 1 to 1'),
    'nothing kept back': ('yolo', lambda root: (at(root, val_fraction=0), False),
        'no split to evaluate on', '--val_fraction 0', 'give another --val_fraction')}

@pytest.mark.parametrize('fault', BAD.values(), ids=BAD)
def test_bad_data_of_ones_own(tmp_path, fault):
    layout, spoil, *words = fault
    path = LAYOUTS[layout](tmp_path/'data')
    changed, training = spoil(path), True
    if isinstance(changed, tuple): changed, training = changed
    cfg = changed if isinstance(changed, SSDConfig) else at(path, val_fraction=0)
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises((DataError, ConfigError)) as e: open_dataset(cfg, training)
    for word in words: assert word in str(e.value), str(e.value)
    assert sorted(tmp_path.rglob('*')) == before # nothing is written

def refused(*words: str) -> str:
    "What a command says that ends with status 2."
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
        try: status = command.main([*words])
        except SystemExit as e: status = e.code
    assert status == 2, err.getvalue()
    return err.getvalue()

def test_commands_that_cannot_be(tmp_path):
    path = str(flat_at(tmp_path/'flat'))
    (tmp_path/'full').mkdir()
    put(tmp_path/'full'/'a', 'b')
    before = sorted(tmp_path.rglob('*'))
    assert 'did you mean convert?' in refused('covnert', path) and '--to' in refused('convert', path, '--out', 'x')
    new = str(tmp_path/'new')
    assert 'not empty; name a new folder' in refused('convert', path, '--to', 'csv', '--out', str(tmp_path/'full'))
    assert 'lies in the data set itself' in refused('convert', path, '--to', 'csv', '--out', f'{path}/new')
    assert 'from 1 to 200' in refused('show', path, '--count', '0')
    assert 'no such folder or file' in refused('show', f'{path}x') and 'invalid choice' in refused(
        'convert', path, '--to', 'cocoo', '--out', new)
    put(tmp_path/'flat'/'my labels'/'a.xml', '<annotation><object/></annotation>')
    assert 'incomplete entry' in refused('convert', path, '--to', 'yolo', '--out', new)
    assert sorted(tmp_path.rglob('*')) == before

# Any bytes at all

PIECES = [b'0', b'1', b' ', b'.5', b'0.25', b'-1', b'1e9', b'nan', b'\n', b'\t', b'cat', b'\xff', b'\0', b'5e-324',
          b'9'*40]
LINES = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda p: b''.join(p).decode('latin1'))

@settings(deadline=None, max_examples=300)
@given(st.text(max_size=60) | LINES)
def test_any_line_of_yolo(text):
    for keypoints in (False, True):
        found = parse_label(text, keypoints)
        assert isinstance(found, str) and found or len(found[1]) == 4

@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=120) | st.lists(st.sampled_from(PIECES), max_size=20).map(b''.join),
       st.sampled_from(['labels/a.txt', 'data.yaml', 'classes.txt']))
def test_any_bytes_as_yolo(tmp_path_factory, data, name):
    root = tmp_path_factory.getbasetemp()/'any_yolo'
    yolo_at(root)
    if name == 'classes.txt': (root/'data.yaml').unlink()
    else: (root/'classes.txt').unlink(missing_ok=True)
    (root/name).write_bytes(data)
    try: records = open_dataset(replace(at(root), dataset='yolo'), True).records
    except UserError as e: assert name.split('/')[-1] in str(e) or 'any_yolo' in str(e)
    else: assert all(((0 <= r.boxes) & (r.boxes <= 1)).all() for r in records)

def yaml_like(values) -> str: return '\n'.join(f'{key}: {value}' for key, value in values.items())
WORDS = st.sampled_from(
    ['[cat, dog]', '{0: cat}', 'images', '.', '[images, 3]', '2', '-1', '[]', '{}', '~', '"', '[[1]]', '*x'])

@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(['names', 'nc', 'train', 'val', 'path', 'kpt_shape']), WORDS, max_size=5))
def test_any_page_of_yolo(tmp_path_factory, values):
    root = yolo_at(tmp_path_factory.getbasetemp()/'any_page')
    page = put(root/'data.yaml', yaml_like(values))
    try: names = yolo_names(read_data_yaml(page), page)
    except DataError as e: assert 'data.yaml' in str(e)
    else: assert names and all(isinstance(number, int) for number in names)
    try: open_dataset(replace(at(root), dataset='yolo'), True)
    except UserError as e: assert 'any_page' in str(e)

CSV_PIECES = [b'filename', b'class', b'xmin', b'ymin', b'xmax', b'ymax', b',', b';', b'"', b'a.jpg', b'1', b'nan',
              b'\n', b'\r', b'\xff', b'\0', b',,', b'1,2,3,4']
HEADING = b'filename,class,xmin,ymin,xmax,ymax\n'

@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.lists(st.sampled_from(CSV_PIECES), max_size=30).map(b''.join), st.booleans())
def test_any_bytes_as_csv(tmp_path_factory, data, headed):
    root = tmp_path_factory.getbasetemp()/'any_csv'
    if not root.exists(): csv_at(root)
    (root/'all.csv').write_bytes((HEADING if headed else b'') + data)
    findings = Findings()
    try: rows = parse_csv(read_lines(root/'all.csv'), str(root/'all.csv'), findings)
    except DataError as e: assert 'all.csv: line ' in str(e)
    else: assert all(row.filename and len(row.xyxy) in (0, 4) for row in rows)
    assert all('all.csv: line ' in f.source for f in findings)
    try: records = open_dataset(replace(at(root), dataset='csv'), True).records
    except UserError as e: assert 'all.csv' in str(e)
    else: assert all(((0 <= r.boxes) & (r.boxes <= 1)).all() for r in records)

