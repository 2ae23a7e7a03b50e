"""Evaluation as a command: files, numbers, protocols in one pass, batch sizes and processes, three kinds of data, both
backends."""
from __future__ import annotations
import json
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from conftest import BACKEND, FRAMEWORKS, command, lively_session, perfect
from ssd_nb.networks.table import initial_state
from ssd_nb.backends.session import make_session
from ssd_nb.checkpoint import save
from ssd_nb.detection.coco_eval import evaluate
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.eval import evaluate_by, main, variants
from ssd_nb.training.evaluation import (
    MOST, confident, count_kinds, curves_picture, detect_all, detect_by, kinds_by_image, rank_images, review_picture)
from ssd_nb.detection.detections import Detections
from ssd_nb.learning.shapes import write_shapes

RULES = {name: SSDConfig(protocol=name).rules for name in ('standard', 'reference')}

@pytest.fixture(scope='module')
def cfg(tmp_path_factory):
    root = write_shapes(tmp_path_factory.mktemp('data')/'shapes', train=4, val=11)
    return SSDConfig.preset('tiny', backend=BACKEND, coco_root=str(root), num_workers=0, device='cpu', batch_size=4,
                            norm_momentum=.5)

@pytest.fixture(scope='module')
def lively(cfg):
    "A state whose answers differ from image to image, few of them with high scores."
    return lively_session(cfg, shy=4).get_state()

@pytest.fixture(scope='module')
def checkpoint(cfg, lively, tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoints')/'lively.safetensors'
    save(path, lively, cfg)
    return path

@pytest.fixture(scope='module')
def session(cfg, lively, backend):
    session = make_session(backend, cfg, training=False)
    session.set_state(lively)
    return session

def same(a, b):
    "Whether two evaluations found the same objects."
    def alike(i): return np.array_equal(a[i].labels, b[i].labels) and np.allclose(a[i].boxes, b[i].boxes, atol=.01)
    return a.keys() == b.keys() and all(alike(i) for i in a)

def test_any_batch_size_and_number_of_processes(cfg, session):
    "Every image once, and the same answers."
    dataset = open_dataset(cfg, training=False)
    first = detect_all(session, dataset, cfg, progress=False)
    assert list(first) == [r.image_id for r in dataset.records] and len(first) == 11
    for other in (dict(batch_size=1), dict(batch_size=11), dict(batch_size=100), dict(num_workers=3)):
        assert same(first, detect_all(session, dataset, cfg.replace(**other), progress=False)), other

def test_both_protocols_in_one_pass(cfg, session, monkeypatch):
    "Each gives what it gives alone, and the network saw every image once."
    cfgs, seen, predict = variants(cfg, both=True, quirks=True), [], session.predict
    datasets = {name: open_dataset(c, training=False) for name, c in cfgs.items()}
    monkeypatch.setattr(session, 'predict', lambda images: seen.append(len(images)) or predict(images))
    results = evaluate_by(session, cfgs, datasets, progress=False)
    assert sum(seen) == 11
    for name in RULES:
        alone = detect_all(session, datasets[name], cfg.replace(protocol=name), progress=False)
        assert same(alone, results[name].detections)
        assert evaluate(alone, datasets[name], RULES[name]).lines == results[name].report.lines
    for rule in ('every_image', 'min_score', 'per_class_limit', 'nms_offset', 'all_categories'):
        changed = SSDConfig(**{rule: getattr(RULES['reference'], rule)}).rules
        mixed = next(c for c in cfgs.values() if c.rules == changed)
        assert mixed.image_shape == cfg.image_shape and mixed.num_boxes == cfg.num_boxes

def test_files_and_lines_of_the_command(checkpoint, cfg, tmp_path):
    done = command('eval', '--checkpoint_path', checkpoint, '--protocol', 'both', '--quirks', '--voc_metric',
                   '--output_dir', tmp_path/'out')
    assert done.stdout.count('mAP: ') == 2 and done.stdout.count('Average Precision') == 12
    assert done.stdout.count('11-point') == 2
    assert 'NMS with areas a pixel larger' in done.stdout
    for name in RULES:
        folder = tmp_path/'out'/name
        pictures, numbers = ('precision.png', 'detections.png', 'review.png'), ('predictions.json', 'report.json')
        assert {p.name for p in folder.iterdir()} == {*pictures, *numbers}
        report = json.loads((folder/'report.json').read_text(encoding='utf-8'))
        assert report['protocol'] == name and report['rules']['min_score'] == RULES[name].min_score
        assert report['images'] == 11 and set(report['voc']) <= set(report['per_class'])
        for picture in ('precision', 'review'):
            assert np.asarray(Image.open(folder/f'{picture}.png').convert('L')).std() > 10

def averages(text):
    "The lines of a COCO report."
    return [line for line in text.splitlines() if line.startswith(' Average')]

def test_results_of_the_file_are_judged_alike(checkpoint, cfg, tmp_path, capsys):
    "pycocotools by hand on predictions.json."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    main(['--checkpoint_path', str(checkpoint), '--output_dir', str(tmp_path/'out')])
    printed = capsys.readouterr().out
    truth = COCO(f'{cfg.coco_root}/annotations/instances_val.json')
    judge = COCOeval(truth, truth.loadRes(str(tmp_path/'out'/'predictions.json')), 'bbox')
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert averages(capsys.readouterr().out) == averages(printed)
    assert json.loads((tmp_path/'out'/'report.json').read_text(encoding='utf-8'))['AP'] == judge.stats[0]

@pytest.mark.parametrize('args, message', [
    (['--protocol', 'bth'], 'protocol'), (['--protocol', 'both', '--coco_root', '/no/such'], '/no/such'),
    (['--quirk'], '--quirks'), (['--class_num', '4'], '')])
def test_mistakes_end_in_a_sentence(checkpoint, args, message, tmp_path, capsys):
    files = ['--checkpoint_path', str(checkpoint), '--output_dir', str(tmp_path/'out')]
    with pytest.raises(SystemExit) as e: main([*files, *args])
    assert e.value.code == 2 and message in capsys.readouterr().err and not (tmp_path/'out').exists()

def test_a_run_by_its_folder(cfg, lively, tmp_path, capsys):
    "The last state is taken and named, and the best one beside it; other pictures have a folder with their name."
    run = tmp_path/'pets-001'
    for name, epoch in (('last', 16), ('best', 12)):
        save(run/f'{name}.safetensors', lively, cfg, epoch=epoch, best=.7)
    for name in ('metrics.csv', 'report.json', 'predictions.json', 'curves.png'): (run/name).write_text('own')
    main([str(run)])
    said = capsys.readouterr().out
    assert f'{run}/last.safetensors, after epoch 16' in said and f'0.700: {run}/best.safetensors' in said
    holidays = write_shapes(tmp_path/'holidays', train=1, val=2)
    main([str(run), str(holidays)])
    main([str(holidays), '--checkpoint_path', f'{run}/best.safetensors'])
    assert f'{run}/best.safetensors, after epoch 12' in capsys.readouterr().out
    folders = {p.parent.name: json.loads(p.read_text()) for p in run.glob('*/report.json')}
    assert {name: report['images'] for name, report in folders.items()} == {
        'eval-001': 11, 'eval-holidays-001': 2, 'eval-holidays-002': 2}
    for name in ('metrics.csv', 'report.json', 'predictions.json', 'curves.png'): assert (run/name).read_text() == 'own'

@pytest.mark.parametrize('name', ['metrics.csv', 'report.json', 'standard/predictions.json'])
def test_nothing_is_replaced(name, checkpoint, tmp_path, capsys):
    (tmp_path/'out'/'standard').mkdir(parents=True)
    (tmp_path/'out'/name).write_text('own')
    before = sorted(tmp_path.rglob('*'))
    words = [str(checkpoint), '--output_dir', str(tmp_path/'out'), '--protocol', 'both']
    with pytest.raises(SystemExit): main(words)
    assert 'already, and nothing is replaced; name a new folder' in capsys.readouterr().err
    assert sorted(tmp_path.rglob('*')) == before and (tmp_path/'out'/name).read_text() == 'own'

@pytest.mark.parametrize('found', ['all', 'nothing'])
def test_pictures_of_extreme_detectors(cfg, found):
    dataset = open_dataset(cfg, training=False)
    detections, objects = perfect(dataset), sum(len(r.labels) for r in dataset.records)
    if found == 'nothing': detections = {i: confident(d, 2) for i, d in detections.items()}
    kinds, report = kinds_by_image(dataset, detections), evaluate(detections, dataset)
    ranks = rank_images(kinds)
    assert report.mAP == (1 if found == 'all' else 0) and {k.f1 for k in kinds} == {1. if found == 'all' else 0.}
    fig = review_picture(dataset, detections, columns=2)
    titles = [ax.get_title() for ax in fig.axes] # perfect: nothing is the worst; else best, worst, missed
    assert len(titles) == len(set(titles)) == (2 if found == 'all' else 6) # each image once, by the name of its file
    assert all(title.split(', F1')[0] in {Path(r.image).name for r in dataset.records} for title in titles)
    assert curves_picture(report)
    assert bool(ranks['missed']) == (found == 'nothing') and not ranks['false alarm']
    assert count_kinds(kinds)['missed'].sum() == (0 if found == 'all' else objects)

def test_crowded_answers_stay_drawable(cfg, session):
    dataset = open_dataset(cfg, training=False)
    detections = detect_all(session, dataset, cfg.replace(min_score=.01, max_boxes=400), progress=False)
    flat = {i: Detections(d.boxes, np.full_like(d.scores, .9), d.labels) for i, d in detections.items()}
    fig = review_picture(dataset, flat, columns=1)
    assert max(len(ax.patches) for ax in fig.axes) <= MOST + max(len(r.labels) for r in dataset.records)

def txt_row(record):
    "An image and its objects as a row of a TXT file."
    corners = record.boxes[:, [1, 0, 3, 2]]*([record.width, record.height]*2) # x before y
    objects = [','.join(map(str, [*box, label])) for box, label in zip(corners.tolist(), record.labels)]
    return ' '.join([str(record.image), *objects])

@pytest.mark.parametrize('kind', ['voc', 'txt'])
def test_other_kinds_of_data(kind, sample_data, tmp_path, capsys):
    root = sample_data('bccd')
    flags = dict(dataset='voc', voc_root=str(root))
    voc = open_dataset(SSDConfig(class_num=4, **flags), training=False)
    if kind == 'txt':
        rows = [txt_row(r) for r in voc.records[:9]]
        (tmp_path/'rows.txt').write_text('\n'.join(rows) + '\n', encoding='utf-8')
        flags = dict(dataset='txt', anno_path=str(tmp_path/'rows.txt'), classes=voc.classes)
    cfg = SSDConfig.preset('tiny', backend=BACKEND, class_num=4, device='cpu', num_workers=0, **flags)
    file, out = tmp_path/'fresh.safetensors', tmp_path/'out'
    save(file, initial_state(cfg), cfg)
    main(['--checkpoint_path', str(file), '--output_dir', str(out), '--voc_metric', '--min_score', '.6'])
    report = json.loads((out/'report.json').read_text(encoding='utf-8'))
    assert report['images'] == len(open_dataset(cfg, training=False).records)
    assert 'mAP: ' in capsys.readouterr().out and len(report['voc']) == 3
    if kind == 'txt':
        words = ['--checkpoint_path', str(file), '--output_dir', str(tmp_path/'both'), '--protocol', 'both']
        with pytest.raises(SystemExit): main(words)
        assert '--protocol standard' in capsys.readouterr().err and not (tmp_path/'both').exists()

def test_both_backends_agree(cfg, lively):
    if len(FRAMEWORKS) < 2: pytest.skip('needs both frameworks')
    sessions = [make_session(name, cfg, training=False) for name in FRAMEWORKS]
    for s in sessions: s.set_state(lively)
    dataset = open_dataset(cfg, training=False)
    dataset = replace(dataset, records=dataset.records[:4])
    a, b = (detect_by(s, dataset, [cfg.replace(min_score=.05)], progress=False)[0] for s in sessions)
    alike = [i for i in a if len(a[i]) == len(b[i])] # a score at the limit may be above it in one only
    assert len(alike) >= 3
    assert all(np.abs(a[i].scores - b[i].scores).max(initial=0) < 1e-3 for i in alike)
