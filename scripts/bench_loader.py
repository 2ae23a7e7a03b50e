"""Images a second and core: the loader against the naive way of writing it, on a COCO data set.

    OMP_NUM_THREADS=1 python scripts/bench_loader.py --coco_root data/coco [--train_split train2017] [--images 100]

The naive way is the one of nbs/6_data/11_loader.ipynb: Pillow, one crop at a time, colours in floating point, one
object at a time. Both run in one thread, turn by turn on the same images, and the best of several turns counts."""
from __future__ import annotations
import json, time
from pathlib import Path
import cv2
import numpy as np
from ssd_nb.images import load_image
from ssd_nb.config import SSDConfig, config_from_args, make_parser
from ssd_nb.data.dataset import open_dataset
from ssd_nb.data.loader import Loader, train_batch
from ssd_nb.data.records import objects_of
from ssd_nb.boxes.matching import match_and_encode

NOTEBOOK = Path(__file__).parent.parent/'nbs/6_data/11_loader.ipynb'


def naive_functions() -> dict:
    "The functions of the notebook whose names begin with naive_, so that they stand written in one place."
    cells = json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells']
    found: dict = {}
    modules = ('ssd_nb.learning.augment', 'ssd_nb.boxes.coding', 'ssd_nb.boxes.default_boxes')
    imports = ['import numpy as np, cv2', 'from PIL import Image', *(f'from {name} import *' for name in modules)]
    exec('\n'.join(imports), found)
    for cell in cells:
        source = ''.join(cell['source'])
        if source.startswith('def naive_'): exec(source, found)
    return found


def best_seconds(turns: int, *functions) -> list[float]:
    "The best time of each function, which take turns."
    best = [np.inf]*len(functions)
    for _ in range(turns):
        for i, f in enumerate(functions):
            start = time.perf_counter()
            f()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def main() -> None:
    parser = make_parser('python scripts/bench_loader.py', __doc__)
    parser.add_argument('--images', type=int, default=100, help='images to measure with')
    parser.add_argument('--turns', type=int, default=5, help='the best of so many turns counts')
    args = parser.parse_args()
    cfg, naive = config_from_args(args, SSDConfig(dataset='coco')), naive_functions()
    cv2.setNumThreads(1)
    dataset = open_dataset(cfg, training=True)
    records = [r for r in dataset.records if len(objects_of(r, cfg)[1])][:args.images]
    rng, n = np.random.default_rng(0), len(records)
    sizes = [len(objects_of(r, cfg)[1]) for r in records]
    width, height = np.mean([r.width for r in records]), np.mean([r.height for r in records])
    print(f'{n} images of {width:.0f} x {height:.0f} pixels and {np.mean(sizes):.1f} objects on average, '
          f'input {cfg.image_size}')

    def naive_sample(r):
        image, boxes, labels = naive['naive_augment'](naive['naive_read'](r.image), *objects_of(r, cfg), cfg, rng)
        return image, *naive['naive_match'](boxes, labels, cfg)
    def naive_batches():
        for k in range(0, n, 16): [np.stack(part) for part in zip(*map(naive_sample, records[k:k + 16]))]
    def batches():
        for k in range(0, n, 16): train_batch(records[k:k + 16], range(k, n), 0, cfg)
    slow, fast = best_seconds(args.turns, naive_batches, batches)
    print(f'decode, augment, match, collate: naive {n/slow:.0f}, ssd_nb {n/fast:.0f} images a second and core: '
          f'{slow/fast:.1f} times')

    (read,) = best_seconds(args.turns, lambda: [load_image(r.image) for r in records])
    print(f'reading the whole images alone: {read/n*1e3:.2f} of {fast/n*1e3:.2f} ms an image')
    twelve = [r for r, s in zip(records, sizes) if s >= 12][:20]
    boxes = [(objects_of(r, cfg)[0][:12], objects_of(r, cfg)[1][:12]) for r in twelve]
    if boxes:
        versions = {'every pair in a loop': naive['naive_loop_match'],
                    'object by object with arrays': naive['naive_match'], 'ssd_nb': match_and_encode}
        times = best_seconds(args.turns*4, *([lambda f=f: [f(b, l, cfg) for b, l in boxes] for f in versions.values()]))
        print(f'matching and encoding alone, 12 objects, {len(boxes)} images, best of {args.turns*4} turns:')
        for name, t in zip(versions, times):
            print(f'  {name}: {t/len(boxes)*1e3:.3f} ms an image, {t/times[-1]:.1f} times ssd_nb')

    for workers in range(0, 3):
        with Loader(dataset, cfg, training=True, num_workers=workers) as loader:
            next(loader.epoch(0)) # start the workers
            start = time.perf_counter()
            count = sum(len(b.images) for e in range(1, 4) for b in loader.epoch(e))
            print(f'{workers} workers: {count/(time.perf_counter() - start):.0f} images a second')


if __name__ == '__main__': main()
