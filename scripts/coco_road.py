"""The whole road on a COCO data set, one command after the other, with the time and memory that each takes:

    python scripts/coco_road.py --coco_root DIR [--output road] [--backend torch] [FLAGS of python -m ssd_nb.train]

1 MindRecord files, training with evaluation, 2 evaluation of the best checkpoint by both protocols, 3 prediction,
4 export to ONNX. At the end the times are carried over to COCO2017, with the figures that this rests on. An output
folder that exists is refused."""
from __future__ import annotations
import argparse, csv, json, re, resource, shlex, subprocess, sys, time
from dataclasses import dataclass
from pathlib import Path

IMAGES, VAL_IMAGES = 118_287, 5_000 # of COCO2017, train and val

@dataclass(frozen=True)
class Leg:
    "One command of the road, and what it took."
    name: str
    seconds: float
    megabytes: float # the most that one of the processes so far has held

def walk(name: str, *command: str) -> Leg:
    "Run one command, say it first, and stop the road if it fails."
    line = sys.executable, '-m', *command
    print(f'\n== {name}: python {shlex.join(line[1:])}', flush=True)
    start = time.perf_counter()
    done = subprocess.run(line)
    if done.returncode: raise SystemExit(f'the road ends here: {name} failed with status {done.returncode}')
    held = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/1024
    return Leg(name, time.perf_counter() - start, held)

def training_seconds(log: str) -> list[float]:
    "Seconds of each epoch, as the log of a run says them."
    return [float(ms)/1000 for ms in re.findall(r'^epoch time: ([\d.]+), per step time', log, re.M)]

def extrapolate(run: Path, evaluation: Leg, val_images: int) -> str:
    "What COCO2017 would take here, from the speed of the last epoch and of the evaluation."
    log = (run/'train.log').read_text(encoding='utf-8')
    config = (run/'config.yaml').read_text(encoding='utf-8')
    batch = int(re.search(r'^batch_size: (\d+)', config, re.M)[1])
    with (run/'metrics.csv').open(encoding='utf-8') as f: rows = list(csv.DictReader(f))
    last = [row for row in rows if row['epoch'] == rows[-1]['epoch']]
    rate = len(last)*batch/training_seconds(log)[-1]
    judged = val_images/evaluation.seconds
    hours = IMAGES/rate/3600
    return (f'training: {rate:.1f} images a second in the last epoch, so an epoch of COCO2017 takes {hours:.1f} hours '
            f'and 500 epochs {500*hours/24:.0f} days on this machine\n'
            f'evaluation: {judged:.1f} images a second with its start, so COCO2017 val takes '
            f'{VAL_IMAGES/judged/60:.0f} minutes')

def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--coco_root', required=True, help='folder with annotations/, train2017/ and val2017/')
    parser.add_argument('--output', type=Path, default=Path('road'), help='new folder for all that is made [road]')
    parser.add_argument('--backend', default='torch', help='torch or mindspore [torch]')
    args, flags = parser.parse_known_args()
    if args.output.exists(): raise SystemExit(f'{args.output} exists; name another --output or remove it')
    run = args.output/'run'
    data = '--dataset', 'coco', '--coco_root', args.coco_root
    legs = [walk('MindRecord and training', 'ssd_nb.train', *data, '--backend', args.backend, '--run_eval',
                 '--eval_start_epoch', '1', '--mindrecord_dir', str(args.output/'mindrecord'),
                 '--output_dir', str(run), *flags)]
    best = str(run/'best.safetensors')
    legs.append(walk('evaluation by both protocols', 'ssd_nb.eval', '--checkpoint_path', best, '--protocol', 'both',
                     '--output_dir', str(args.output/'eval')))
    pictures = sorted((Path(args.coco_root)/'val2017').glob('*.jpg'))[:4]
    legs.append(walk('prediction', 'ssd_nb.predict', *map(str, pictures), '--checkpoint_path', best,
                     '--output_dir', str(args.output/'predict')))
    legs.append(walk('export', 'ssd_nb.export', best, '--format', 'onnx', '--output', str(args.output/'ssd.onnx')))
    print('\nstep                           seconds   most memory so far')
    for leg in legs: print(f'{leg.name:30} {leg.seconds:7.1f}   {leg.megabytes:8.0f} MB')
    annotations = Path(args.coco_root)/'annotations/instances_val2017.json'
    val_images = len(json.loads(annotations.read_text(encoding='utf-8'))['images'])
    print(extrapolate(run, legs[1], val_images))

if __name__ == '__main__': main()
