"""One change at a time: train the tiny preset on the drawn scenes, each variant with several seeds; keep the scores.

    python scripts/ablate.py [--epochs 8] [--seeds 1,2,3] [--jobs 2] [--only NAME ...] [--table nbs/data/ablation.csv]

A row that the table holds is not measured again, so an interrupted command goes on where it stood.
nbs/9_use/09_results.ipynb draws the table."""
from __future__ import annotations
import argparse, json, os, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from tqdm import tqdm
from measured import add_row, rows_of
from ssd_nb.learning.shapes import ensure

VARIANTS: dict[str, str] = { # name -> flags of `python -m ssd_nb.train`
    'standard': '',
    'crop test of the reference': '--paper_crop_test false',
    'no bipartite matching': '--bipartite false',
    'boxes in whole pixels': '--whole_pixels true',
    'moving average 0.999': '--ema .999',
    'no warm-up': '--warmup_epochs 0',
    'expand': '--expand .5',
    'hue': '--hue .1',
    'colours as they are': '--jitter 0',
    'no flip': '--flip 0',
    'no augmentation': '--augment false',
    'alpha 0.25': '--alpha .25',
    'gamma 0': '--gamma 0',
    'hard negatives': '--class_loss hard_negatives',
    'no weight decay': '--weight_decay 0',
    'batches of 8': '--batch_size 8'}
COLUMNS = 'variant', 'flags', 'epochs', 'seed', 'mAP', 'AP50'

def measure(flags: str, epochs: int, seed: int, scenes: Path) -> dict[str, str | float]:
    "Train once, in a process of its own, and read what it reports."
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)/'run'
        command = [sys.executable, '-m', 'ssd_nb.train', '--preset', 'tiny', '--coco_root', str(scenes),
                   '--epoch_size', str(epochs), '--eval_start_epoch', str(epochs), '--seed', str(seed),
                   '--num_workers', '0', '--device', 'cpu', '--output_dir', str(run), *flags.split()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode: raise SystemExit(f'{" ".join(command)}\n{done.stderr[-2000:]}')
        report = json.loads((run/'report.json').read_text())
    return report

def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--epochs', type=int, default=8, help='epochs of each training [8]')
    parser.add_argument('--seeds', default='1,2,3', help='seeds of weights, order and augmentation [1,2,3]')
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time, each on one core [2]')
    parser.add_argument('--only', nargs='+', choices=VARIANTS, metavar='NAME', default=list(VARIANTS),
                        help='variants to measure [all]')
    parser.add_argument('--scenes', type=Path, default=Path('data/shapes'), help='folder of the scenes [data/shapes]')
    parser.add_argument('--table', type=Path, default=Path('nbs/data/ablation.csv'), help='file of rows')
    args = parser.parse_args()
    os.environ['OMP_NUM_THREADS'] = '1'
    held = {(row['variant'], row['epochs'], row['seed']) for row in rows_of(args.table)}
    seeds = [int(seed) for seed in args.seeds.split(',')]
    wanted = [(name, seed) for seed in seeds for name in args.only if (name, str(args.epochs), str(seed)) not in held]
    ensure(args.scenes) # once, before several trainings ask for them
    lock, bar = Lock(), tqdm(total=len(wanted), unit='training')

    def one(name: str, seed: int) -> None:
        report = measure(VARIANTS[name], args.epochs, seed, args.scenes)
        row = [name, VARIANTS[name], args.epochs, seed, round(report['AP'], 4), round(report['AP50'], 4)]
        with lock:
            add_row(args.table, COLUMNS, row)
            bar.update()

    with ThreadPoolExecutor(args.jobs) as pool: list(pool.map(lambda pair: one(*pair), wanted))

if __name__ == '__main__': main()
