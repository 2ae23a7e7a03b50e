"""VOC's average precision against its devkit's rule and scikit-learn; and what counts neither for nor against
(difficult objects, crowds) by VOC, by COCO and by kind of mistake."""
from __future__ import annotations
import numpy as np
import pytest
from conftest import detections, made_up, perfect
from hypothesis import given, settings, strategies as st
from ssd_nb.detection.coco_eval import Truth, evaluate, objects_by_image, overlaps
from ssd_nb.detection.mistakes import error_kinds
from ssd_nb.detection.postprocess import Detections
from ssd_nb.detection.voc_eval import voc_ap, voc_scores

def test_perfect_by_voc_and_by_kind(photographs):
    best, truth = perfect(photographs), objects_by_image(photographs)
    assert all(v == (1, 1) for v in voc_scores(best, photographs).values())
    assert all(error_kinds(best[i], o).f1 == 1 for i, o in truth.items())

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
    assert error_kinds(found[1], objects_by_image(truth)[1]).detections.tolist() == ['false alarm', 'correct']

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
