"Training and evaluation as commands, on toy scenes and on real images."
import csv, json
import numpy as np, pytest
from conftest import BACKEND, command
from ssd_nb.backends.session import make_session
from ssd_nb.config import SSDConfig
from ssd_nb.data.dataset import open_dataset
from ssd_nb.data.loader import Loader
from ssd_nb.learning.losses import multibox_loss
from ssd_nb.learning.shapes import write_shapes

@pytest.fixture(scope='module')
def scenes(tmp_path_factory): return write_shapes(tmp_path_factory.mktemp('data')/'shapes', train=48, val=8)

@pytest.fixture(scope='module')
def runs(scenes, tmp_path_factory):
    "The same run twice, with different numbers of workers."
    out = tmp_path_factory.mktemp('runs')
    flags = ['--preset', 'tiny', '--backend', BACKEND, '--coco_root', scenes, '--device', 'cpu',
             '--epoch_size', 2, '--eval_start_epoch', 2, '--log_steps', 1]
    def run(name, workers):
        return out/name, command('train', *flags, '--num_workers', workers, '--output_dir', out/name)
    return [run('a', 0), run('b', 2)]

def test_same_seed_same_numbers(runs):
    (a, _), (b, _) = runs
    assert (a/'metrics.csv').read_bytes() == (b/'metrics.csv').read_bytes()
    assert (a/'predictions.json').read_bytes() == (b/'predictions.json').read_bytes()

def test_run_folder_and_lines(runs):
    folder, done = runs[0]
    files = {'best.safetensors', 'config.yaml', 'curves.png', 'detections.png', 'epoch-0002.safetensors',
             'last.safetensors', 'metrics.csv', 'predictions.json', 'report.html', 'report.json', 'train.log'}
    assert {p.name for p in folder.iterdir()} == files
    for text in ('epoch: 2 step: 3, loss is ', 'epoch time: ', ', per step time: ', '\nmAP: '):
        assert text in done.stdout
    assert done.stdout.count('Average Precision') == 6 and done.stdout.count('Average Recall') == 6
    assert (folder/'train.log').read_text() == done.stdout
    rows = list(csv.DictReader((folder/'metrics.csv').open()))
    assert [(r['epoch'], r['step']) for r in rows] == [(str(e), str(s)) for e in (1, 2) for s in (1, 2, 3)]
    assert rows[-1]['mAP'] == f"{json.loads((folder/'report.json').read_text())['AP']:.6f}"

def test_eval_command_repeats_the_numbers_of_training(runs, tmp_path):
    folder, trained = runs[0]
    done = command('eval', '--checkpoint_path', folder, '--device', 'cpu', '--output_dir', tmp_path/'eval')
    assert done.stdout.split('mAP: ')[1].split()[0] == trained.stdout.split('mAP: ')[1].split()[0]
    files = {'detections.png', 'precision.png', 'predictions.json', 'report.json', 'review.png'}
    assert {p.name for p in (tmp_path/'eval').iterdir()} == files

@pytest.mark.parametrize('module, args, message', [
    ('train', ['--dataset', 'coco', '--coco_root', '/no/such/folder'], '/no/such/folder'),
    ('train', ['--preset', 'tiny', '--class_num', 5], '--class_num 7'),
    ('train', ['--preset', 'tiny', '--batch_size', 1000], 'batch_size'),
    ('train', ['--preset', 'tiny', '--batch_size', 1], '--batch_size 2'),
    ('eval', [], '--checkpoint_path'),
    ('eval', ['--checkpoint_path', '/no/such/file'], '/no/such/file')])
def test_mistakes_end_in_a_sentence(module, args, message, scenes, tmp_path):
    root = ['--coco_root', scenes] if '--coco_root' not in args and module == 'train' else []
    done = command(module, *args, *root, status=2, cwd=tmp_path)
    assert message in done.stderr and list(tmp_path.iterdir()) == []

def test_real_images_start_at_the_loss_of_the_formula(sample_data):
    """Fresh weights on COCO images: nearly undecided answers (logits with a standard deviation of 0.5 cost a few per
    cent more), over the matched boxes; then the loss falls."""
    cfg = SSDConfig(coco_root=str(sample_data('coco-tiny')), batch_size=8, num_workers=0)
    batch = next(iter(Loader(open_dataset(cfg, training=True), cfg, training=True).epoch(0)))
    session = make_session(BACKEND, cfg, device='cpu')
    zeros = np.zeros_like(batch.locs), np.zeros((*batch.labels.shape, 81), np.float32)
    expected = multibox_loss(*zeros, batch.locs, batch.labels)
    losses = [float(session.train_step(batch, lr)) for lr in (.001, .01, .02)]
    assert 1 < losses[0]/expected < 1.15 and losses[-1] < losses[0]
