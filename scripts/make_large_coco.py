"""A made-up data set of COCO's size, to measure with: 118,287 images, 860,001 objects with polygons, a JSON of 490 MB.

    python scripts/make_large_coco.py FOLDER [--images 118287] [--objects 860001]

The images are hard links to a few grey JPEG files of COCO's sizes, so that the disk holds the JSON and little else."""
from __future__ import annotations
import argparse, json, os
from pathlib import Path
import numpy as np
from PIL import Image

SIDES = (480, 640), (640, 480), (427, 640), (640, 427), (375, 500), (500, 375), (612, 612), (333, 500)
COPIES = 2000 # links to one file; file systems allow some ten thousands


def make_images(folder: Path, count: int) -> list[tuple[int, int]]:
    "The files `folder/000000000001.jpg` ...; the height and width of each."
    folder.mkdir(parents=True)
    sizes = []
    for k in range(count):
        path, height, width = folder/f'{k + 1:012d}.jpg', *SIDES[k//COPIES % len(SIDES)]
        if k % COPIES == 0: Image.new('RGB', (width, height), (90, 110, 130)).save(path)
        else: os.link(folder/f'{k//COPIES*COPIES + 1:012d}.jpg', path)
        sizes.append((height, width))
    return sizes


def image_entry(number: int, size: tuple[int, int]) -> dict:
    "As COCO writes it."
    name = f'{number:012d}.jpg'
    return dict(license=number % 8 + 1, file_name=name, coco_url=f'http://images.cocodataset.org/train2017/{name}',
                height=size[0], width=size[1], date_captured='2013-11-14 11:18:45',
                flickr_url=f'http://farm9.staticflickr.com/8186/{number:010d}_a2c0b3d4e5_z.jpg', id=number)


def object_entry(number: int, image: int, size: tuple[int, int], rng: np.random.Generator) -> dict:
    "An object with a polygon of about 25 corners; one of 85 is a crowd with run lengths."
    height, width = size
    h, w = np.round(rng.uniform(.02, .6, 2)*size, 2).tolist()
    y, x = np.round(rng.uniform(0, 1, 2)*(height - h, width - w), 2).tolist()
    crowd = number % 85 == 0
    corners = np.round(rng.random((25, 2))*(w, h) + (x, y), 2).reshape(-1).tolist()
    mask = dict(counts=rng.integers(0, 99, 60).tolist(), size=[height, width]) if crowd else [corners]
    return dict(segmentation=mask, area=round(h*w*.6, 4), iscrowd=int(crowd), image_id=image, bbox=[x, y, w, h],
                category_id=int(rng.integers(1, 81)), id=number)


def write_list(file, name: str, entries, count: int) -> None:
    "A list of the JSON file, entry by entry."
    file.write(f', "{name}": [')
    for k, entry in enumerate(entries): file.write(json.dumps(entry) + (', ' if k < count - 1 else ''))
    file.write(']')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--images', type=int, default=118_287)
    parser.add_argument('--objects', type=int, default=860_001)
    args = parser.parse_args()
    rng, n, m = np.random.default_rng(0), args.images, args.objects
    sizes = make_images(args.folder/'train2017', n)
    places = rng.integers(0, max(n*99//100, 1), m).tolist() # a hundredth of the images has no object
    (args.folder/'annotations').mkdir(exist_ok=True)
    path = args.folder/'annotations'/'instances_train2017.json'
    with open(path, 'w', encoding='utf-8') as file:
        file.write('{"info": {"description": "made up"}')
        write_list(file, 'images', (image_entry(k + 1, size) for k, size in enumerate(sizes)), n)
        objects = (object_entry(k + 1, i + 1, sizes[i], rng) for k, i in enumerate(places))
        write_list(file, 'annotations', objects, m)
        write_list(file, 'categories', (dict(id=k, name=f'class {k}') for k in range(1, 81)), 80)
        file.write('}')
    print(f'{path}: {path.stat().st_size/1e6:.0f} MB, {n} images, {m} objects')


if __name__ == '__main__': main()
