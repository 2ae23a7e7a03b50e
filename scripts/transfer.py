"""What trained weights are worth: the same small data set, learnt from random weights and from `openimages`.

    python scripts/transfer.py --voc_root BCCD [--epochs 20] [--seeds 1,2,3] [--only NAME ...] [--choose]
                               [--lr RATE] [--table nbs/data/transfer.csv] [FLAGS of python -m ssd_nb.train]

Trains on trainval and looks at test once, by both protocols; --choose trains on train and judges on val, which is what
choices are made on. A row that the table holds is not measured again, so an interrupted command goes on where it
stood."""
from __future__ import annotations
import argparse, json, subprocess, sys, tempfile
from pathlib import Path
from measured import add_row, rows_of

STARTS: dict[str, tuple[str, str]] = { # name -> flags of `python -m ssd_nb.train`, learning rate chosen on val
    'random weights': ('', '.05'),
    'openimages': ('--pre_trained openimages', '.02'),
    'openimages, frozen backbone': ('--pre_trained openimages --freeze_layer backbone', '.02')}
SAME = ('--preset ssd300_mobilenet_v2_openimages --dataset voc --on_bad_data skip --class_num 4 --batch_size 16 '
        '--warmup_epochs 2 --log_steps 0 --keep_checkpoint_max 0')
COLUMNS = 'start', 'flags', 'judged', 'epochs', 'seed', 'protocol', 'mAP', 'AP50'

def module(name: str, *flags: str) -> None:
    "Run a command of the library; its last words if it fails."
    done = subprocess.run([sys.executable, '-m', name, *flags], capture_output=True, text=True)
    if done.returncode: raise SystemExit(f'{name} {" ".join(flags)}\n{done.stderr[-2000:]}')

def measure(flags: list[str], splits: tuple[str, str]) -> dict[str, dict[str, float]]: # by protocol
    "Train, and judge the last state by both protocols."
    split_flags = '--train_split', splits[0], '--val_split', splits[1]
    with tempfile.TemporaryDirectory() as folder:
        module('ssd_nb.train', *SAME.split(), *split_flags, '--output_dir', f'{folder}/run', *flags)
        last = f'{folder}/run/last.safetensors'
        module('ssd_nb.eval', '--checkpoint_path', last, '--protocol', 'both', '--output_dir', f'{folder}/eval')
        reports = {name: Path(folder)/'eval'/name/'report.json' for name in ('standard', 'reference')}
        return {name: json.loads(path.read_text(encoding='utf-8')) for name, path in reports.items()}

def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--voc_root', required=True, help='folder with ImageSets/, JPEGImages/ and Annotations/')
    parser.add_argument('--epochs', type=int, default=20, help='epochs of each training [20]')
    parser.add_argument('--seeds', default='1,2,3', help='seeds of weights, order and augmentation [1,2,3]')
    parser.add_argument('--only', nargs='+', choices=STARTS, metavar='NAME', default=list(STARTS), help='starts [all]')
    parser.add_argument('--lr', metavar='RATE', help='learning rate, instead of the one that was chosen')
    parser.add_argument('--choose', action='store_true', help='train on train and judge on val')
    parser.add_argument('--table', type=Path, default=Path('nbs/data/transfer.csv'), help='file of rows')
    args, more = parser.parse_known_args()
    splits, held = ('train', 'val') if args.choose else ('trainval', 'test'), rows_of(args.table)
    known = {tuple(row[c] for c in COLUMNS[:5]) for row in held}
    for seed in args.seeds.split(','):
        for start in args.only:
            start_flags, chosen_rate = STARTS[start]
            flags = ' '.join([start_flags, '--lr', args.lr or chosen_rate, *more]).strip()
            row = start, flags, splits[1], str(args.epochs), seed
            if row in known: continue
            run = '--voc_root', args.voc_root, '--epoch_size', str(args.epochs), '--seed', seed
            reports = measure([*run, *flags.split()], splits)
            for protocol, report in reports.items():
                scores = round(report['AP'], 4), round(report['AP50'], 4)
                add_row(args.table, COLUMNS, [*row, protocol, *scores])
            print(*row, {name: round(report['AP'], 4) for name, report in reports.items()}, flush=True)

if __name__ == '__main__': main()
