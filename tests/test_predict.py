"Prediction: any image in, the pixels and the answers of evaluation out; files, mistakes and the command."
from __future__ import annotations
import json, os, subprocess, sys
import xml.etree.ElementTree as ET
from pathlib import Path
import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from conftest import BACKEND, command, lively_session
import ssd_nb
from ssd_nb.backends.families import COCO_CLASSES, COCO_IDS
from ssd_nb.checkpoint import save
from ssd_nb.config import SSDConfig
from ssd_nb.errors import ConfigError, DataError, UserError
from ssd_nb.data.dataset import open_dataset
from ssd_nb.eval import main as evaluate_main
from ssd_nb.data.loader import eval_batch
from ssd_nb.detector import detect, image_files, load_detector, classes_and_ids, square
from ssd_nb.images import pixels
from ssd_nb.predict import detect_files, main, number_images, picture_paths, predict, predict_parser
from ssd_nb.learning.drawings import CLASSES
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.video import video_targets, frames_of, opened

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
    assert classes_and_ids(SSDConfig(), {}) == (COCO_CLASSES, COCO_IDS)

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

def video(path, frames=6, size=(64, 48)):
    "A short video of noise."
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, size)
    rng = np.random.default_rng(0)
    for _ in range(frames): writer.write(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    writer.release()
    return path

@pytest.fixture(scope='module')
def inputs(cfg, checkpoint, tmp_path_factory):
    "Everything that a command line of the tables below may name."
    folder = mixed_folder(tmp_path_factory.mktemp('inputs')/'mixed')
    whole = video(folder.parent/'video.mp4')
    (folder.parent/'cut.mp4').write_bytes(whole.read_bytes()[:900])
    (folder.parent/'empty.avi').touch()
    (folder.parent/'words.mov').write_text('no video', encoding='utf-8')
    (folder.parent/'bare').mkdir()
    (folder.parent/'net.safetensors').write_bytes(checkpoint.read_bytes())
    (folder.parent/'half.safetensors').write_bytes(checkpoint.read_bytes()[:5000])
    (folder.parent/'torch.pth').write_bytes(b'PK\x03\x04' + b'1'*99)
    return folder.parent

MISTAKES = [ # arguments of `predict`, and what the sentence must say
    ('no.jpg', 'no.jpg: no such file or folder'),
    ('mixed/no*.jpg', 'no file fits it as a pattern'),
    ('bare', 'bare: the folder holds no files'),
    ('no.mp4', 'no.mp4: no such file'),
    ('cut.mp4', 'cut.mp4: not a readable video; is it whole'),
    ('empty.avi', 'empty.avi: not a readable video'),
    ('words.mov', 'words.mov: not a readable video'),
    ('video.mp4 cut.mp4', 'cut.mp4: not a readable video'),
    ('camera:77', 'camera:77: there is no such camera'),
    ('camera:front', 'camera:front: which camera? give its number'),
    ('mixed/[bcd].*', 'none of the 3 files is an image'),
    ('mixed --checkpoint_path no.safetensors', 'no.safetensors: no such checkpoint'),
    ('mixed --checkpoint_path openimags', 'did you mean openimages?'),
    ('mixed --checkpoint_path half.safetensors', 'half.safetensors: '),
    ('mixed --checkpoint_path torch.pth', 'torch.pth: '),
    ('mixed --checkpoint_path bare', 'last.safetensors: no such checkpoint'),
    ('mixed --min_score hous=.5', "min_score: no class 'hous'; did you mean house?; there are house, tree, "),
    ('mixed --min_score house=.5,house=.6', 'min_score: house occurs twice'),
    ('mixed --min_score .5,.6', 'min_score: a number for all others occurs twice'),
    ('mixed --min_score house=', "min_score: '' is not a number from 0 to 1"),
    ('mixed --min_score tree=high', "min_score: 'high' is not a number from 0 to 1"),
    ('mixed --min_score 1.5', "min_score: '1.5' is not a number from 0 to 1"),
    ('mixed --min_score nan', "min_score: 'nan' is not a number from 0 to 1"),
    ('mixed --nms_threshold 2', 'nms_threshold: 2.0 is above the greatest possible value'),
    ('mixed --max_boxes 0', 'max_boxes: 0 is below the least possible value'),
    ('mixed --tta twice', "tta: 'twice' is not one of none, flip"),
    ('mixed --agnostic_nms maybe', "agnostic_nms: 'maybe' is not"),
    ('mixed --frames -1', 'frames: -1 is below the least possible value'),
    ('mixed --frames many', 'argument --frames: invalid int value'),
    ('mixed --format xml', "argument --format: invalid choice: 'xml'"),
    ('mixed --backend jax', "backend: 'jax' is not one of"),
    ('mixed --batch_size 0', 'batch_size: 0 is below the least possible value'),
    ('mixed --class_num 3', 'class_num: 3 does not fit'),
    ('mixed/a.png --output_dir mixed', 'the picture would replace'),
    ('video.mp4 --output_dir .', 'the video would replace'),
    ('mixed --output_dir video.mp4', 'video.mp4'),
    ('mixed --config no.yaml', 'no.yaml: cannot be read as a YAML file')]

@pytest.mark.parametrize('words, message', MISTAKES)
def test_mistakes_name_place_and_remedy(words, message, inputs, monkeypatch, capsys):
    "One sentence, status 2, and nothing is written."
    monkeypatch.chdir(inputs)
    before = sorted(inputs.rglob('*'))
    args = words.split()
    if '--checkpoint_path' not in args: args += ['--checkpoint_path', 'net.safetensors']
    if '--output_dir' not in args: args += ['--output_dir', 'out']
    with pytest.raises(SystemExit) as e: main(args)
    err = capsys.readouterr().err
    assert e.value.code == 2 and message in err and 'Traceback' not in err, err
    assert sorted(inputs.rglob('*')) == before

def test_videos_are_looked_at_frame_by_frame(inputs, tmp_path, capsys):
    args = ['--checkpoint_path', str(inputs/'net.safetensors'), '--min_score', '.02', '--max_boxes', '3']
    main([str(inputs/'video.mp4'), str(inputs/'mixed'/'a.png'), *args, '--output_dir', str(tmp_path), '--frames', '4'])
    said = capsys.readouterr().out
    assert '4 frames at ' in said and ' frames per second' in said and '1 image, ' in said
    names = {'video.mp4', 'video-frames.json', 'a.png', 'predictions.json'}
    assert {p.name for p in tmp_path.iterdir()} == names
    rows = json.loads((tmp_path/'video-frames.json').read_text(encoding='utf-8'))
    assert {row['frame'] for row in rows} <= {0, 1, 2, 3} and all(row['seconds'] == row['frame']/10 for row in rows)
    with opened(tmp_path/'video.mp4') as capture: frames = list(frames_of(capture))
    assert [frame.shape for frame in frames] == [(48, 64, 3)]*4
    detector = load_detector(inputs/'net.safetensors', min_score=.02, max_boxes=3)
    with opened(inputs/'video.mp4') as capture: wanted = detect(list(frames_of(capture))[:4], detector)
    found = [sum(row['frame'] == k for row in rows) for k in range(4)]
    assert found == [len(d) for d in wanted] and sum(found)

@pytest.mark.parametrize('format, ending', [('yolo', '.txt'), ('voc', '.xml')])
def test_label_files_say_what_predictions_say(format, ending, inputs, tmp_path):
    args = ['--checkpoint_path', str(inputs/'net.safetensors'), '--min_score', '.02', '--max_boxes', '5']
    main([str(inputs/'mixed'), *args, '--output_dir', str(tmp_path), '--format', format])
    rows = predictions(tmp_path)
    for stem, name in (('a', 'a.jpg'), ('a-2', 'a.png')):
        boxes = np.array([row['bbox'] for row in rows if row['file_name'] == name])
        text = (tmp_path/f'{stem}{ending}').read_text(encoding='utf-8')
        if format == 'yolo':
            lines = np.array([line.split() for line in text.splitlines()], float)
            read = np.concatenate([lines[:, 1:3] - lines[:, 3:]/2, lines[:, 3:]], 1)*60
        else:
            corners = [[float(side.text) for side in box] for box in ET.fromstring(text).iter('bndbox')]
            read = np.array(corners) - np.array([[0, 0, *c[:2]] for c in corners])
        assert np.allclose(read, boxes, atol=.03)
    if format == 'yolo': assert (tmp_path/'classes.txt').read_text(encoding='utf-8').split() == list(CLASSES)
    again = [str(inputs/'mixed'), *args, '--output_dir', str(tmp_path), '--format', format]
    with pytest.raises(SystemExit): main(again) # labels are never replaced

def test_scores_by_class_are_what_a_filter_leaves(checkpoint):
    "Class by class, a threshold before NMS and one after it leave the same boxes."
    images = list(np.random.default_rng(0).integers(0, 256, (3, 90, 90, 3), np.uint8))
    every = detect(images, checkpoint, min_score=.01, max_boxes=10000)
    floors = {'house': .2, 'tree': .9, '': .05}
    some = detect(images, checkpoint, min_score=floors, max_boxes=10000)
    for found, kept in zip(every, some):
        least = np.array([floors.get(CLASSES[label - 1], .05) for label in found.labels])
        wanted = found.keep(found.scores > least)
        assert np.array_equal(wanted.boxes, kept.boxes) and np.array_equal(wanted.labels, kept.labels)
    assert sum(map(len, some)) and sum(map(len, some)) < sum(map(len, every))

def test_the_mirror_is_joined_before_nms(checkpoint):
    "Two looks at an image and its mirror image find the mirrored boxes of each other."
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    detector = load_detector(checkpoint, min_score=.05, tta='flip')
    here, there = detector([image, np.ascontiguousarray(image[:, ::-1])])
    assert len(here) and np.allclose(here.scores, there.scores, atol=1e-4)
    mirrored = there.boxes[:, [2, 1, 0, 3]]*(-1, 1, -1, 1) + (128, 0, 128, 0)
    assert np.allclose(mirrored, here.boxes, atol=.1)
    once, = detect(image, checkpoint, min_score=.05)
    assert here.scores[0] >= once.scores[0] - 1e-5

def test_what_detect_takes(checkpoint, tmp_path):
    folder = mixed_folder(tmp_path/'in')
    detector = load_detector(checkpoint)
    assert len(detect([str(folder/'a.*'), np.zeros((9, 9), np.uint8)], detector)) == 3
    with pytest.raises(DataError, match='b.png'): detect(folder, detector)
    for wrong in (tmp_path/'no', f'{folder}/*.txt'):
        with pytest.raises(UserError): detect(wrong, detector)
    with pytest.raises(ConfigError, match='made already'): detect(folder/'a.png', detector, min_score=.1)
    found, = ssd_nb.detect(folder/'a.png', checkpoint, min_score=.02)
    assert found.names == ('background', *CLASSES) and found.size == (60, 60) and found._repr_png_()[:4] == b'\x89PNG'
    assert found.image == folder/'a.png' and len(found.crop()) == len(found) and 'score' in str(found)
    with pytest.raises(AttributeError, match='detekt'): _ = ssd_nb.detekt

def test_the_name_of_a_label_is_at_its_place(checkpoint):
    "Labels count from 1; `names` begins with the background, so that nobody is off by one."
    found, = detect(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8), checkpoint, min_score=.02)
    names = [found.names[label] for label in found.labels]
    assert names == [CLASSES[label - 1] for label in found.labels] == [found.called(label) for label in found.labels]
    assert names == [line.split()[0] for line in str(found).splitlines()[1:]] and len(names)

SCRIPT = '''
import ssd_nb
found = ssd_nb.detect('in/a.png', 'net.safetensors', num_workers=2)
print(type(found[0]).__name__)
'''

def test_two_lines_in_a_script_without_a_guard(inputs, tmp_path):
    mixed_folder(tmp_path/'in')
    (tmp_path/'net.safetensors').write_bytes((inputs/'net.safetensors').read_bytes())
    (tmp_path/'script.py').write_text(SCRIPT, encoding='utf-8')
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1])}
    line = [sys.executable, 'script.py']
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0 and done.stdout.strip() == 'Detections', done.stderr

@pytest.mark.parametrize('args, message', [
    (['no.jpg'], 'no.jpg'), (['no*.jpg'], 'pattern'), (['.', '--checkpoint_path', 'no.safetensors'], 'no.safetensors'),
    (['--checkpoint_path', 'x'], 'IMAGE'), (['.', '--min_scor', '.5'], '--min_score')])
def test_mistakes_end_in_a_sentence(args, message, tmp_path):
    (tmp_path/'file.txt').write_text('x', encoding='utf-8')
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1])}
    done = command('predict', *args, status=2, cwd=tmp_path, env=env)
    assert message in done.stderr and [p.name for p in tmp_path.iterdir()] == ['file.txt']

@pytest.fixture
def run(checkpoint, tmp_path):
    "A run folder, as a training leaves it."
    folder = tmp_path/'pets-001'
    folder.mkdir()
    (folder/'last.safetensors').write_bytes(checkpoint.read_bytes())
    for name in ('metrics.csv', 'predictions.json'): (folder/name).write_text('own')
    return folder

def test_a_run_comes_first_as_for_eval(run, inputs, tmp_path, capsys):
    main([str(run), str(inputs/'mixed'/'a.png'), '--output_dir', str(tmp_path/'out')])
    said = capsys.readouterr().out
    assert said.startswith(f'weights: {run}/last.safetensors') and '1 image, ' in said
    main([str(inputs/'net.safetensors'), str(inputs/'mixed'/'a.png'), '--output_dir', str(tmp_path/'out')])
    assert '1 image, ' in capsys.readouterr().out
    with pytest.raises(SystemExit): main([str(run)])
    assert 'images: which? name pictures' in capsys.readouterr().err

def test_a_run_keeps_its_files(run, inputs, capsys):
    before = sorted(run.iterdir())
    with pytest.raises(SystemExit): main([str(run), str(inputs/'mixed'), '--output_dir', str(run)])
    assert 'holds a training run already' in capsys.readouterr().err and sorted(run.iterdir()) == before
    assert (run/'predictions.json').read_text() == 'own'

def test_no_picture_takes_the_name_of_another_file(tmp_path):
    paths = [tmp_path/name for name in ('a.png', 'a.jpg', 'a-2.png', 'demo.png', 'classes.jpg')]
    names = [p.name for p in picture_paths(paths, tmp_path/'out', taken=('demo', 'classes')).values()]
    assert names == ['a.png', 'a-2.png', 'a-2-2.png', 'demo-2.png', 'classes-2.png']
    videos = video_targets([Path('a/pan.mp4'), Path('b/pan.mp4'), Path('pan-2.avi')], tmp_path)
    assert [p.name for p in videos.values()] == ['pan.mp4', 'pan-2.mp4', 'pan-2-2.mp4']

def test_a_run_is_not_taken_for_pictures(checkpoint):
    (checkpoint.parent/'metrics.csv').touch()
    with pytest.raises(UserError, match='a training run, not pictures.*--checkpoint_path'):
        ssd_nb.detect(str(checkpoint.parent))

def test_flags_may_stand_between_the_run_and_the_pictures():
    args = predict_parser().parse_args(['runs/pets-001', '--min_score', '.3', 'photo.jpg', '--format', 'yolo', 'more'])
    assert args.images == ['runs/pets-001', 'photo.jpg', 'more'] and args.format == 'yolo'
