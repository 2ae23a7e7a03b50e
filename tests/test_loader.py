"The loader: the same batches whoever prepares them, faults named, and workers that end with their program."
import os, signal, subprocess, sys, textwrap, time
from dataclasses import replace
from pathlib import Path
import cv2
import numpy as np
import pytest
from conftest import encoded, smooth
from hypothesis import given, strategies as st
from PIL import Image
from ssd_nb.images import load_image
from ssd_nb.learning.augment import resize
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.data.records import Dataset, Record
from ssd_nb.errors import DataError
from ssd_nb.data.loader import Loader, eval_batches, spread, train_batches, train_sample
from ssd_nb.data.workers import LoaderError

CFG = SSDConfig.preset('tiny', batch_size=4)
ROOT = Path(__file__).parent.parent


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
    for other in (sample(replace(CFG, seed=CFG.seed + 1), 3, 1), sample(CFG, 4, 1), sample(CFG, 3, 2)):
        assert not np.array_equal(base, other)
    batch = next(Loader(dataset, replace(CFG, batch_size=1), training=True, num_workers=0).epoch(3))
    index = int(batch.image_ids[0]) - 1000
    assert np.array_equal(batch.images[0], train_sample(dataset.records[index], CFG, 3, index)[0])


def test_images_without_objects_are_left_out_or_learnt_as_background(dataset):
    def images(**values):
        cfg = replace(CFG, batch_size=2, **values)
        batches = [b for e in range(3) for b in Loader(dataset, cfg, training=True, num_workers=0).batches(e)]
        return {int(i) for b in batches for i in b}
    assert images() == set(range(11)) - {5} # where there is only a crowd, there is something: no background
    assert images(background='drop') == set(range(11)) - {4, 5}
    assert images(protocol='reference') == set(range(11)) - {4} # which learns crowds
    assert images(protocol='reference', background='keep') == set(range(11))
    few = replace(dataset, records=dataset.records[3:5])
    with pytest.raises(DataError, match='1 training images are too few'): # one alone would be a step without objects
        Loader(few, replace(CFG, batch_size=1, background='drop'), training=True, world=2)


def test_background_changes_nothing_where_there_is_none(dataset):
    full = replace(dataset, records=tuple(r for r in dataset.records if len(r.labels)))
    def batches(background):
        loader = Loader(full, replace(CFG, background=background), training=True, num_workers=0)
        return [b for e in range(2) for b in loader.epoch(e)]
    assert all(same(a, b) for a, b in zip(batches('keep'), batches('drop'), strict=True))


@given(st.integers(1, 12), st.integers(0, 60), st.integers(1, 9), st.integers(0, 3))
def test_every_step_has_an_image_with_objects(objects, background, size, seed):
    order = np.random.default_rng(seed).permutation(objects + background)
    even = spread(order, np.arange(len(order)) >= objects, size)
    assert len(set(even)) == len(even) == min(len(order), size*objects)
    steps = train_batches(even, size)
    assert (steps < objects).any(1).all() # the background has the higher numbers
    if len(steps): assert np.ptp((steps < objects).sum(1)) <= 1 + (size > len(order)//max(objects, 1))


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
        empty = {r.image_id for r in photographs.records if not len(r.labels)}
        assert len(wanted) == 3 and bool(empty) == (protocol == 'standard')
        for b in wanted: assert [n == 0 for n in b.num_matched] == [i in empty for i in b.image_ids]
        matched[protocol] = sum(b.num_matched.sum() for b in wanted)
    assert matched['standard'] != matched['reference']


# Faults

def test_too_few_images_are_refused_with_a_remedy(dataset):
    def refused(match, world=1, **values):
        with pytest.raises(DataError, match=match): Loader(dataset, replace(CFG, **values), training=True, world=world)
    refused('10 training images.*--batch_size 10 or less', batch_size=11)
    refused('--batch_size 5 or less', world=2, batch_size=6)
    refused('add images', world=16)
    with pytest.raises(ValueError, match='rank 2'): Loader(dataset, CFG, training=False, rank=2, world=2)


@pytest.mark.parametrize('num_workers', [0, 1])
def test_an_unreadable_image_is_named(dataset, tmp_path, num_workers):
    path = tmp_path/'torn.jpg'
    image = Image.fromarray(smooth(np.random.default_rng(7), 40, 56))
    path.write_bytes(encoded(image, 'JPEG')[:-30])
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
