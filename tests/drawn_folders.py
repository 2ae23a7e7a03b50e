"""Folders of drawn pictures as annotation tools leave them: LabelImg's, YOLO's, Roboflow's. Also a command:

    python tests/drawn_folders.py yolo FOLDER [pictures]
"""
import json, sys
from pathlib import Path
import cv2
import numpy as np
from ssd_nb.learning.drawings import CLASSES
from ssd_nb.learning.scenes import draw_scene

NAMES = ('car', 'boat', 'house') # the classes that are annotated; others may be seen, too
NUMBERS = {CLASSES.index(name) + 1: k for k, name in enumerate(NAMES)}
SIDE = 160 # pixels

def drawn(seed: int, empty: bool = False) -> tuple[np.ndarray, list]:
    "A picture, and number, x1, y1, x2, y2 of each object of the three classes; or a picture with none of them."
    for k in range(200):
        image, boxes, labels = draw_scene(np.random.default_rng((seed, k)), SIDE)
        objects = [(NUMBERS[n], *map(int, box)) for n, box in zip(labels.tolist(), boxes) if n in NUMBERS]
        if bool(objects) != empty: return image, objects
    raise RuntimeError('no such scene')

def keep(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])

def labelimg(folder: Path, count: int = 20) -> Path:
    "LabelImg: images/ and annotations/, an XML file for each picture, no splits."
    for i in range(count):
        image, objects = drawn(i)
        keep(image, folder/'images'/f'photo {i}.jpg')
        parts = [f'<object><name>{NAMES[n]}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>'
                 f'<ymax>{y2}</ymax></bndbox></object>' for n, x1, y1, x2, y2 in objects]
        size = f'<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>'
        xml = f'<annotation><filename>photo {i}.jpg</filename>{size}{"".join(parts)}</annotation>'
        (folder/'annotations').mkdir(exist_ok=True)
        (folder/'annotations'/f'photo {i}.xml').write_text(xml, encoding='utf-8')
    return folder

def yolo(folder: Path, count: int = 20) -> Path:
    "YOLO: data.yaml, images/ and labels/ with train/ and val/; every fourth picture is background, with an empty file."
    for split, first in (('train', 0), ('val', 1000)):
        for i in range(count if split == 'train' else max(count//4, 2)):
            image, objects = drawn(first + i, empty=i % 4 == 3)
            keep(image, folder/'images'/split/f'{i:03d}.jpg')
            rows = [f'{n} {(x1 + x2)/2/SIDE} {(y1 + y2)/2/SIDE} {(x2 - x1)/SIDE} {(y2 - y1)/SIDE}\n'
                    for n, x1, y1, x2, y2 in objects]
            (folder/'labels'/split).mkdir(parents=True, exist_ok=True)
            (folder/'labels'/split/f'{i:03d}.txt').write_text(''.join(rows), encoding='utf-8')
    text = f'train: images/train\nval: images/val\nnc: {len(NAMES)}\nnames: {list(NAMES)}\n'
    (folder/'data.yaml').write_text(text, encoding='utf-8')
    return folder

def roboflow(folder: Path, count: int = 20) -> Path:
    "Roboflow: train/ and valid/ with _annotations.coco.json beside the pictures; category 0 is above all others."
    categories = [dict(id=0, name='toys', supercategory='none')]
    categories += [dict(id=k, name=name, supercategory='toys') for k, name in enumerate(NAMES, 1)]
    for split, first in (('train', 0), ('valid', 1000)):
        images, annotations = [], []
        for i in range(count if split == 'train' else max(count//4, 2)):
            image, objects = drawn(first + i)
            keep(image, folder/split/f'{i}_jpg.rf.{i:04x}.jpg')
            images.append(dict(id=i, file_name=f'{i}_jpg.rf.{i:04x}.jpg', width=SIDE, height=SIDE))
            for n, x1, y1, x2, y2 in objects:
                annotations.append(dict(id=len(annotations), image_id=i, category_id=n + 1, iscrowd=0,
                                        bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1)*(y2 - y1), segmentation=[]))
        truth = dict(info={}, licenses=[], categories=categories, images=images, annotations=annotations)
        (folder/split/'_annotations.coco.json').write_text(json.dumps(truth), encoding='utf-8')
    return folder

FOLDERS = dict(labelimg=labelimg, yolo=yolo, roboflow=roboflow)

if __name__ == '__main__':
    kind, where, *count = sys.argv[1:]
    print(FOLDERS[kind](Path(where), *map(int, count)))
