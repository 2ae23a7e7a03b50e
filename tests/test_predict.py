"Prediction: any image in, the pixels and the answers of evaluation out; files, mistakes and the command."
from __future__ import annotations
import json, os
from pathlib import Path
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from conftest import BACKEND, command, lively_session
from ssd_nb.checkpoint import save
from ssd_nb.config import SSDConfig
from ssd_nb.errors import DataError, UserError
from ssd_nb.data.dataset import open_dataset
from ssd_nb.eval import main as evaluate_main
from ssd_nb.data.loader import eval_batch
from ssd_nb.backends.families import COCO_CLASSES, COCO_IDS
from ssd_nb.predict import (
    detect, detect_files, image_files, load_detector, main, names_and_ids, number_images, pixels, predict, square)
from ssd_nb.learning.shapes import write_shapes

@pytest.fixture(scope='module')
def cfg(tmp_path_factory):
    root = write_shapes(tmp_path_factory.mktemp('data')/'shapes', train=1, val=7)
    return SSDConfig.preset('tiny', backend=BACKEND, coco_root=str(root), num_workers=2, device='cpu', batch_size=3,
                            norm_momentum=.5)

@pytest.fixture(scope='module')
def checkpoint(cfg, tmp_path_factory):
    "A network whose answers differ from image to image, few of them with high scores; it remembers its category ids."
    path, dataset = tmp_path_factory.mktemp('run')/'last.safetensors', open_dataset(cfg, training=False)
    state = lively_session(cfg, shy=3).get_state()
    save(path, state, cfg.replace(classes=dataset.classes), category_ids=dataset.category_ids)
    return path

def predictions(folder): return json.loads((folder/'predictions.json').read_text(encoding='utf-8'))

def test_the_answers_of_evaluation(cfg, checkpoint, tmp_path, capsys):
    "The same files by the two commands: the same predictions.json, but for the names."
    evaluate_main(['--checkpoint_path', str(checkpoint), '--output_dir', str(tmp_path/'eval')])
    records = open_dataset(cfg, training=False).records
    main([*(str(r.image) for r in records), '--checkpoint_path', str(checkpoint), '--min_score', '.01',
          '--output_dir', str(tmp_path/'predict'), '--num_workers', '2'])
    ids = {r.image.name: r.image_id for r in records}
    judged, seen = predictions(tmp_path/'eval'), predictions(tmp_path/'predict')
    assert len(judged) == len(seen) > 20
    for a, b in zip(judged, seen):
        assert a['image_id'] == ids[b['file_name']] and a['category_id'] == b['category_id']
        assert np.allclose(a['bbox'], b['bbox'], atol=.01) and abs(a['score'] - b['score']) < 1e-4
    pictures = {f'{r.image.stem}.png' for r in records}
    assert {p.name for p in (tmp_path/'predict').iterdir()} == {'predictions.json', *pictures}

def test_paths_pictures_and_arrays(cfg, checkpoint, tmp_path):
    detector = load_detector(checkpoint, min_score=.02)
    image = np.random.default_rng(0).integers(0, 256, (150, 210, 3), np.uint8)
    Image.fromarray(image).save(path := tmp_path/'noise.png')
    results = detect([path, str(path), Image.open(path), image], detector)
    assert all(np.array_equal(r.boxes, results[0].boxes) for r in results) and len(results[0])
    assert np.array_equal(detect(image, detector)[0].boxes, results[0].boxes)
    assert len(detect(np.stack([image, image]), detector)) == 2 and detect([], detector) == []
    assert (results[0].boxes >= 0).all() and (results[0].boxes <= [210, 150, 210, 150]).all()

def test_turned_photographs(checkpoint, tmp_path):
    "EXIF says how a photograph is held; boxes are in the picture as it is shown."
    image = np.random.default_rng(1).integers(0, 256, (80, 160, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(path := tmp_path/'turned.png', exif=exif)
    assert pixels(path).shape == pixels(Image.open(path)).shape == (160, 80, 3)
    (small, shape), (other, other_shape) = square(path, 64), square(Image.open(path), 64)
    assert shape == other_shape == (160, 80) and np.array_equal(small, other)

def test_pixels_are_those_of_evaluation(sample_data):
    records = open_dataset(SSDConfig(coco_root=str(sample_data('coco-tiny'))), training=False).records[:6]
    batch = eval_batch(records, SSDConfig())
    for k, r in enumerate(records):
        found, shape = square(r.image, 300)
        assert np.array_equal(found, batch.images[k]) and tuple(shape) == (r.height, r.width)
        assert square(pixels(r.image), 300)[0].shape == found.shape

def test_coco_names(sample_data):
    dataset = open_dataset(SSDConfig(coco_root=str(sample_data('coco-tiny'))), training=False)
    assert COCO_CLASSES == dataset.classes and COCO_IDS == dataset.category_ids
    assert names_and_ids(SSDConfig(), {}) == (COCO_CLASSES, COCO_IDS)

@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(['a', '7', '007', 'b.c', '8', 'photo 1']), min_size=1, unique=True),
       st.sampled_from(['', 'x', '3']))
def test_image_ids_are_unique_and_lasting(stems, folder):
    paths = [Path(folder)/f'{s}.jpg' for s in stems]
    ids = number_images(paths)
    assert len(set(ids.values())) == len(paths) and all(0 <= i < 2**31 for i in ids.values())
    assert ids == number_images(paths)

def mixed_folder(folder):
    "Two images, b.png cut off, c.jpg empty, d.txt with text, a hidden file and a folder."
    folder.mkdir()
    good = Image.fromarray(np.full((60, 60, 3), 90, np.uint8))
    for name in ('a.png', 'a.jpg'): good.save(folder/name)
    (folder/'b.png').write_bytes((folder/'a.png').read_bytes()[:80])
    (folder/'c.jpg').write_bytes(b'')
    for name in ('d.txt', '.hidden'): (folder/name).write_text('hello', encoding='utf-8')
    (folder/'sub').mkdir()
    return folder

def test_what_is_no_image_is_passed_over(checkpoint, tmp_path, capsys):
    folder, detector = mixed_folder(tmp_path/'in'), load_detector(checkpoint)
    files = image_files([str(folder), str(folder/'a.png')])
    assert [p.name for p in files] == ['a.jpg', 'a.png', 'b.png', 'c.jpg', 'd.txt']
    rows = predict(image_files([str(folder)]), detector, tmp_path/'out')
    out = capsys.readouterr()
    assert out.err.count('skipped ') == 3 and 'd.txt: not a readable image' in out.err
    assert '2 images, ' in out.out and predictions(tmp_path/'out') == rows
    assert {p.name for p in (tmp_path/'out').iterdir()} == {'a.png', 'a-2.png', 'predictions.json'}
    with pytest.raises(UserError, match='none of the 3 files'):
        predict(image_files([f'{folder}/[bcd].*']), detector, tmp_path/'none')
    with pytest.raises(UserError, match='would replace'): predict([folder/'a.png'], detector, folder)
    with pytest.raises(DataError, match='d.txt'): detect(folder/'d.txt', checkpoint)
    both = [found for _, found in detect_files([folder/'d.txt', folder/'a.png'], detector)]
    assert [type(found).__name__ for found in both] == ['DataError', 'Detections']

@pytest.mark.parametrize('args, message', [
    (['no.jpg'], 'no.jpg'), (['no*.jpg'], 'pattern'), (['.', '--checkpoint_path', 'no.safetensors'], 'no.safetensors'),
    (['--checkpoint_path', 'x'], 'IMAGE'), (['.', '--min_scor', '.5'], '--min_score')])
def test_mistakes_end_in_a_sentence(args, message, tmp_path):
    (tmp_path/'file.txt').write_text('x', encoding='utf-8')
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1])}
    done = command('predict', *args, status=2, cwd=tmp_path, env=env)
    assert message in done.stderr and [p.name for p in tmp_path.iterdir()] == ['file.txt']
