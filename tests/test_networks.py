"Networks as rows: names, sizes and boxes that fit; both backends compared; averages of the weights; several devices."
import json
import os
import subprocess
from pathlib import Path
import numpy as np
import pytest
from conftest import BACKENDS
from ssd_nb.backends.contract import SMALL, random_batch
from ssd_nb.boxes.default_boxes import default_boxes
from ssd_nb.backends.session import AVERAGED, EMA, SCALER, WARM, average_decay, launcher, make_session
from ssd_nb.config import SSDConfig
from ssd_nb.errors import ConfigError
from ssd_nb.networks.layers import Layer, Row, row_parameters, row_sizes, same_conv, size_after
from ssd_nb.networks.table import NETWORKS, count, feature_map_sizes, initial_state, least_batch, parameters, rows

@pytest.mark.parametrize('wrong, field', [
    (dict(first_stride=8, steps=()), 'first_stride.*--map_sizes 19,10,5,3,2,1'),
    (dict(map_sizes=(20, 10, 5, 3, 2, 1), steps=()), 'map_sizes'),
    (dict(network='mobilenet_w2'), 'network.*mobilenet_v2'),
    (dict(aspect_ratios=((2,),)*5, steps=()), 'aspect_ratios.*5.*6'),
    (dict(network='resnet50_fpn', image_shape=(600, 600), steps=(), first_stride=8, box_layout='retina'),
     'image_shape.*608.*600'),
    (dict(network='resnet50_fpn', image_shape=(640, 640), steps=(), first_stride=8), 'aspect_ratios.*one head')])
def test_boxes_that_do_not_fit_the_network_are_refused(wrong, field):
    with pytest.raises(ConfigError, match=field): SSDConfig(**wrong)

@pytest.mark.parametrize('size', [300, 320, 512])
def test_network_and_boxes_agree(size):
    cfg = SSDConfig(image_shape=(size, size), steps=())
    assert feature_map_sizes(cfg) == tuple(m.size for m in cfg.maps)

@pytest.mark.parametrize('name', NETWORKS)
def test_rows_read_what_was_made_before_them(name):
    cfg, known = next(SSDConfig.preset(n) for n in PRESETS_OF[name]), {'image'}
    for row in rows(cfg):
        assert set(row.sources) <= known and row.part in ('backbone', 'neck', 'head') and row.layers
        known.add(row.name)

def test_names_of_the_checkpoint_follow_the_table():
    cfg = SSDConfig()
    assert len(parameters(cfg)) == 409 and len({p.name for p in parameters(cfg)}) == 409
    sizes = row_sizes(rows(cfg), cfg.image_shape)
    for row in rows(cfg):
        size = sizes[row.sources[0]]
        for layer in row.layers:
            after = size_after(layer, size)
            assert layer.groups in (1, layer.cin) and after == tuple(-(-n//layer.stride) for n in size)
            size = after

PUBLISHED = dict(ssd300_vgg16=(35_641_826, 8732), ssdlite320_mobilenet_v3_large=(3_440_060, 3234)) # numbers, boxes

def published_shapes(name):
    "Names and shapes of torchvision's network: a file in $SSD_NB_SPEC or in ../shared/spec beside the checkout."
    folder = Path(os.environ.get('SSD_NB_SPEC') or Path(__file__).resolve().parents[2]/'shared'/'spec')
    file = folder/'torchvision_parameters.json'
    if not file.exists(): pytest.skip(f'no published names: set SSD_NB_SPEC to a folder that holds {file.name}')
    return [(n, tuple(s)) for n, s in json.loads(file.read_text())[name] if not n.endswith('num_batches_tracked')]

@pytest.mark.parametrize('name', PUBLISHED)
def test_published_numbers_of_parameters(name):
    cfg = SSDConfig.preset(name)
    assert (count(cfg), cfg.num_boxes) == PUBLISHED[name]
    ours, theirs = [p.shape for p in parameters(cfg)], [shape for _, shape in published_shapes(name)]
    assert sorted(ours) == sorted(theirs)

def test_vgg16_has_the_published_order():
    cfg = SSDConfig.preset('ssd300_vgg16')
    ours = [p for p in parameters(cfg) if p.part != 'head' and p.kind in ('weight', 'bias')]
    theirs = [(n, s) for n, s in published_shapes('ssd300_vgg16') if n.startswith(('backbone.fea', 'backbone.ex'))]
    assert [p.shape for p in ours] == [shape for _, shape in theirs]

def test_mobilenet_v3_has_the_published_order():
    "Heads apart, in which torchvision puts the classes first."
    cfg = SSDConfig.preset('ssdlite320_mobilenet_v3_large')
    theirs = [s for n, s in published_shapes('ssdlite320_mobilenet_v3_large') if n.startswith('backbone')]
    assert [p.shape for p in parameters(cfg) if p.part != 'head'] == theirs

@pytest.mark.parametrize('name, numbers', dict(mobilenet_v1=12_534_846, resnet50=33_294_654).items())
def test_pyramids_have_retinanets_boxes(name, numbers):
    "51,150 of them: at each cell squares of 4 and 4*sqrt(2) cells, then the same areas lying, then standing."
    cfg = SSDConfig.preset(f'ssd640_{name}_fpn')
    assert (count(cfg), cfg.num_boxes) == (numbers, 51_150)
    start = 0
    for cells in (80, 40, 20, 10, 5):
        first = default_boxes(cfg)[start:start + 6]*cells
        np.testing.assert_allclose(first[:, :2], .5, rtol=1e-6)
        height, width = first[:, 2], first[:, 3]
        np.testing.assert_allclose(height*width, [16, 32]*3, rtol=1e-5)
        np.testing.assert_allclose(width/height, [1, 1, 2, 2, .5, .5], rtol=1e-5)
        start += 6*cells**2
    heads = [p for p in parameters(cfg) if p.part == 'head']
    assert sum(p.kind == 'weight' for p in heads) == 10 # five of each kind for all maps
    assert sum(p.kind == 'gamma' for p in heads) == 2*4*5 # the norms are each map's own

def wide_state(cfg):
    "First weights with a spread of (2/inputs)**.5: with one of 0.02 the numbers would fade from layer to layer."
    state = initial_state(cfg)
    for p in parameters(cfg):
        if p.kind == 'weight': state[p.name] *= (2/np.prod(p.shape[1:]))**.5/cfg.init_sigma
    return state

# beside the reference's, see test_parity: what departs from the preset, steps, learning rate. The networks with a
# pyramid are as wide as ever on a smaller picture; a first loss of 11,000 needs small steps
FURTHER = dict(ssd300_vgg16=({}, 1, .001), ssdlite320_mobilenet_v3_large=({}, 5, .001),
               ssd640_mobilenet_v1_fpn=(dict(image_shape=(256, 256)), 1, 1e-5),
               ssd640_resnet50_fpn=(dict(image_shape=(256, 256)), 2, 1e-5))

@pytest.mark.parametrize('preset', FURTHER)
def test_outputs_are_the_same_in_both_backends(preset):
    for name in BACKENDS: pytest.importorskip(name)
    cfg, found = SSDConfig.preset(preset, **FURTHER[preset][0]), []
    images = random_batch(cfg, 1).images
    for name in BACKENDS:
        session = make_session(name, cfg, training=False, device='cpu')
        session.set_state(wide_state(cfg))
        found.append(session.predict(images))
    for a, *others in zip(*found):
        assert a.shape[1] == cfg.num_boxes and a.std() > 0
        for b in others: assert np.abs(a - b).max() <= 1e-4*np.abs(a).max()

@pytest.mark.parametrize('preset', FURTHER)
def test_losses_are_the_same_in_both_backends(preset):
    for name in BACKENDS: pytest.importorskip(name)
    changes, steps, rate = FURTHER[preset]
    cfg, found = SSDConfig.preset(preset, **changes), []
    batch = random_batch(cfg, least_batch(cfg))
    for name in BACKENDS:
        session = make_session(name, cfg, device='cpu')
        found.append([float(session.train_step(batch, rate)) for _ in range(steps)])
    a, *others = map(np.array, found)
    for b in others: assert abs(a[0]/b[0] - 1) <= 1e-5 and np.abs(a/b - 1).max() <= .01

def test_a_network_without_batch_norm_learns(backend):
    "A step of VGG16 with moving averages, on an image: weights move, and everything stays finite."
    cfg = SSDConfig.preset('ssd300_vgg16', ema=.9)
    session = make_session(backend, cfg, device='cpu')
    assert np.isfinite(float(session.train_step(random_batch(cfg, 1), .001)))
    state = session.get_state()
    assert state[SCALER].tolist() == [cfg.loss_scale, 1, 0] and state[AVERAGED] == [1]
    assert (state['map0.scale'] > 19).all() and state['momentum.logits0.predict.bias'].any()

PRESETS_OF = dict(mobilenet_v2=['ssd300_mobilenet_v2'], vgg16=['ssd300_vgg16'],
                  mobilenet_v2_openimages=['ssd300_mobilenet_v2_openimages'],
                  mobilenet_v3_large=['ssdlite320_mobilenet_v3_large'],
                  mobilenet_v1_fpn=['ssd640_mobilenet_v1_fpn'], resnet50_fpn=['ssd640_resnet50_fpn'])

def test_shared_weights_are_stored_once():
    table = [Row(f'p{k}', ('image',), (Layer(f'p{k}', 3, 8, norm='batch', weights='p'),)) for k in range(2)]
    names = [p.name for p in row_parameters(table)]
    assert names.count('p.weight') == 1 and 'p0.gamma' in names and 'p1.gamma' in names

def test_sizes_are_height_and_width():
    table = [Row('half', ('image',), (same_conv('half', 3, 8, (90, 41), 3, 2),))]
    assert row_sizes(table, (90, 41))['half'] == (45, 21)

def test_averages_forget_the_random_start(backend):
    "Six steps at 0.999: without a warm-up more than 99 % of the start would be left."
    cfg, batch = SMALL.replace(ema=.999), random_batch(SMALL, 4)
    session = make_session(backend, cfg, device='cpu')
    states = [session.get_state()]
    for _ in range(6):
        session.train_step(batch, .02)
        states.append(session.get_state())
    for name in ('stem.weight', 'stem.mean'):
        expected = states[0][name]
        for n, state in enumerate(states[1:]):
            d = average_decay(cfg.ema, n)
            expected = d*expected + (1 - d)*state[name]
        np.testing.assert_allclose(states[-1][EMA + name], expected, rtol=1e-4, atol=1e-6)
    assert states[-1][AVERAGED] == [6]

def test_averages_go_on_where_a_checkpoint_left_them(backend):
    "Bit for bit; and a checkpoint without the count, as older ones are, has its warm-up behind it."
    cfg, batch = SMALL.replace(ema=.9), random_batch(SMALL, 4)
    one, two = (make_session(backend, cfg, device='cpu') for _ in range(2))
    for _ in range(3): one.train_step(batch, .02)
    kept = one.get_state()
    two.set_state(kept)
    for session in (one, two): session.train_step(batch, .02)
    assert all(np.array_equal(v, two.get_state()[k]) for k, v in one.get_state().items())
    two.set_state({k: v for k, v in kept.items() if k != AVERAGED})
    assert two.get_state()[AVERAGED] == [WARM]
    two.train_step(batch, .02)
    after, name = two.get_state(), 'stem.weight'
    np.testing.assert_allclose(after[EMA + name], .9*kept[EMA + name] + .1*after[name], rtol=1e-5, atol=1e-7)

def test_running_variances_of_devices_are_joined():
    "As if one device had seen all: the mean of the variances and the variance of the means."
    torch = pytest.importorskip('torch')
    from ssd_nb.backends.torch_devices import spread_of_means
    rng = np.random.default_rng(0)
    x = rng.normal(rng.normal(0, 3, (4, 1, 5)), rng.uniform(.5, 2, (4, 1, 5)), (4, 200, 5)) # devices, pixels, channels
    m, mean, variance = .03, rng.normal(size=5), rng.uniform(1, 2, 5)
    moves = m*(x.mean(1) - mean)
    spread = spread_of_means(torch.tensor((moves**2).mean(0)), torch.tensor(moves.mean(0)), m)
    joint = ((1 - m)*variance + m*x.var(1)).mean(0) + spread.numpy()
    np.testing.assert_allclose(joint, (1 - m)*variance + m*x.reshape(-1, 5).var(0), rtol=1e-10)
    assert not spread_of_means(torch.zeros(3), torch.zeros(3), 0.).any() # statistics that stand still

def test_two_processes_join_their_running_statistics(backend, tmp_path):
    "Dark images on one, bright ones on the other: the variance of both together, in the first layer."
    (tmp_path/'twins.py').write_text(TWINS.format(backend=backend, out=str(tmp_path/'out.json')))
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path}
    done = subprocess.run(launcher(backend, 2, 'twins'), env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path/'out.json').read_text())
    np.testing.assert_allclose(found['two'], found['joined'], rtol=1e-2) # unbiased on each device, so not exactly
    assert max(np.array(found['joined'])/found['averaged']) > 1.5 # what averages of variances would miss

TWINS = '''
import json, os, numpy as np
from ssd_nb.backends.contract import SMALL, random_batch
from ssd_nb.backends.session import join, make_session
from ssd_nb.data.loader import Batch
group = join('{backend}', 'cpu')
batch = random_batch(SMALL, 4)
halves = [batch.images[:2]//4, 192 + batch.images[2:]//4] # dark, bright
cfg = SMALL.replace(norm_momentum=0., freeze_layer='')
def part(images, k):
    return Batch(images=images, locs=batch.locs[k], labels=batch.labels[k], num_matched=batch.num_matched[k],
                 image_ids=batch.image_ids[k])
both = slice(0, 2), slice(2, 4)
session = make_session('{backend}', cfg, device='cpu')
session.train_step(part(halves[group.rank], both[group.rank]), 0.)
two = session.get_state()['stem.variance']
weight = session.get_state()['stem.weight']
def stem(images):
    x = ((images/255. - cfg.pixel_mean)/cfg.pixel_std).transpose(0, 3, 1, 2)
    x = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2]
    return np.einsum('bchwij,ocij->bohw', windows, weight).swapaxes(0, 1).reshape(len(weight), -1)
a, b = map(stem, halves)
if group.rank == 0:
    joined = np.concatenate([a, b], 1).var(1)
    averaged = (a.var(1) + b.var(1))/2
    found = dict(two=two.tolist(), joined=joined.tolist(), averaged=averaged.tolist())
    with open('{out}', 'w', encoding='utf-8') as f: json.dump(found, f)
group.largest(0.)
os._exit(0) # all is written; threads of the group's messages may still be at work, and an orderly end would meet them
'''
