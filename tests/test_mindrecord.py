"MindRecord files: equal to the raw data, whole or not there, refused when stale or foreign."
import importlib.util, json, multiprocessing, os, random, shutil, signal, subprocess, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
from ssd_nb.data import mindrecord as records
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.errors import DataError
from ssd_nb.images import image_bytes
from ssd_nb.data.mindrecord import open_data, prepare_record, read_manifest, read_record
from ssd_nb.data.shards import HEADER, USAGES, find_images_in
from ssd_nb.learning.shapes import write_shapes

needs_mindspore = pytest.mark.skipif(importlib.util.find_spec('mindspore') is None,
                                     reason='mindspore writes the records; it is not installed')

@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp('raw data')/'shäpes' # spaces and letters that ASCII lacks
    write_shapes(root, train=60, val=6, seed=0)
    path = root/'annotations'/'instances_train.json'
    truth = json.loads(path.read_text())
    truth['annotations'][0].update(iscrowd=1)
    truth['annotations'][1]['bbox'][0] += .37 # fractions of a pixel
    bare = truth['images'][5]['id'] # an image without objects
    truth['annotations'] = [a for a in truth['annotations'] if a['image_id'] != bare]
    path.write_text(json.dumps(truth))
    return SSDConfig.preset('tiny', coco_root=root)

@pytest.fixture(scope='module')
def packed(raw, tmp_path_factory):
    cfg = replace(raw, mindrecord_dir=tmp_path_factory.mktemp('records')/'mine ü')
    for training in (True, False): prepare_record(cfg, training)
    return cfg

@pytest.fixture
def copy(packed, tmp_path):
    "A record that may be spoilt."
    def sparse(source, target): # shards are mostly holes
        with open(source, 'rb') as f, open(target, 'wb') as t:
            t.truncate(size := os.path.getsize(source))
            end = 0
            while end < size:
                try: start = os.lseek(f.fileno(), end, os.SEEK_DATA)
                except OSError: break # a hole up to the end
                end = os.lseek(f.fileno(), start, os.SEEK_HOLE)
                os.pwrite(t.fileno(), os.pread(f.fileno(), end - start, start), start)
    shutil.copytree(packed.mindrecord_dir, tmp_path/'copy', copy_function=sparse)
    return replace(packed, mindrecord_dir=tmp_path/'copy')

def same(a, b):
    assert a.classes == b.classes and a.category_ids == b.category_ids and a.ground_truth == b.ground_truth
    for r, s in zip(a.records, b.records, strict=True):
        assert image_bytes(r.image) == image_bytes(s.image)
        assert (r.image_id, r.height, r.width, r.source) == (s.image_id, s.height, s.width, s.source)
        for name in ('boxes', 'labels', 'crowd', 'difficult'):
            x, y = getattr(r, name), getattr(s, name)
            assert x.dtype == y.dtype and np.array_equal(x, y)

@needs_mindspore
@pytest.mark.parametrize('protocol', ['standard', 'reference'])
@pytest.mark.parametrize('training', [True, False])
def test_equal_to_the_raw_data(raw, packed, protocol, training):
    same(open_data(replace(raw, protocol=protocol), training), open_data(replace(packed, protocol=protocol), training))

@needs_mindspore
def test_coco_tiny(sample_data, tmp_path):
    from ssd_nb.data.loader import Loader
    raw = SSDConfig(coco_root=sample_data('coco-tiny'), batch_size=8, num_workers=0)
    packed = replace(raw, mindrecord_dir=tmp_path/'records')
    data = [open_data(cfg, training=True) for cfg in (raw, packed)]
    same(*data)
    batches = [list(Loader(d, cfg, training=True).epoch(1)) for d, cfg in zip(data, (raw, packed))]
    assert len(batches[0]) == len(batches[1]) == 112//8
    for a, b in zip(*batches):
        for name in ('images', 'locs', 'labels', 'num_matched', 'image_ids'):
            assert np.array_equal(getattr(a, name), getattr(b, name))

@needs_mindspore
def test_the_references_fields(raw, packed):
    from mindspore.mindrecord import FileReader
    expected = {r.image_id: r for r in open_dataset(replace(raw, protocol='reference'), training=True).records}
    seen = 0
    reader = FileReader(str(Path(packed.mindrecord_dir)/'ssd.mindrecord0')) # it finds the other shards
    for row in reader.get_next():
        seen += 1
        assert set(row) == {'img_id', 'image', 'annotation'}
        assert row['annotation'].dtype == np.int32 and row['annotation'].shape[1] == 5
        r = expected.get(int(row['img_id'][0]))
        if r is None: # the image without objects
            assert not len(row['annotation'])
            continue
        assert row['image'] == image_bytes(r.image)
        assert np.array_equal(row['annotation'][:, 4], r.labels)
        assert np.allclose(row['annotation'][:, :4], r.boxes*np.tile([r.height, r.width], 2), atol=1e-3)
    reader.close()
    assert seen == 60

@needs_mindspore
def test_reading_needs_neither_mindspore_nor_the_raw_data(packed, tmp_path):
    code = ('import sys; sys.modules["mindspore"] = None\n'
            'from ssd_nb.config import SSDConfig\nfrom ssd_nb.data.mindrecord import open_data\n'
            'from ssd_nb.images import image_bytes\n'
            f'cfg = SSDConfig.preset("tiny", coco_root="/nowhere", mindrecord_dir={str(packed.mindrecord_dir)!r})\n'
            'd = open_data(cfg, True)\n'
            'print(len(d.records), sum(len(image_bytes(r.image)) > 0 for r in d.records))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.split() == ['60', '60'] and not done.stderr

def test_writing_without_mindspore_says_what_to_install(raw, tmp_path, monkeypatch):
    for name in ('mindspore', 'mindspore.mindrecord'): monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match='pip install "mindspore'):
        open_data(replace(raw, mindrecord_dir=tmp_path/'r'), True)
    assert not list(tmp_path.iterdir())

def test_faulty_data_are_refused_before_anything_is_written(raw, tmp_path):
    cfg = replace(raw, class_num=3, mindrecord_dir=tmp_path/'r')
    with pytest.raises(DataError, match='--class_num 7'): open_data(cfg, True)
    with pytest.raises(DataError, match='no such folder'):
        open_data(replace(raw, coco_root='/nowhere', mindrecord_dir=tmp_path/'r'), True)
    assert not list(tmp_path.iterdir())

def exchange(path, old, new): path.write_text(path.read_text().replace(old, new, 1))

@needs_mindspore
@pytest.mark.parametrize('spoil, words', [
    (lambda d: os.truncate(d/'ssd.mindrecord2', 99), ('ssd.mindrecord2', '99 bytes', 'made again')),
    (lambda d: (d/'ssd.mindrecord7.db').unlink(), ('ssd.mindrecord7.db', 'missing', 'made again')),
    (lambda d: (d/'ssd.mindrecord.json').unlink(),
     ('without ssd.mindrecord.json', 'not written by ssd_nb, or incomplete')),
    (lambda d: (d/'ssd.mindrecord.json').write_text('{'), ('ssd.mindrecord.json', 'no manifest of this version')),
    (lambda d: (d/'ssd.mindrecord.json').write_text('[]'), ('ssd.mindrecord.json', 'no manifest of this version')),
    (lambda d: exchange(d/'ssd.mindrecord.json', '"format": 2', '"format": 9'), ('no manifest of this version',)),
    (lambda d: exchange(d/'ssd.mindrecord.annotations.json', '[', ' '), ('annotations.json', 'damaged'))],
    ids=['shard cut off', 'index missing', 'no manifest', 'manifest cut off', 'manifest is a list', 'other version',
         'annotations changed'])
def test_damage(copy, spoil, words):
    spoil(Path(copy.mindrecord_dir))
    with pytest.raises(DataError) as e: open_data(copy, True)
    for word in words: assert word in str(e.value)

@needs_mindspore
def test_damaged_image(copy):
    image = open_data(copy, True).records[3].image
    with open(image.shard, 'r+b') as f:
        f.seek(image.offset + image.length//2)
        f.write(b'\0\0\0\0\0\0\0\0')
    with pytest.raises(DataError, match='damaged at byte'): image_bytes(image)

@needs_mindspore
def test_stale_and_foreign(raw, copy, tmp_path):
    shutil.copytree(raw.coco_root, tmp_path/'changed')
    path = tmp_path/'changed'/'annotations'/'instances_train.json'
    path.write_text(path.read_text() + ' ')
    with pytest.raises(DataError, match='annotations of this --dataset are others now'):
        open_data(replace(copy, coco_root=tmp_path/'changed'), True)
    with pytest.raises(DataError, match='a record of a coco data set'):
        open_data(replace(copy, dataset='txt', anno_path='x.txt'), True)
    with pytest.raises(DataError, match='--class_num 7'): open_data(replace(copy, class_num=81), True)
    (tmp_path/'home').mkdir()
    (tmp_path/'home'/'letter.txt').write_text('dear')
    with pytest.raises(DataError, match='letter.txt'): open_data(replace(raw, mindrecord_dir=tmp_path/'home'), True)
    with pytest.raises(DataError, match='a file, not a folder'):
        open_data(replace(raw, mindrecord_dir=tmp_path/'home'/'letter.txt'), True)
    assert [p.name for p in (tmp_path/'home').iterdir()] == ['letter.txt']

@needs_mindspore
def test_a_new_picture_without_labels_makes_a_record_of_yolo_stale(tmp_path):
    from PIL import Image
    (root := tmp_path/'yolo').mkdir()
    for name in 'abc':
        Image.new('RGB', (80, 60)).save(root/f'{name}.png')
        (root/f'{name}.txt').write_text('0 0.5 0.5 0.2 0.4\n')
    cfg = SSDConfig(data=root, dataset='yolo', class_num=0, val_fraction=0., mindrecord_dir=tmp_path/'records')
    assert len(open_data(cfg, True).records) == 3
    Image.new('RGB', (80, 60)).save(root/'lawn.png')
    with pytest.raises(DataError, match='annotations of this --dataset are others now'): open_data(cfg, True)

def test_an_image_that_was_not_written(tmp_path):
    import sqlite3
    with sqlite3.connect(tmp_path/'s.db') as db:
        columns = 'ROW_ID INT, PAGE_ID_BLOB INT, PAGE_OFFSET_BLOB INT, PAGE_OFFSET_BLOB_END INT'
        db.execute(f'CREATE TABLE INDEXES ({columns})')
        db.execute('INSERT INTO INDEXES VALUES (0, 0, 0, 9)')
    db.close()
    with open(tmp_path/'s', 'wb') as f:
        f.seek(HEADER)
        f.write(b'..image..')
    assert find_images_in([tmp_path/'s'], iter([b'image']))[0][:3] == ('s', HEADER + 2, 5)
    with pytest.raises(DataError, match='image number 1 was not written whole'):
        find_images_in([tmp_path/'s'], iter([b'imago']))

# ---------------------------------------------------------------- interruptions

def state(folder: Path) -> str:
    "'none', 'whole', or a complaint."
    cfg = SSDConfig(mindrecord_dir=folder)
    try: return 'none' if read_manifest(Path(cfg.mindrecord_dir), True) is None else 'whole'
    except DataError as e: return str(e)

ON_DISK = {'open', 'os.mkdir', 'os.rename', 'os.remove', 'os.rmdir', 'shutil.rmtree', 'sqlite3.connect'}

def write_until(cfg: SSDConfig, last: float, touched: multiprocessing.Value) -> None:
    "Write a record and count what touches the disk; die at number `last`. For a process of its own."
    def hook(event: str, args: tuple) -> None:
        if event not in ON_DISK: return
        if touched.value >= last: os.kill(os.getpid(), signal.SIGKILL)
        touched.value += 1
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.addaudithook(hook)
    prepare_record(cfg, True)
    os._exit(0)

@needs_mindspore
def test_killing_the_writer(raw, tmp_path):
    "20 writers, each killed between two of its touches of the disk: no record or a whole one, and the next carries on."
    # MindSpore is imported once and forked
    import mindspore.mindrecord # noqa: F401 so that a forked writer begins to write at once
    context, rng, ends = multiprocessing.get_context('fork'), random.Random(0), []
    def written(folder: Path, last: float = np.inf) -> int: # touches of the disk
        touched = context.Value('i', 0, lock=False)
        process = context.Process(target=write_until, args=(replace(raw, mindrecord_dir=folder), last, touched))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        return touched.value
    whole, folder = written(tmp_path/'all of it'), tmp_path/'records'
    for last in [0, *rng.sample(range(whole), 18), whole - 1]:
        written(folder, last)
        ends.append(state(folder))
        assert ends[-1] in ('none', 'whole')
        if ends[-1] == 'whole':
            assert len(read_record(replace(raw, mindrecord_dir=folder), True).records) == 60
            shutil.rmtree(folder)
    assert 'none' in ends
    same(open_data(raw, True), open_data(replace(raw, mindrecord_dir=folder), True)) # over whatever the last one left
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith('.records')]

@needs_mindspore
@pytest.mark.parametrize('moved', [0, 1, 8, 16, 17])
def test_interrupted_move(copy, moved, tmp_path, capsys):
    "A finished record of which some files have moved is moved on, not written again."
    folder, usage = Path(copy.mindrecord_dir), USAGES[True]
    work = records._work_folder(folder, usage)
    work.mkdir()
    for name in [*usage.file_names(), usage.manifest][moved:]: os.replace(folder/name, work/name)
    assert state(folder) == 'none'
    assert len(open_data(replace(copy, coco_root='/nowhere'), True).records) == 60
    assert 'interrupted' in capsys.readouterr().err and not work.exists()

@needs_mindspore
def test_one_writes_the_others_wait(raw, tmp_path):
    import mindspore.mindrecord # noqa: F401
    context = multiprocessing.get_context('fork')
    def use(cfg, answers):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        answers.put(len(open_data(cfg, True).records))
        answers.close()
        answers.join_thread()
        os._exit(0)
    answers, cfg = context.Queue(), replace(raw, mindrecord_dir=tmp_path/'r')
    processes = [context.Process(target=use, args=(cfg, answers)) for _ in range(4)]
    for p in processes: p.start()
    assert [answers.get(timeout=60) for _ in processes] == [60]*4
    for p in processes: p.join()
    assert [p.name for p in tmp_path.iterdir()] == ['r']
