"Augmentation and loader across modules: files of every kind, faults, and the same batches whoever prepares them."
import io, os, signal, subprocess, sys, textwrap, time, warnings
from dataclasses import replace
from pathlib import Path
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image, ImageOps
from ssd_nb.images import load_image
from ssd_nb.learning.augment import (
    augment, flip_boxes, into_window, load_square, out_of_window, resize, to_cells, turn_hue)
from ssd_nb.boxes.coding import to_pixels
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.data.records import Dataset, Record
from ssd_nb.errors import DataError
from ssd_nb.data.loader import Loader, eval_batches, train_batches, train_sample
from ssd_nb.data.workers import LoaderError

CFG = SSDConfig.preset('tiny', batch_size=4)
ROOT = Path(__file__).parent.parent


def smooth(rng, height, width, channels=3):
    "A random image without hard edges, which JPEG keeps well."
    few = rng.integers(0, 256, (5, 5, channels)).astype(np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    "Eleven images of several sizes and formats; number 4 has no objects, number 5 nothing but a crowd."
    folder, records = tmp_path_factory.mktemp('images'), []
    for i in range(11):
        rng = np.random.default_rng(i)
        height, width = rng.integers(90, 300, 2)
        path = folder/f'{i}.{"jpg" if i % 3 else "png"}'
        cv2.imwrite(str(path), smooth(rng, height, width))
        corner = rng.uniform(0, .6, (3, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(.1, .4, (3, 2))], 1).astype(np.float32)
        if i == 4: boxes = boxes[:0]
        records.append(Record(image=path, image_id=1000 + i, height=int(height), width=int(width), boxes=boxes,
                              labels=np.arange(1, 4, dtype=np.int32)[:len(boxes)],
                              crowd=np.full(len(boxes), i == 5), source=path.name))
    return Dataset(records=tuple(records), classes=('a', 'b', 'c'), category_ids=(1, 2, 3), ground_truth={})


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


# Files

RNG = np.random.default_rng(7)
RGB, FOUR = Image.fromarray(smooth(RNG, 40, 56)), smooth(RNG, 37, 53, 4)


@pytest.mark.parametrize('mode, kind', [
    ('RGB', 'JPEG'), ('L', 'JPEG'), ('CMYK', 'JPEG'), ('RGB', 'PNG'), ('L', 'PNG'), ('1', 'PNG'), ('P', 'PNG'),
    ('P', 'GIF'), ('RGB', 'BMP'), ('RGB', 'WEBP'), ('RGB', 'TIFF'), ('CMYK', 'TIFF'), ('L', 'PPM')])
def test_kinds_agree_with_pillow(mode, kind):
    image = Image.fromarray(FOUR, 'CMYK') if mode == 'CMYK' else RGB.convert(mode)
    data = encoded(image, kind)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).astype(int)
    got = load_image(data)
    assert got.dtype == np.uint8 and got.flags.c_contiguous and got.flags.writeable
    assert np.abs(got - wanted).max() <= 2


@pytest.mark.parametrize('mode, kind', [('RGBA', 'PNG'), ('LA', 'PNG'), ('RGBA', 'WEBP'), ('RGBA', 'TIFF')])
def test_transparent_becomes_white(mode, kind):
    four = Image.fromarray(FOUR, 'RGBA')
    data = encoded(four.convert(mode), kind, **({'lossless': True} if kind == 'WEBP' else {}))
    opened = np.asarray(Image.open(io.BytesIO(data)).convert('RGBA')).astype(float)
    alpha = opened[..., 3:]/255
    assert np.abs(load_image(data) - (opened[..., :3]*alpha + 255*(1 - alpha))).max() <= 2


def test_transparent_palette_entry():
    image = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (4, 4)), 'P')
    image.putpalette([200, 0, 0, 0, 0, 200])
    got = load_image(encoded(image, 'PNG', transparency=1))
    assert got[0, 0].tolist() == [200, 0, 0] and got[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [1, 3])
def test_sixteen_bits(suffix, channels):
    eight = smooth(RNG, 20, 30, 3)[..., :channels].squeeze()
    data = cv2.imencode(suffix, eight.astype(np.uint16)*256 + 99)[1].tobytes()
    wanted = eight[..., ::-1] if channels == 3 else np.repeat(eight[..., None], 3, 2)
    assert np.abs(load_image(data).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_exif_orientation(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RGB, kind, exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    assert np.abs(load_image(data) - wanted).max() <= 2
    for k in (2, 4, 8):
        means = wanted.reshape(wanted.shape[0]//k, k, wanted.shape[1]//k, k, 3).mean((1, 3))
        got = load_image(data, k)
        assert got.shape == means.shape and np.abs(got - means).mean() < 4


def test_floating_point_pixels_are_refused():
    data = encoded(Image.fromarray(np.zeros((4, 4), np.float32)), 'TIFF')
    with pytest.raises(DataError, match='floating-point'): load_image(data)


WHOLE_FILES = {kind: encoded(RGB, kind) for kind in ('JPEG', 'PNG', 'GIF', 'WEBP')}

@given(st.sampled_from(sorted(WHOLE_FILES)), st.floats(0, 1))
@settings(deadline=None, max_examples=80)
def test_cut_off_files_are_refused_or_whole(kind, fraction):
    data = WHOLE_FILES[kind]
    part = data[:int(fraction*len(data))]
    try: assert np.array_equal(load_image(part), load_image(data)) # nothing that matters was missing
    except DataError as e: assert str(e).startswith('image in memory: ') and '\n' not in str(e)


NOISE, BEGINNINGS = st.binary(max_size=200), st.sampled_from([b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'II*\0'])

@given(st.one_of(NOISE, st.builds(lambda head, rest: head + rest, BEGINNINGS, NOISE)))
@settings(deadline=None, max_examples=100)
def test_any_bytes_give_an_image_or_a_clear_error(data):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # Pillow's, about metadata
        try: assert load_image(data).shape[2] == 3
        except DataError: pass


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match='gone.jpg'): load_image(tmp_path/'gone.jpg')


def test_an_image_of_another_size_is_named(tmp_path):
    path = tmp_path/'five.jpg'
    RGB.save(path)
    match = 'five.jpg: the image is 56 wide and 40 high, its annotation says 40 and 56'
    with pytest.raises(DataError, match=match): load_square(path, 32, (56, 40))


# Augmentation

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


# Samples and batches

@pytest.mark.parametrize('augmented', [True, False])
def test_any_number_of_workers_gives_the_same_batches(dataset, augmented):
    cfg = replace(CFG, augment=augmented)
    wanted = [list(Loader(dataset, cfg, training=True, num_workers=0).epoch(e)) for e in range(2)]
    assert [len(w) for w in wanted] == [2, 2]
    for n in (1, 2):
        with Loader(dataset, cfg, training=True, num_workers=n) as loader:
            for e in range(2): assert all(same(a, b) for a, b in zip(loader.epoch(e), wanted[e], strict=True))
            pids = [w.process.pid for w in loader.workers.running]
            assert same(next(loader.epoch(1, start=1)), wanted[1][1])
            assert [w.process.pid for w in loader.workers.running] == pids # they live on between epochs


def test_evaluation_drops_nothing(dataset):
    for n in (0, 2):
        with Loader(dataset, CFG, training=False, num_workers=n) as loader:
            batches = list(loader.epoch())
        assert len(loader) == 3 and [i for b in batches for i in b.image_ids] == [1000 + i for i in range(11)]
        assert [tuple(s) for b in batches for s in b.sizes] == [(r.height, r.width) for r in dataset.records]
        assert np.array_equal(batches[0].images[1], resize(load_image(dataset.records[1].image), 128))


def test_a_sample_depends_on_seed_epoch_and_index_alone(dataset):
    def sample(cfg, epoch, index): return train_sample(dataset.records[1], cfg, epoch, index)[0]
    base = sample(CFG, 3, 1)
    assert np.array_equal(base, sample(replace(CFG, batch_size=2, num_workers=5, lr=1.), 3, 1))
    for other in (sample(replace(CFG, seed=2), 3, 1), sample(CFG, 4, 1), sample(CFG, 3, 2)):
        assert not np.array_equal(base, other)
    batch = next(Loader(dataset, replace(CFG, batch_size=1), training=True, num_workers=0).epoch(3))
    index = int(batch.image_ids[0]) - 1000
    assert np.array_equal(batch.images[0], train_sample(dataset.records[index], CFG, 3, index)[0])


def test_images_without_objects_are_left_out(dataset):
    def images(protocol):
        cfg = replace(CFG, protocol=protocol, batch_size=1)
        return {int(i) for b in Loader(dataset, cfg, training=True, num_workers=0).batches(0) for i in b}
    assert images('standard') == set(range(11)) - {4, 5}  # crowds alone are not learnt
    assert images('reference') == set(range(11)) - {4}


@given(st.integers(0, 60), st.integers(1, 7), st.integers(1, 4))
def test_devices_share_an_epoch(count, size, world):
    order = np.random.default_rng(count).permutation(count)
    parts = [train_batches(order, size, r, world) for r in range(world)]
    assert np.array_equal(np.concatenate(parts, 1), train_batches(order, size*world))
    assert len(np.unique(parts)) == np.size(parts) == count//(size*world)*size*world
    whole, shares = eval_batches(order, size), [eval_batches(order, size, r, world) for r in range(world)]
    assert np.array_equal(np.concatenate([*whole, order[:0]]), order) # nothing is dropped
    assert [b.tolist() for b in whole] == [shares[n % world][n//world].tolist() for n in range(len(whole))]
    assert sum(map(len, shares)) == len(whole)


def test_two_devices_see_the_steps_of_one(dataset):
    one = Loader(dataset, CFG, training=True, num_workers=0)
    two = [Loader(dataset, replace(CFG, batch_size=2), training=True, rank=r, world=2, num_workers=0) for r in range(2)]
    assert len(one) == len(two[0]) == len(two[1])
    for whole, *halves in zip(one.epoch(1), *(t.epoch(1) for t in two), strict=True):
        assert np.array_equal(whole.images, np.concatenate([h.images for h in halves]))
        assert np.array_equal(whole.locs, np.concatenate([h.locs for h in halves]))


def test_real_images(sample_data):
    "One epoch of photographs, twice and with a worker, under either protocol; crowds are positives in one only."
    matched = {}
    for protocol in ('standard', 'reference'):
        cfg = SSDConfig(dataset='coco', coco_root=str(sample_data('coco-tiny')), batch_size=32, protocol=protocol)
        photographs = open_dataset(cfg, training=True)
        wanted = list(Loader(photographs, cfg, training=True, num_workers=0).epoch(0))
        with Loader(photographs, cfg, training=True, num_workers=1) as loader:
            assert all(same(a, b) for a, b in zip(loader.epoch(0), wanted, strict=True))
        assert len(wanted) == 3 and all((b.num_matched > 0).all() for b in wanted)
        matched[protocol] = sum(b.num_matched.sum() for b in wanted)
    assert matched['standard'] != matched['reference']


# Faults

def test_too_few_images_are_refused_with_a_remedy(dataset):
    def refused(match, world=1, **values):
        with pytest.raises(DataError, match=match): Loader(dataset, replace(CFG, **values), training=True, world=world)
    refused('9 training images.*--batch_size 9 or less', batch_size=10)
    refused('--batch_size 4 or less', world=2, batch_size=5)
    refused('add images', world=16)
    with pytest.raises(ValueError, match='rank 2'): Loader(dataset, CFG, training=False, rank=2, world=2)


@pytest.mark.parametrize('num_workers', [0, 1])
def test_an_unreadable_image_is_named(dataset, tmp_path, num_workers):
    path = tmp_path/'torn.jpg'
    path.write_bytes(WHOLE_FILES['JPEG'][:-30])
    torn = replace(dataset, records=(*dataset.records[:3], replace(dataset.records[3], image=path)))
    with Loader(torn, CFG, training=True, num_workers=num_workers) as loader:
        with pytest.raises(DataError, match='torn.jpg: not a readable image'): list(loader.epoch(0))


def test_a_dead_worker_gives_a_sentence_and_the_next_epoch_works(dataset):
    with Loader(dataset, CFG, training=True, num_workers=1) as loader:
        wanted = list(loader.epoch(0))
        loader.workers.running[0].process.kill()
        with pytest.raises(LoaderError, match='killed by signal 9.*--num_workers'): list(loader.epoch(0))
        assert all(same(a, b) for a, b in zip(loader.epoch(0), wanted, strict=True))


def test_an_epoch_that_is_left_early_does_not_disturb_the_next(dataset):
    cfg = replace(CFG, batch_size=1)
    wanted = list(Loader(dataset, cfg, training=True, num_workers=0).epoch(1))
    with Loader(dataset, cfg, training=True, num_workers=2) as loader:
        left = loader.epoch(0)
        next(left)
        left.close()
        interrupted = loader.epoch(0)
        next(interrupted)
        with pytest.raises(KeyboardInterrupt): interrupted.throw(KeyboardInterrupt())
        assert all(same(a, b) for a, b in zip(loader.epoch(1), wanted, strict=True))
        processes = [w.process for w in loader.workers.running]
    assert all(p.returncode is not None for p in processes)


def test_workers_end_with_a_forgotten_loader(dataset):
    loader = Loader(dataset, CFG, training=True, num_workers=1)
    next(loader.epoch(0))
    process = loader.workers.running[0].process
    del loader
    assert process.wait(5) is not None


def script(tmp_path, dataset, text):
    "A program that uses the loader at its top level, without `if __name__ == '__main__'`."
    path, root = tmp_path/'script.py', dataset.records[0].image.parent
    path.write_text(textwrap.dedent(f'''
        import os, sys, time
        import numpy as np
        from pathlib import Path
        from ssd_nb.config import SSDConfig
        from ssd_nb.data.records import Dataset, Record
        from ssd_nb.data.loader import Loader
        print('started', flush=True)
        image = Path({str(root/'1.jpg')!r})
        h, w = {dataset.records[1].height}, {dataset.records[1].width}
        record = Record(image=image, image_id=1, height=h, width=w, boxes=np.array([[.1, .1, .8, .9]], np.float32),
                        labels=np.array([1], np.int32), crowd=np.array([False]), source='')
        data = Dataset(records=(record,)*8, classes=('a',), category_ids=(1,), ground_truth={{}})
        loader = Loader(data, SSDConfig.preset('tiny', batch_size=1), training=True, num_workers=2)
        ''') + textwrap.dedent(text))
    return subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, 'PYTHONPATH': str(ROOT)},
                            # a shell's background job ignores it
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def test_a_plain_script_runs_once_and_ends_by_itself(tmp_path, dataset):
    process = script(tmp_path, dataset, '''
        print(sum(1 for _ in loader.epoch(0)))
        next(loader.epoch(1)) # and left open
        ''')
    out, err = process.communicate(timeout=180)
    assert (out.split(), err, process.returncode) == (['started', '8'], '', 0)


@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='looks into /proc')
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_the_program(tmp_path, dataset, how):
    process = script(tmp_path, dataset, '''
        batches = loader.epoch(0)
        next(batches)
        print(*(w.process.pid for w in loader.workers.running), flush=True)
        time.sleep(60)
        ''')
    assert process.stdout.readline() == 'started\n'
    pids = process.stdout.readline().split()
    process.send_signal(how)
    process.communicate(timeout=180)
    def lives(pid):
        try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')')[-1].split()[0] != 'Z'
        except OSError: return False
    deadline = time.monotonic() + 15
    while any(map(lives, pids)) and time.monotonic() < deadline: time.sleep(.05)
    assert len(pids) == 2 and not any(map(lives, pids))


def test_no_framework_is_imported():
    code = 'import sys, ssd_nb.data.loader; sys.exit(bool({"torch", "mindspore"} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, timeout=180).returncode == 0
