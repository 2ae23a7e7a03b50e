"COCO's twelve numbers against pycocotools called by hand; perfect, empty and partial detectors; limits."
from __future__ import annotations
import json
import numpy as np
import pytest
from conftest import detections, made_up, perfect
from ssd_nb.detection.coco_eval import (
    STATS, Truth, class_table, evaluate, evaluated_images, format_report, objects_by_image, pr_curve, to_coco_results)
from ssd_nb.detection.postprocess import Detections
from ssd_nb.detection.voc_eval import voc_scores
from ssd_nb.config import SSDConfig

STANDARD, REFERENCE = SSDConfig().rules, SSDConfig(protocol='reference').rules

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

def test_results_survive_json():
    dataset, found = made_up(4)
    results = json.loads(json.dumps(to_coco_results(found, dataset.category_ids)))
    back = {}
    for r in results:
        x, y, w, h = r['bbox']
        back.setdefault(r['image_id'], []).append(([x, y, x + w, y + h], r['score'], r['category_id']//5))
    again = {i: detections(*zip(*rows)) for i, rows in back.items()}
    assert evaluate(again, dataset).lines == evaluate(found, dataset).lines

def test_a_difficult_object_is_one_of_an_impossible_size():
    "The twelve numbers are those of pycocotools when the areas of difficult objects lie outside every range."
    truth, found = made_up(3, flags=('difficult',))
    assert any(a['difficult'] for a in truth.ground_truth['annotations'])
    shrunk = [dict(a, area=1e12) if a['difficult'] else a for a in truth.ground_truth['annotations']]
    plain = [{k: v for k, v in a.items() if k != 'difficult'} for a in shrunk]
    other = Truth(truth.classes, truth.category_ids, truth.ground_truth | dict(annotations=plain))
    assert evaluate(found, truth).lines == evaluate(found, other).lines
    assert objects_by_image(truth)[10].difficult.dtype == bool

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
