"Kinds of mistakes: consistent with the overlaps, with pycocotools and with the picture."
from __future__ import annotations
import numpy as np
from conftest import detections, made_up
from hypothesis import given, settings, strategies as st
from ssd_nb.detection.coco_eval import evaluate, objects_by_image, overlaps, pr_curve
from ssd_nb.detection.mistakes import error_kinds, show_errors

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
        for i in np.flatnonzero(kinds.detections == 'false alarm'):
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
