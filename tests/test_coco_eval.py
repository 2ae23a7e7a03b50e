"The twelve numbers against pycocotools called by hand, VOC's AP against its devkit's rule, perfect detectors."
from __future__ import annotations
import json
import numpy as np
import pytest
from conftest import perfect
from hypothesis import given, settings, strategies as st
from ssd_nb.detection.coco_eval import (
    STATS, Truth, class_table, evaluate, evaluated_images, format_report, objects_by_image, overlaps, pr_curve,
    to_coco_results)
from ssd_nb.detection.mistakes import error_kinds, show_errors
from ssd_nb.detection.voc_eval import voc_ap, voc_scores
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.detection.postprocess import Detections

STANDARD, REFERENCE = SSDConfig().rules, SSDConfig(protocol='reference').rules

def detections(boxes, scores, labels):
    order = np.argsort(-np.asarray(scores, float), kind='stable')
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes[order], np.asarray(scores, np.float32)[order], np.asarray(labels, np.int32)[order])

def made_up(seed, images=12, first_id=0, flags=('iscrowd',)):
    "A truth of boxes of all sizes with gaps in its ids, some flagged, some images empty; and a detector's answer."
    rng, annotations, found, ids = np.random.default_rng(seed), [], {}, [10 + 7*i for i in range(images)]
    for image in ids:
        n = int(rng.integers(0, 7))
        side = rng.choice([15., 60., 200.], (n, 2))*rng.uniform(.7, 1.4, (n, 2))
        low, label = rng.uniform(0, 400, (n, 2)), rng.integers(1, 4, n)
        for corner, size, k in zip(low.tolist(), side.tolist(), label):
            given = {flag: int(rng.random() < .15) for flag in flags}
            annotations.append(dict(id=first_id + len(annotations), image_id=image, category_id=int(5*k),
                                    bbox=[*corner, *size], area=.8*size[0]*size[1], **{'iscrowd': 0, **given}))
        boxes = np.concatenate([low, low + side], 1)
        boxes = np.concatenate([boxes + rng.normal(0, 6, boxes.shape), boxes + rng.normal(0, 25, boxes.shape),
                                rng.uniform(0, 200, (3, 4)) + (0, 0, 200, 200)])
        labels = np.concatenate([label, label, rng.integers(1, 4, 3)])
        scores = np.round(rng.random(len(boxes)), 1) # with ties
        if rng.random() < .9: found[image] = detections(boxes, scores, labels)
    truth = dict(images=[dict(id=i, width=640, height=640, file_name=f'{i}.jpg') for i in ids], annotations=annotations,
                 categories=[dict(id=5*c, name=n) for c, n in enumerate(('ant', 'bee', 'cow'), 1)])
    return Truth(('ant', 'bee', 'cow'), (5, 10, 15), truth), found

def by_hand(truth, found, images, categories, folder):
    "pycocotools as its own example uses it: from files."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    (folder/'truth.json').write_text(json.dumps(truth.ground_truth), encoding='utf-8')
    rows = []
    for image, d in found.items():
        for (x1, y1, x2, y2), score, label in zip(d.boxes.tolist(), d.scores, d.labels):
            if image in images:
                bbox = [x1, y1, x2 - x1, y2 - y1]
                rows.append(dict(image_id=image, category_id=5*int(label), score=float(score), bbox=bbox))
    (folder/'found.json').write_text(json.dumps(rows), encoding='utf-8')
    index = COCO(str(folder/'truth.json'))
    judge = COCOeval(index, index.loadRes(str(folder/'found.json')), 'bbox')
    judge.params.imgIds, judge.params.catIds = images, categories
    judge.evaluate()
    judge.accumulate()
    return judge

@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('rules', [STANDARD, REFERENCE], ids=['standard', 'reference'])
def test_twelve_numbers_and_lines_are_those_of_pycocotools(seed, rules, tmp_path, capsys):
    dataset, found = made_up(seed, first_id=1)
    truth = dataset.ground_truth['annotations']
    crowded, annotated = {a['image_id'] for a in truth if a['iscrowd']}, {a['image_id'] for a in truth}
    images = [i['id'] for i in dataset.ground_truth['images']] if rules is STANDARD else sorted(annotated - crowded)
    judge = by_hand(dataset, found, images, [5, 10, 15], tmp_path)
    capsys.readouterr()
    judge.summarize()
    expected = capsys.readouterr().out.splitlines()
    report = evaluate(found, dataset, rules)
    assert capsys.readouterr().out == '' # evaluate prints nothing
    assert list(report.lines) == expected and report.stats == dict(zip(STATS, judge.stats.tolist()))
    assert evaluated_images(dataset, rules) == images and report.images == len(images)
    p = judge.eval['precision'][:, :, :, 0, 2]
    for k, (name, c) in enumerate(report.per_class.items()):
        assert c['AP'] == pytest.approx(p[:, :, k].mean())
        assert np.array_equal(pr_curve(report, .75, name)[1], p[5, :, k])
    assert np.mean([c['AP'] for c in report.per_class.values()]) == pytest.approx(report.mAP)

def test_annotation_ids_do_not_matter():
    "pycocotools takes the id 0 for 'no match'."
    (a, found), (b, _) = made_up(1, first_id=0), made_up(1, first_id=1000)
    assert evaluate(found, a).lines == evaluate(found, b).lines
    assert {x['id'] for x in a.ground_truth['annotations']} >= {0} # the truth itself is left as it was

def test_a_subset_of_the_classes():
    dataset, found = made_up(2)
    bees, only = Truth(('bee',), (10,), dataset.ground_truth), {}
    for image, d in found.items():
        mine = d.labels == 2
        only[image] = Detections(d.boxes[mine], d.scores[mine], np.ones(mine.sum(), np.int32))
    full, subset = evaluate(found, dataset), evaluate(only, bees)
    over_all = evaluate(only, bees, SSDConfig(all_categories=True).rules)
    assert list(subset.per_class) == ['bee'] and subset.mAP == pytest.approx(full.per_class['bee']['AP'])
    assert list(over_all.per_class) == ['ant', 'bee', 'cow'] and over_all.mAP == pytest.approx(subset.mAP/3)

def test_nothing_to_find_and_nothing_found():
    dataset, found = made_up(3)
    empty = Truth(dataset.classes, dataset.category_ids, dataset.ground_truth | dict(annotations=[]))
    assert evaluate(found, empty).mAP == -1 and 'no object' in evaluate(found, empty).note
    assert evaluate({}, dataset).mAP == 0 and 'Nothing was detected' in format_report(evaluate({}, dataset))
    assert evaluate(found, empty, REFERENCE).images == 0 and evaluate({}, empty).mAP == -1
    assert class_table(evaluate(found, empty)).count('-') == 9 and voc_scores(found, empty) == {}
    assert (pr_curve(evaluate({}, empty))[1] == -1).all()
    with pytest.raises(ValueError, match='1 images that the data set does not have, such as image 3'):
        evaluate({3: found[10]}, dataset)

@pytest.fixture
def photographs(sample_data):
    root = sample_data('coco-tiny')
    return open_dataset(SSDConfig(coco_root=str(root)), training=False)

@pytest.mark.parametrize('rules', [STANDARD, REFERENCE], ids=['standard', 'reference'])
def test_a_perfect_detector_scores_one_and_an_empty_one_zero(photographs, rules):
    report = evaluate(perfect(photographs), photographs, rules)
    for name in ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'AR100'): assert report.stats[name] == pytest.approx(1)
    last = format_report(report).splitlines()[-1]
    assert report.note == '' and last.startswith(('mAP: 0.99999', 'mAP: 1.0'))
    nothing = evaluate({}, photographs, rules)
    assert nothing.mAP == 0 and len(nothing.lines) == 12 and nothing.images == report.images

def test_records_and_ground_truth_agree(photographs):
    truth = objects_by_image(photographs)
    for r in photographs.records:
        scale = np.array([r.width, r.height]*2, np.float32)
        objects = truth[r.image_id]
        assert np.allclose(objects.boxes, r.boxes[:, [1, 0, 3, 2]]*scale, atol=1.01)
        assert objects.labels.tolist() == r.labels.tolist()

def test_perfect_by_voc_and_by_kind(photographs):
    best, truth = perfect(photographs), objects_by_image(photographs)
    assert all(v == (1, 1) for v in voc_scores(best, photographs).values())
    assert all(error_kinds(best[i], o).f1 == 1 for i, o in truth.items())

def test_results_survive_json():
    dataset, found = made_up(4)
    results = json.loads(json.dumps(to_coco_results(found, dataset.category_ids)))
    back = {}
    for r in results:
        x, y, w, h = r['bbox']
        back.setdefault(r['image_id'], []).append(([x, y, x + w, y + h], r['score'], r['category_id']//5))
    again = {i: detections(*zip(*rows)) for i, rows in back.items()}
    assert evaluate(again, dataset).lines == evaluate(found, dataset).lines

@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_voc_ap_and_sklearn(right):
    "The curves are the same; where precision never rises again, so are the areas. Elsewhere VOC's is larger."
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
    dataset, found = made_up(seed, images=3, flags=('iscrowd', 'difficult'))
    for image, o in objects_by_image(dataset).items():
        if image not in found: continue
        kinds, overlap = error_kinds(found[image], o), overlaps(found[image], o)
        assert (kinds.detections == 'correct').sum() == (kinds.objects == 'correct').sum()
        assert (kinds.objects == 'ignored').tolist() == (o.crowd | o.difficult).tolist() and 0 <= kinds.f1 <= 1
        counted = ~(o.crowd | o.difficult)
        same = (found[image].labels[:, None] == o.labels) & counted
        for i in np.flatnonzero(kinds.detections == 'invented'):
            assert (overlap[i, same[i]] < .1).all() and (overlap[i, counted] < .5).all()
        for j in np.flatnonzero(kinds.objects == 'missed'): assert (overlap[:, j] < .5).all()

def test_correct_at_most_as_coco_counts():
    "With one threshold and the same detections, as many are right as pycocotools matches."
    dataset, found = made_up(6, flags=())
    truth = objects_by_image(dataset)
    found = {i: found.get(i, detections([], [], [])) for i in truth}
    report = evaluate(found, dataset)
    right = sum(int((error_kinds(found[i], o).objects == 'correct').sum()) for i, o in truth.items())
    objects = {n: c['objects'] for n, c in report.per_class.items()}
    recall = {n: (pr_curve(report, .5, n)[1] > 0).sum() - 1 for n in objects} # in hundredths, rounded down
    least, most = (sum((recall[n] + more)*objects[n]/100 for n in objects) for more in (0, 1))
    assert least <= right <= most

def test_show_errors_draws_every_detection_and_missed_object():
    dataset, found = made_up(5)
    truth, image = objects_by_image(dataset), np.full((640, 640, 3), 200, np.uint8)
    for i in list(found)[:3]:
        fig = show_errors(image, found[i], truth[i], dataset.classes, title='kinds')
        assert len(fig.axes[0].patches) == len(found[i]) + (error_kinds(found[i], truth[i]).objects == 'missed').sum()

# Objects that count neither for nor against

def street(*annotations, images=1):
    "A truth of cars: (x, y, width, height) and flags."
    rows = [dict(id=n, image_id=1, category_id=1, bbox=[float(v) for v in bbox], area=float(bbox[2]*bbox[3]), **flags)
            for n, (bbox, flags) in enumerate(annotations)]
    return Truth(('car',), (1,), dict(images=[dict(id=i + 1, width=200, height=200) for i in range(images)],
                                      categories=[dict(id=1, name='car')], annotations=rows))

CAR, WRECK = (40, 40, 100, 50), (0, 0, 200, 200) # the car stands inside the wreck
GOOD = [40, 40, 122, 90] # IoU 0.82 with the car, wholly inside the wreck

def test_a_car_inside_a_difficult_one_is_found():
    truth = street((CAR, dict(iscrowd=0)), (WRECK, dict(difficult=1)))
    found = {1: detections([GOOD], [.9], [1])}
    assert overlaps(found[1], objects_by_image(truth)[1]) == pytest.approx(np.array([[.82, .82*5000/40000]]))
    assert voc_scores(found, truth) == {'car': (1, 1)}
    report = evaluate(found, truth)
    assert report.stats['AP50'] == pytest.approx(1) and report.per_class['car']['objects'] == 1
    assert error_kinds(found[1], objects_by_image(truth)[1]).objects.tolist() == ['correct', 'ignored']

def test_a_false_box_inside_a_difficult_object_is_false():
    truth = street((CAR, {}), (WRECK, dict(difficult=1, iscrowd=0)))
    found = {1: detections([[150, 120, 190, 160], [40, 40, 140, 90]], [.95, .9], [1, 1])} # false, then the car itself
    assert voc_scores(found, truth)['car'][1] == .5
    assert evaluate(found, truth).mAP == pytest.approx(.5)
    assert error_kinds(found[1], objects_by_image(truth)[1]).detections.tolist() == ['invented', 'correct']

def test_the_same_box_inside_a_crowd_is_excused():
    truth = street((CAR, dict(difficult=0)), (WRECK, dict(iscrowd=1)))
    found = {1: detections([[150, 120, 190, 160], GOOD], [.95, .9], [1, 1])}
    assert voc_scores(found, truth) == {'car': (1, 1)} and evaluate(found, truth).stats['AP50'] == pytest.approx(1)
    assert error_kinds(found[1], objects_by_image(truth)[1]).detections.tolist() == ['ignored', 'correct']

def test_finding_a_difficult_object_costs_nothing_and_missing_it_neither():
    truth = street((CAR, {}), (WRECK, dict(difficult=1)))
    car, wreck = [40, 40, 140, 90], [0, 0, 200, 195]
    once, twice = detections([wreck, car], [.9, .8], [1, 1]), detections([wreck, wreck, car], [.9, .85, .8], [1]*3)
    for found in (once, detections([car], [.8], [1])):
        assert voc_scores({1: found}, truth) == {'car': (1, 1)} and evaluate({1: found}, truth).mAP == pytest.approx(1)
    assert voc_scores({1: twice}, truth) == {'car': (1, 1)} # VOC ignores every detection of it
    assert evaluate({1: twice}, truth).mAP == pytest.approx(.5) # pycocotools one
    only = street((WRECK, dict(difficult=1)))
    assert voc_scores({1: once}, only) == {} and evaluate({1: once}, only).mAP == -1

def test_a_difficult_object_is_one_of_an_impossible_size():
    "The twelve numbers are those of pycocotools when the areas of difficult objects lie outside every range."
    truth, found = made_up(3, flags=('difficult',))
    assert any(a['difficult'] for a in truth.ground_truth['annotations'])
    shrunk = [dict(a, area=1e12) if a['difficult'] else a for a in truth.ground_truth['annotations']]
    plain = [{k: v for k, v in a.items() if k != 'difficult'} for a in shrunk]
    other = Truth(truth.classes, truth.category_ids, truth.ground_truth | dict(annotations=plain))
    assert evaluate(found, truth).lines == evaluate(found, other).lines
    assert objects_by_image(truth)[10].difficult.dtype == bool

def devkit(truth, found, label):
    "VOC's evaluation of one class, detection by detection in the order of scores: right and wrong ones."
    objects, taken, out = objects_by_image(truth), set(), []
    ranked = sorted((-d.scores[k], order, k, i) for order, (i, d) in enumerate(found.items())
                    for k in np.flatnonzero(d.labels == label))
    for _, _, k, image in ranked:
        o, d = objects[image], found[image]
        one = Detections(d.boxes[k:k + 1], d.scores[k:k + 1], d.labels[k:k + 1])
        overlap = {j: v for j, v in enumerate(overlaps(one, o)[0].tolist()) if o.labels[j] == label}
        best = max(overlap, key=overlap.get, default=None)
        if best is None or overlap[best] < .5: out.append(0)
        elif not o.difficult[best]:
            out.append(int((image, best) not in taken))
            taken.add((image, best))
    return out

@pytest.mark.parametrize('seed', range(5))
def test_voc_scores_are_the_devkits(seed):
    truth, found = made_up(seed, flags=('difficult',))
    found = {i: found[i] for i in objects_by_image(truth) if i in found}
    scores = voc_scores(found, truth)
    assert scores
    for label, name in enumerate(truth.classes, 1):
        total = sum(a['category_id'] == 5*label and not a['difficult'] for a in truth.ground_truth['annotations'])
        right = devkit(truth, found, label)
        curve = np.cumsum(right)/total, np.cumsum(right)/np.arange(1, len(right) + 1)
        assert scores[name] == (voc_ap(*curve, eleven_points=True), voc_ap(*curve))

# Limits of the evaluation

def test_limits_count_per_class_and_image():
    "pycocotools' 1, 10 and 100 detections are those of each category in each image."
    images = [dict(id=1, width=100, height=100)]
    common = dict(image_id=1, bbox=[10., 10., 40., 40.], area=1600., iscrowd=0)
    annotations = [dict(common, id=k, category_id=k) for k in (1, 2)]
    categories = [dict(id=1, name='a'), dict(id=2, name='b')]
    truth = Truth(('a', 'b'), (1, 2), dict(images=images, annotations=annotations, categories=categories))
    box, far = [10, 10, 50, 50], [60, 60, 90, 90]
    both = {1: detections([box, box], [.9, .8], [1, 2])}
    assert evaluate(both, truth).stats['AR1'] == pytest.approx(1) # two detections, one of each class
    for before, recall in ((99, 1), (100, 0)): # wrong ones of the same class that stand before the right one
        scores, labels = [.9]*before + [.5] + [.8]*100, [1]*before + [1] + [2]*100
        late = {1: detections([far]*before + [box] + [far]*100, scores, labels)}
        assert evaluate(late, truth).per_class['a']['AR100'] == pytest.approx(recall)
