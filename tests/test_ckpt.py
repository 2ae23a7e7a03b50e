"MindSpore's checkpoint files, read and written without MindSpore; the published names."
import hashlib, json, os, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from ssd_nb.networks.table import initial_state, parameters
from ssd_nb.backends.ckpt import read_ckpt, write_ckpt
from ssd_nb.checkpoint import load
from ssd_nb.backends.reference import from_reference, reference_names, to_reference
from ssd_nb.errors import CheckpointError
from ssd_nb.config import SSDConfig

TINY = SSDConfig.preset('tiny')

@pytest.fixture
def published():
    "Names and shapes of the published checkpoint: a file in $SSD_NB_SPEC or in ../shared/spec beside the checkout."
    folder = Path(os.environ.get('SSD_NB_SPEC') or Path(__file__).resolve().parents[2]/'shared'/'spec')
    file = folder/'reference_checkpoint_parameters.json'
    if not file.exists(): pytest.skip(f'no published names: set SSD_NB_SPEC to a folder that holds {file.name}')
    return json.loads(file.read_text())['parameters']

def test_published_names_and_shapes(published):
    names = reference_names(SSDConfig())
    ours = {f'network.{names[p.name]}': (p.shape, p.trainable) for p in parameters(SSDConfig())}
    assert ours == {name: (tuple(shape), trainable) for name, shape, trainable in published}

@pytest.mark.parametrize('prefix', ['network.', '', 'network.network.'])
@pytest.mark.parametrize('training', [False, True])
def test_prefix_and_training_files(tmp_path, prefix, training):
    state, extra = initial_state(TINY), {}
    if training:
        state |= {f'momentum.{p.name}': np.full(p.shape, .5, np.float32) for p in parameters(TINY) if p.trainable}
        extra = dict(momentum=np.float32(.9), learning_rate=np.zeros(100, np.float32), global_step=np.int32(5))
    arrays = {n.replace('network.', prefix): a for n, a in to_reference(state, TINY).items()}
    write_ckpt(tmp_path/'a.ckpt', arrays | extra)
    back = from_reference(read_ckpt(tmp_path/'a.ckpt'), TINY)
    assert set(back) == set(state) and all(np.array_equal(back[k], state[k]) for k in state)

def test_all_misfits_at_once(tmp_path):
    arrays = to_reference(initial_state(TINY), TINY)
    gone, wide = list(arrays)[3], list(arrays)[7]
    del arrays[gone]
    two = np.zeros(2, np.float32)
    arrays |= {wide: np.zeros((3, 3), np.float32), 'network.more': two, 'moments.network.odd': two}
    with pytest.raises(CheckpointError) as e: from_reference(arrays, TINY)
    text = str(e.value)
    assert text.startswith('4 parameters')
    named = gone.removeprefix('network.'), wide.removeprefix('network.')
    for part in (*named, '[3, 3]', 'unknown more', 'unknown moments.odd'): assert part in text

def test_another_network_is_told_by_name(tmp_path):
    write_ckpt(tmp_path/'tiny.ckpt', to_reference(initial_state(TINY), TINY))
    with pytest.raises(CheckpointError, match='tiny.ckpt.*parameters do not fit'): load(tmp_path/'tiny.ckpt')

@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(data):
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder)/'x.ckpt').write_bytes(data)
        try: read_ckpt(file)
        except CheckpointError as e: assert 'x.ckpt' in str(e)

@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(tmp_path_factory, data):
    "Any cut or changed byte ends in arrays or a plain error, never in a crash."
    file = tmp_path_factory.mktemp('x')/'x.ckpt'
    write_ckpt(file, {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': np.arange(3)})
    raw = bytearray(file.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(raw[:data.draw(st.integers(0, len(raw)))])
    try: read_ckpt(file)
    except CheckpointError as e: assert 'x.ckpt' in str(e)

def test_slices(tmp_path, monkeypatch):
    from ssd_nb.backends import ckpt
    monkeypatch.setattr(ckpt, 'SLICE', 100)
    a = np.arange(1000, dtype=np.float32).reshape(10, 100)
    write_ckpt(tmp_path/'a.ckpt', dict(a=a))
    assert np.array_equal(read_ckpt(tmp_path/'a.ckpt')['a'], a)

def test_a_single_number_in_bfloat16(tmp_path):
    "A tensor without dimensions, as scalars are saved."
    from ssd_nb.backends.ckpt import _field
    tensor = _field(2, b'BFloat16') + _field(3, np.float32(1.5).tobytes()[2:])
    (tmp_path/'a.ckpt').write_bytes(_field(1, _field(1, b'scale') + _field(2, tensor)))
    found = read_ckpt(tmp_path/'a.ckpt')['scale']
    assert found.shape == () and found.dtype == np.float32 and found == 1.5

def test_command(tmp_path):
    def run(*args):
        line = [sys.executable, '-m', 'ssd_nb.checkpoint', *map(str, args)]
        return subprocess.run(line, capture_output=True, text=True)
    write_ckpt(tmp_path/'a.ckpt', to_reference(initial_state(TINY), TINY))
    assert run('convert', tmp_path/'a.ckpt', tmp_path/'a.safetensors', '--preset', 'tiny').returncode == 0
    assert run('convert', tmp_path/'a.safetensors', tmp_path/'b.ckpt').returncode == 0
    assert (tmp_path/'a.ckpt').read_bytes() == (tmp_path/'b.ckpt').read_bytes()
    assert 'network.backbone.features_1.0.features.0.weight' in run('show', tmp_path/'b.ckpt').stdout
    for args in (('convert', tmp_path/'a.ckpt'), ('convert', tmp_path/'a.pth', tmp_path/'a.ckpt'),
                 ('show', tmp_path/'none.ckpt'), ('show', __file__)):
        done = run(*args)
        assert done.returncode == 2 and done.stderr.startswith('error: ') and 'Traceback' not in done.stderr

def test_mindspore_reads_and_writes_the_same(tmp_path):
    ms = pytest.importorskip('mindspore')
    weight = np.random.default_rng(0).normal(size=(3, 4, 1, 1)).astype(np.float32)
    arrays = {'a.weight': weight, 'half': np.ones(3, np.float16), 'n': np.array([1, -2], np.int32)}
    write_ckpt(tmp_path/'ours.ckpt', arrays)
    read = ms.load_checkpoint(str(tmp_path/'ours.ckpt'))
    for name, p in read.items(): assert np.array_equal(p.asnumpy(), arrays[name])
    values = [dict(name=n, data=ms.Tensor(a)) for n, a in arrays.items()]
    remembered = dict(epoch_num=3, lr=.5, note='text', flag=True)
    for k, options in enumerate((dict(), dict(crc_check=True), dict(append_dict=remembered))):
        ms.save_checkpoint(values, str(tmp_path/f'{k}.ckpt'), **options)
        found = read_ckpt(tmp_path/f'{k}.ckpt')
        assert all(np.array_equal(found[n], a) and found[n].dtype == a.dtype for n, a in arrays.items())
    assert found['epoch_num'] == 3 and found['lr'] == .5 and ''.join(found['note']) == 'text' and found['flag']
    raw = bytearray((tmp_path/'1.ckpt').read_bytes())
    raw[30] ^= 1
    (tmp_path/'bad.ckpt').write_bytes(raw)
    with pytest.raises(CheckpointError, match='checksum'): read_ckpt(tmp_path/'bad.ckpt')

# sorted lines "name shape learnt" of the networks with a pyramid, as MindSpore names the reference's nested classes
DIGESTS = dict(
    ssd640_mobilenet_v1_fpn=(346, '816d7b08399142b0cf434ed626b3d113e83d65d65b04ba3b7f417b08c69029de'),
    ssd640_resnet50_fpn=(476, '1a038755760f76e7465b12664f30a6506af354a9aabc7c004726646bbb651d33'))

@pytest.mark.parametrize('preset', DIGESTS)
def test_names_of_the_networks_with_a_pyramid(preset):
    cfg = SSDConfig.preset(preset)
    names = reference_names(cfg)
    lines = sorted(f'network.{names[p.name]} {list(p.shape)} {p.trainable}' for p in parameters(cfg))
    assert (len(lines), hashlib.sha256('\n'.join(lines).encode()).hexdigest()) == DIGESTS[preset]

@pytest.mark.parametrize('preset', DIGESTS)
def test_a_file_says_which_network_it_is_of(tmp_path, preset):
    cfg = SSDConfig.preset(preset, class_num=5)
    state = initial_state(cfg)
    write_ckpt(tmp_path/'a.ckpt', to_reference(state, cfg))
    back, found, _ = load(tmp_path/'a.ckpt')
    assert found == cfg and all(np.array_equal(back[name], value) for name, value in state.items())
