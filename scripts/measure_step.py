"""Speed and memory of a training step, each variant in a process of its own:
python scripts/measure_step.py [--batch 4] [--steps 6] [--preset NAME]

Variants: torch, mindspore, and mindspore with the loss in the reference's formulation (one-hot targets, a mask and
weights of [B, N, classes])."""
from __future__ import annotations
import argparse, resource, subprocess, sys, time

ms = ops = None # MindSpore, which `measure` imports if it is asked for: torch may be all there is

def one_hot_loss(locs, logits, target_locs, labels, num_matched, cfg):
    "The same focal loss by way of arrays of [B, N, classes]."
    target = ops.one_hot(labels, logits.shape[-1], ms.Tensor(1., ms.float32), ms.Tensor(0., ms.float32))
    p = ops.sigmoid(logits)
    right = target*p + (1 - target)*(1 - p)
    ones = ops.ones_like(logits)
    entropy = ops.binary_cross_entropy_with_logits(logits, target, ones, ones, reduction='none')
    classes = (ops.pow(1 - right, cfg.gamma)*(target*cfg.alpha + (1 - target)*(1 - cfg.alpha))*entropy).sum()
    matched = ops.cast(labels > 0, locs.dtype)
    boxes = (ops.smooth_l1_loss(locs, target_locs, reduction='none')*ops.expand_dims(matched, -1)).sum()
    return (classes + boxes)/ops.clamp(num_matched, min=1)

def memory() -> float:
    "The most memory that this process has held, in MB."
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024

def measure(variant: str, preset: str, batch_size: int, steps: int) -> None:
    "Print one line of figures."
    from ssd_nb.backends.contract import random_batch
    from ssd_nb.backends.session import make_session
    from ssd_nb.config import SSDConfig
    if variant == 'one-hot':
        from ssd_nb.backends import mindspore_step
        globals().update(ms=mindspore_step.ms, ops=mindspore_step.ops)
        mindspore_step.mindspore_loss = one_hot_loss
    cfg = SSDConfig.preset(preset)
    batch, times = random_batch(cfg, batch_size), []
    session = make_session('torch' if variant == 'torch' else 'mindspore', cfg, device='cpu')
    before = memory()
    for _ in range(steps):
        start = time.perf_counter()
        loss = float(session.train_step(batch, .001))
        times.append(time.perf_counter() - start)
    peak, step = memory(), sorted(times[1:])[(steps - 1)//2]
    print(f'{variant:10} first step {times[0]:6.2f} s, then {step:5.2f} s ({batch_size/step:5.1f} images/s); '
          f'memory {peak:5.0f} MB, of which the steps {peak - before:5.0f} MB; last loss {loss:.4f}')

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--steps', type=int, default=6)
    parser.add_argument('--preset', default='ssd300_mobilenet_v2')
    parser.add_argument('--variant')
    args = parser.parse_args()
    if args.variant: measure(args.variant, args.preset, args.batch, args.steps)
    else:
        same = ['--preset', args.preset, '--batch', str(args.batch), '--steps', str(args.steps)]
        for variant in ('torch', 'mindspore', 'one-hot'):
            subprocess.run([sys.executable, __file__, '--variant', variant, *same], check=True)
