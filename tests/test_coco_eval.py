"The twelve numbers against pycocotools called by hand, VOC's AP against scikit-learn, perfect and empty detectors on photographs' annotations."
from __future__ import annotations
import json
from dataclasses import replace
import numpy as np
import pytest
from conftest import perfect
from hypothesis import given, settings, strategies as st
from ssd_nb.detection.coco_eval import (
    STATS, class_table, evaluate, evaluated_images, format_report, objects_by_image, overlaps, pr_curve,
    to_coco_results, voc_ap)
from ssd_nb.detection.mistakes import error_kinds, show_errors
from ssd_nb.detection.voc_eval import voc_scores
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.data.records import Dataset
from ssd_nb.detection.postprocess import Detections

STANDARD, REFERENCE = SSDConfig().rules, SSDConfig(protocol='reference').rules

def detections(boxes, scores, labels):
    order = np.argsort(-np.asarray(scores, float), kind='stable')
    return Detections(np.asarray(boxes, np.float32).reshape(-1, 4)[order], np.asarray(scores, np.float32)[order], np.asarray(labels, np.int32)[order])

def made_up(seed, images=12, first_id=0, crowds=True):
    "A data set of boxes of all sizes with gaps in its ids, some crowds and some empty images, and a mediocre detector's answer."
    rng, annotations, found, ids = np.random.default_rng(seed), [], {}, [10 + 7*i for i in range(images)]
    for image in ids:
        n = int(rng.integers(0, 7)); side = rng.choice([15., 60., 200.], (n, 2))*rng.uniform(.7, 1.4, (n, 2))
        low, label = rng.uniform(0, 400, (n, 2)), rng.integers(1, 4, n)
        annotations += [dict(id=first_id + len(annotations) + k, image_id=image, category_id=int(5*c), bbox=[*l, *s], area=.8*s[0]*s[1],
                             iscrowd=int(crowds and rng.random() < .15))
                        for k, (l, s, c) in enumerate(zip(low.tolist(), side.tolist(), label))]
        boxes = np.concatenate([low, low + side], 1)
        boxes = np.concatenate([boxes + rng.normal(0, 6, boxes.shape), boxes + rng.normal(0, 25, boxes.shape),
                                rng.uniform(0, 200, (3, 4)) + (0, 0, 200, 200)])
        labels = np.concatenate([label, label, rng.integers(1, 4, 3)])
        if rng.random() < .9: found[image] = detections(boxes, np.round(rng.random(len(boxes)), 1), labels) # with ties
    truth = dict(images=[dict(id=i, width=640, height=640, file_name=f'{i}.jpg') for i in ids], annotations=annotations,
                 categories=[dict(id=5*c, name=n) for c, n in enumerate(('ant', 'bee', 'cow'), 1)])
    return Dataset((), ('ant', 'bee', 'cow'), (5, 10, 15), truth), found

def by_hand(dataset, found, images, categories, folder):
    "pycocotools as its own example uses it: from files."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    (folder/'truth.json').write_text(json.dumps(dataset.ground_truth))
    rows = [dict(image_id=i, category_id=5*int(c), score=float(s), bbox=[float(b[0]), float(b[1]), float(b[2]) - float(b[0]), float(b[3]) - float(b[1])])
            for i, d in found.items() for b, s, c in zip(d.boxes, d.scores, d.labels) if i in images]
    (folder/'found.json').write_text(json.dumps(rows))
    truth = COCO(str(folder/'truth.json'))
    judge = COCOeval(truth, truth.loadRes(str(folder/'found.json')), 'bbox')
    judge.params.imgIds, judge.params.catIds = images, categories
    judge.evaluate(); judge.accumulate()
    return judge

@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('rules', [STANDARD, REFERENCE], ids=['standard', 'reference'])
def test_twelve_numbers_and_lines_are_those_of_pycocotools(seed, rules, tmp_path, capsys):
    dataset, found = made_up(seed, first_id=1)
    truth = dataset.ground_truth['annotations']
    crowded, annotated = {a['image_id'] for a in truth if a['iscrowd']}, {a['image_id'] for a in truth}
    images = [i['id'] for i in dataset.ground_truth['images']] if rules is STANDARD else sorted(annotated - crowded)
    judge = by_hand(dataset, found, images, [5, 10, 15], tmp_path)
    capsys.readouterr(); judge.summarize(); expected = capsys.readouterr().out.splitlines()
    report = evaluate(found, dataset, rules)
    assert capsys.readouterr().out == '' # evaluate prints nothing
    assert list(report.lines) == expected and list(report.stats) == list(STATS) and list(report.stats.values()) == judge.stats.tolist()
    assert evaluated_images(dataset, rules) == images and report.images == len(images)
    p = judge.eval['precision'][:, :, :, 0, 2]
    for k, (name, c) in enumerate(report.per_class.items()):
        assert c['AP'] == pytest.approx(p[:, :, k].mean()) and np.array_equal(pr_curve(report, .75, name)[1], p[5, :, k])
    assert np.mean([c['AP'] for c in report.per_class.values()]) == pytest.approx(report.mAP)

def test_annotation_ids_do_not_matter():
    "pycocotools takes the id 0 for 'no match'."
    (a, found), (b, _) = made_up(1, first_id=0), made_up(1, first_id=1000)
    assert evaluate(found, a).lines == evaluate(found, b).lines
    assert {x['id'] for x in a.ground_truth['annotations']} >= {0} # the truth itself is left as it was

def test_a_subset_of_the_classes():
    dataset, found = made_up(2)
    bees = Dataset((), ('bee',), (10,), dataset.ground_truth)
    only = {i: Detections(d.boxes[d.labels == 2], d.scores[d.labels == 2], np.ones((d.labels == 2).sum(), np.int32)) for i, d in found.items()}
    full, subset, over_all = evaluate(found, dataset), evaluate(only, bees), evaluate(only, bees, SSDConfig(all_categories=True).rules)
    assert list(subset.per_class) == ['bee'] and subset.mAP == pytest.approx(full.per_class['bee']['AP'])
    assert list(over_all.per_class) == ['ant', 'bee', 'cow'] and over_all.mAP == pytest.approx(subset.mAP/3)

def test_nothing_to_find_and_nothing_found():
    dataset, found = made_up(3)
    empty = Dataset((), dataset.classes, dataset.category_ids, dataset.ground_truth | dict(annotations=[]))
    assert evaluate(found, empty).mAP == -1 and 'no object' in evaluate(found, empty).note
    assert evaluate({}, dataset).mAP == 0 and 'Nothing was detected' in format_report(evaluate({}, dataset))
    assert evaluate(found, empty, REFERENCE).images == 0 and evaluate({}, empty).mAP == -1
    assert class_table(evaluate(found, empty)).count('-') == 9 and voc_scores(found, empty) == {} and (pr_curve(evaluate({}, empty))[1] == -1).all()
    with pytest.raises(ValueError, match='1 images that the data set does not have, such as image 3'): evaluate({3: found[10]}, dataset)

@pytest.fixture
def photographs(sample_data):
    root = sample_data('coco-tiny')
    return open_dataset(SSDConfig(coco_root=str(root)), training=False)

@pytest.mark.parametrize('rules', [STANDARD, REFERENCE], ids=['standard', 'reference'])
def test_a_perfect_detector_scores_one_and_an_empty_one_zero(photographs, rules):
    report = evaluate(perfect(photographs), photographs, rules)
    assert all(report.stats[k] == pytest.approx(1) for k in ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR100')) and report.note == ''
    assert format_report(report).splitlines()[-1].startswith('mAP: 0.99999') or format_report(report).endswith('mAP: 1.0')
    nothing = evaluate({}, photographs, rules)
    assert nothing.mAP == 0 and len(nothing.lines) == 12 and nothing.images == report.images

def test_records_and_ground_truth_agree(photographs):
    truth = objects_by_image(photographs)
    for r in photographs.records:
        scale = np.array([r.width, r.height]*2, np.float32)
        assert np.allclose(truth[r.image_id].boxes, r.boxes[:, [1, 0, 3, 2]]*scale, atol=1.01) and truth[r.image_id].labels.tolist() == r.labels.tolist()

def test_perfect_by_voc_and_by_kind(photographs):
    best, truth = perfect(photographs), objects_by_image(photographs)
    assert all(v == (1, 1) for v in voc_scores(best, photographs).values())
    assert all(error_kinds(best[i], o).f1 == 1 for i, o in truth.items())

def test_results_survive_json():
    dataset, found = made_up(4)
    results = json.loads(json.dumps(to_coco_results(found, dataset.category_ids)))
    back = {}
    for r in results: back.setdefault(r['image_id'], []).append(r)
    again = {i: detections([[x, y, x + w, y + h] for x, y, w, h in (r['bbox'] for r in rows)], [r['score'] for r in rows],
                           [r['category_id']//5 for r in rows]) for i, rows in back.items()}
    assert evaluate(again, dataset).lines == evaluate(found, dataset).lines

@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_voc_ap_and_sklearn(right):
    "The curves are the same; where precision never rises again, so are the areas. Elsewhere VOC's, under the upper hull, is larger."
    metrics = pytest.importorskip('sklearn.metrics')
    total, scores = sum(right), np.linspace(.9, .1, len(right))
    if not total: return
    recall, precision = np.cumsum(right)/total, np.cumsum(right)/np.arange(1, len(right) + 1)
    theirs, ours = metrics.average_precision_score(right, scores), voc_ap(recall, precision)
    their_precision, their_recall, _ = metrics.precision_recall_curve(right, scores)
    assert np.allclose(their_recall[:-1][::-1], recall) and np.allclose(their_precision[:-1][::-1], precision)
    assert ours >= theirs - 1e-12
    at_hits = precision[np.array(right)]
    if (np.diff(at_hits) <= 0).all(): assert ours == pytest.approx(theirs)

@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_kinds_are_consistent(seed):
    dataset, found = made_up(seed, images=3)
    for image, o in objects_by_image(dataset).items():
        if image not in found: continue
        kinds, overlap = error_kinds(found[image], o), overlaps(found[image], o)
        assert (kinds.detections == 'correct').sum() == (kinds.objects == 'correct').sum()
        assert (kinds.objects == 'ignored').tolist() == o.crowd.tolist() and 0 <= kinds.f1 <= 1
        same = (found[image].labels[:, None] == o.labels) & ~o.crowd
        for i in np.flatnonzero(kinds.detections == 'invented'): assert (overlap[i, same[i]] < .1).all() and (overlap[i] < .5).all() or o.crowd.any()
        for j in np.flatnonzero(kinds.objects == 'missed'): assert (overlap[:, j] < .5).all()

def test_correct_at_most_as_coco_counts():
    "With one threshold and the same detections, as many are right as pycocotools matches."
    dataset, found = made_up(6, crowds=False)
    truth = objects_by_image(dataset)
    found = {i: found.get(i, detections([], [], [])) for i in truth}
    report = evaluate(found, dataset)
    right = sum(int((error_kinds(found[i], o).objects == 'correct').sum()) for i, o in truth.items())
    objects = {n: c['objects'] for n, c in report.per_class.items()}
    judge_recall = {n: (pr_curve(report, .5, n)[1] > 0).sum() - 1 for n in objects} # in hundredths, rounded down
    assert sum(judge_recall[n]*objects[n]/100 for n in objects) <= right <= sum((judge_recall[n] + 1)*objects[n]/100 for n in objects)

def test_show_errors_draws_every_detection_and_missed_object():
    dataset, found = made_up(5)
    truth, image = objects_by_image(dataset), np.full((640, 640, 3), 200, np.uint8)
    for i in list(found)[:3]:
        fig = show_errors(image, found[i], truth[i], dataset.classes, title='kinds')
        assert len(fig.axes[0].patches) == len(found[i]) + (error_kinds(found[i], truth[i]).objects == 'missed').sum()
