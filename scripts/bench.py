"""How fast is it, beside the same network in plain PyTorch? Every row of one group is measured turn by turn.

    python scripts/bench.py [--out nbs/images/bench.json] [--presets NAME ...] [--seconds 8] [--large FOLDER]

What is compared takes turns in one process, so that a machine that slows down slows all of it: trust the ratios within
a group more than the seconds. `plain` is the network as PyTorch's tutorials would run it: eager, batch norm apart,
channels first. --large names a folder of scripts/make_large_coco.py. Writes JSON, a table and, beside the JSON, a
picture."""
from __future__ import annotations
import argparse, json, os, platform, subprocess, sys, tempfile, time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
import numpy as np
from ssd_nb.backends.contract import random_batch
from ssd_nb.backends.session import make_session
from ssd_nb.checkpoint import load, save
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.data.loader import Loader
from ssd_nb.detection.coco_eval import evaluate
from ssd_nb.detection.postprocess import Detections, postprocess
from ssd_nb.files import replacing
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.visualize import panels, save_figure

PRESETS = 'tiny', 'ssd300_mobilenet_v2', 'ssdlite320_mobilenet_v3_large'
OPEN = ("import sys; from ssd_nb.config import SSDConfig; from ssd_nb.data.dataset import open_dataset; "
        "open_dataset(SSDConfig.preset('tiny', coco_root=sys.argv[1], train_split=sys.argv[2], class_num="
        "int(sys.argv[3])), True)")


class Plain:
    "The network in eager PyTorch, channels first, with an optimiser that goes from tensor to tensor."
    def __init__(self, cfg: SSDConfig, training: bool):
        import torch
        from ssd_nb.backends.torch_loss import torch_loss
        from ssd_nb.backends.torch_net import TorchNet
        torch.manual_seed(0)
        self.torch, self.loss, self.cfg = torch, torch_loss, cfg
        self.net = TorchNet(cfg).train(training)
        self.step = torch.optim.SGD(self.net.parameters(), lr=.001, momentum=.9, weight_decay=1e-4, foreach=False)

    def put(self, images: np.ndarray):
        "Images whose channels come first in memory, in the shape that the network takes."
        first = self.torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return first.permute(0, 2, 3, 1)

    def predict(self, images: np.ndarray):
        with self.torch.inference_mode(): return [part.numpy() for part in self.net(self.put(images))]

    def train_step(self, batch, lr: float) -> float:
        locs, logits = self.net(self.put(batch.images))
        labels = self.torch.from_numpy(batch.labels).long()
        matched = (labels > 0).sum().float()
        loss = self.loss(locs, logits, self.torch.from_numpy(batch.locs), labels, self.cfg, matched)
        self.step.zero_grad()
        loss.backward()
        self.step.step()
        return float(loss.detach())


def turns(group: str, functions: dict, seconds: float, images: int = 1, **about) -> list[dict]:
    "Call the functions in turn for some seconds, at least three times each; a row for each."
    clock: dict[str, list] = {name: [] for name in functions}
    for function in functions.values(): function() # whatever is made at the first call
    end = time.perf_counter() + seconds*len(functions)
    while len(next(iter(clock.values()))) < 3 or time.perf_counter() < end:
        for name, function in functions.items():
            start, busy = time.perf_counter(), time.process_time()
            function()
            clock[name].append((time.perf_counter() - start, time.process_time() - busy))
    found = []
    for name, times in clock.items():
        wall, busy = np.array(times).T
        low, middle, high = np.quantile(wall, (.25, .5, .75))
        found.append(dict(group=group, what=name, seconds=middle, low=low, high=high, processor=float(np.median(busy)),
                          turns=len(times), images=images, **about))
        print(f'{group:11} {about.get("preset", ""):31} {name:12} batch {images:3}: {middle*1e3:9.2f} ms '
              f'({low*1e3:.2f} to {high*1e3:.2f}), {images/middle:8.1f} a second, {len(times)} turns', flush=True)
    return found


def available(*names: str) -> list[str]:
    "The packages that are here."
    def there(name):
        try: return bool(version(name))
        except PackageNotFoundError: return False
    return [name for name in names if there(name)]


def commands(seconds: float, lines: dict[str, list[str]], group: str) -> list[dict]:
    "Processes: their processor time and peak memory, too."
    found, kinds = [], {}
    def run(name):
        process = subprocess.Popen([sys.executable, *lines[name]], stdout=subprocess.DEVNULL)
        _, status, use = os.wait4(process.pid, 0)
        process.returncode = status
        if status: raise SystemExit(f'{lines[name]} failed')
        kinds.setdefault(name, []).append((use.ru_utime + use.ru_stime, use.ru_maxrss/1024))
    for row in turns(group, {name: lambda name=name: run(name) for name in lines}, seconds):
        busy, peak = np.median(kinds[row['what']], 0)
        found.append(row | dict(processor=busy, peak_mb=peak))
    return found


def peak_memory(kind: str, name: str, preset: str, batch: int) -> float:
    "MB that a process of its own has held at most, after three rounds."
    line = [sys.executable, __file__, '--peak', kind, name, preset, str(batch)]
    return float(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1])


def make(name: str, cfg: SSDConfig, training: bool):
    "A session, or the plain network."
    return Plain(cfg, training) if name == 'plain' else make_session(name, cfg, training=training, device='cpu')


def network_rows(preset: str, seconds: float) -> list[dict]:
    "Forward and training step of one network."
    cfg, found = SSDConfig.preset(preset), []
    learners = ['plain', *available('torch', 'mindspore')]
    answering = learners + ['onnx']*(len(available('onnx', 'onnxruntime')) == 2)
    sessions = {name: make(name, cfg, False) for name in answering}
    for batch in (1, 4, 8):
        images = random_batch(cfg, batch).images
        rows = turns('forward', {n: lambda s=s, images=images: s.predict(images) for n, s in sessions.items()},
                     seconds, batch, preset=preset)
        if batch == 8: rows = [r | dict(peak_mb=peak_memory('forward', r['what'], preset, batch)) for r in rows]
        found += rows
    sessions, data = {name: make(name, cfg, True) for name in learners}, random_batch(cfg, 8)
    rows = turns('step', {n: lambda s=s: float(s.train_step(data, .001)) for n, s in sessions.items()}, seconds, 8,
                 preset=preset)
    return found + [row | dict(peak_mb=peak_memory('step', row['what'], preset, 8)) for row in rows]


def loader_rows(folder: Path, seconds: float) -> list[dict]:
    "Batches of drawn scenes by none, one and two workers."
    cfg = SSDConfig.preset('tiny', coco_root=str(folder))
    data = open_dataset(cfg, training=True)
    loaders = {f'{n} workers': Loader(data, cfg, training=True, num_workers=n) for n in range(3)}
    def epoch(loader): return [None for _ in loader.epoch()]
    images = len(loaders['0 workers'])*cfg.batch_size
    try: return turns('loader', {n: lambda x=x: epoch(x) for n, x in loaders.items()}, seconds, images)
    finally:
        for loader in loaders.values(): loader.close()


def other_rows(folder: Path, seconds: float) -> list[dict]:
    "Postprocessing, evaluation, checkpoint."
    cfg, rng = SSDConfig.preset('ssd300_mobilenet_v2'), np.random.default_rng(0)
    locs = rng.normal(0, .5, (8, cfg.num_boxes, 4)).astype(np.float32)
    logits = rng.normal(-4, 1.5, (8, cfg.num_boxes, cfg.class_num)).astype(np.float32)
    sizes = np.full((8, 2), 480)
    found = turns('postprocess', {'detections': lambda: postprocess(locs, logits, sizes, cfg)}, seconds, 8)
    data = open_dataset(SSDConfig.preset('tiny', coco_root=str(folder)), training=False)
    boxes = {r.image_id: Detections((r.boxes[:, [1, 0, 3, 2]]*128).astype(np.float32),
                                    np.ones(len(r.labels), np.float32), r.labels) for r in data.records}
    found += turns('evaluation', {'COCO': lambda: evaluate(boxes, data)}, seconds, len(boxes))
    session, path = make_session(available('torch', 'mindspore')[0], cfg, device='cpu'), folder/'a.safetensors'
    state = session.get_state()
    return found + turns('checkpoint', {'save': lambda: save(path, state, cfg), 'load': lambda: load(path)}, seconds)


def picture(rows: list[dict], path: Path) -> None:
    "Images a second of each network, forward and in training."
    chosen = [r for r in rows if r['group'] in ('forward', 'step')]
    kinds = list(dict.fromkeys((r['group'], r['images']) for r in chosen))
    presets = list(dict.fromkeys(r['preset'] for r in chosen))
    fig, axes = panels(1, len(kinds), width=3.2*len(kinds), height=3.2)
    for ax, (group, images) in zip(axes[0], kinds):
        names = list(dict.fromkeys(r['what'] for r in chosen if (r['group'], r['images']) == (group, images)))
        for k, name in enumerate(names):
            mine = {r['preset']: r['images']/r['seconds'] for r in chosen
                    if (r['group'], r['images'], r['what']) == (group, images, name)}
            ax.bar(np.arange(len(presets)) + k/(len(names) + 1), [mine.get(p, 0) for p in presets],
                   1/(len(names) + 1), label=name)
        ax.set_xticks(np.arange(len(presets)) + .3, [p.replace('_', '\n', 1) for p in presets], fontsize=6)
        ax.set(yscale='log', title=f'{group}, batch {images}')
    axes[0, 0].set_ylabel('images a second')
    axes[0, 0].legend(fontsize=7)
    save_figure(fig, path)


def machine() -> dict:
    "What it was measured on."
    names = [line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines()
             if line.startswith(('model name', 'flags'))][:2]
    packages = available('torch', 'mindspore', 'onnxruntime', 'numpy')
    return dict(processor=names[0], avx512='avx512f' in names[1], cores=len(os.sched_getaffinity(0)),
                load=os.getloadavg()[0], threads=os.environ.get('OMP_NUM_THREADS', ''),
                python=platform.python_version(), packages={n: version(n) for n in packages},
                date=time.strftime('%Y-%m-%d'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('nbs/images/bench.json'))
    parser.add_argument('--presets', nargs='*', default=PRESETS)
    parser.add_argument('--seconds', type=float, default=8., help='for each row [8]')
    parser.add_argument('--large', type=Path, help='folder of scripts/make_large_coco.py')
    parser.add_argument('--peak', nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak: return tell_peak(*args.peak)
    about, folder = machine(), Path(tempfile.mkdtemp())
    write_shapes(folder, train=64, val=64)
    empty, config = ['-c', 'pass'], ['-c', 'import ssd_nb.config']
    rows: list[dict] = []
    def keep(more: list[dict]) -> None: # at once: a long run may be stopped
        rows.extend(more)
        with replacing(args.out) as f: f.write_text(json.dumps(dict(machine=about, rows=rows), indent=1))
    keep(commands(args.seconds, dict(python=empty, config=config, help=['-m', 'ssd_nb.train', '--help']), 'start'))
    opened = dict(scenes=['-c', OPEN, str(folder), 'train', '7'])
    if args.large: opened['COCO size'] = ['-c', OPEN, str(args.large), 'train2017', '81']
    keep(commands(args.seconds, opened, 'open'))
    keep(loader_rows(folder, args.seconds))
    keep(other_rows(folder, args.seconds))
    for preset in args.presets: keep(network_rows(preset, args.seconds))
    picture(rows, args.out.with_suffix('.png'))
    print(f'{args.out}, {args.out.with_suffix(".png")}')


def tell_peak(kind: str, name: str, preset: str, batch: str) -> None:
    "Three rounds, and the most memory."
    import resource
    cfg = SSDConfig.preset(preset)
    network, data = make(name, cfg, kind == 'step'), random_batch(cfg, int(batch))
    for _ in range(3): network.train_step(data, .001) if kind == 'step' else network.predict(data.images)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)


if __name__ == '__main__': main()
