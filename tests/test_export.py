"Files for other programs and hub entries: the same answers as the session's, on drawn scenes and on photographs."
from __future__ import annotations
import json, os, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
from conftest import command, lively_session
from ssd_nb.learning.augment import load_square
from ssd_nb.backends.session import make_session
from ssd_nb.boxes.coding import clip_boxes, decode
from ssd_nb.checkpoint import save
from ssd_nb.config import SSDConfig
from ssd_nb.errors import ConfigError
from ssd_nb.data.dataset import open_dataset
from ssd_nb.export import LIMIT, ExportError, answers, export, probe_images, run_mindir, run_onnx
from ssd_nb.learning.drawings import CLASSES

ROOT = Path(__file__).resolve().parents[1]
onnxruntime = pytest.importorskip('onnxruntime')

@pytest.fixture(scope='module')
def cfg(): return SSDConfig.preset('tiny', classes=CLASSES, norm_momentum=.5, device='cpu')

@pytest.fixture(scope='module')
def session(cfg): return lively_session(cfg)

@pytest.fixture(scope='module')
def checkpoint(cfg, session, tmp_path_factory):
    path = tmp_path_factory.mktemp('run')/'last.safetensors'
    save(path, session.get_state(), cfg)
    return path

@pytest.mark.parametrize('decoded', [False, True])
def test_onnx_answers_as_torch_does(cfg, session, decoded, tmp_path):
    gaps = export(session, cfg, tmp_path/'net.onnx', decoded=decoded)
    images = probe_images(cfg.image_size, 8)
    for count in (1, 3, 8): # 3: any number, not only those that were checked on export
        mine, theirs = run_onnx(tmp_path/'net.onnx', images[:count]), answers(session, images[:count], cfg, decoded)
        for a, b in zip(mine, theirs):
            assert a.dtype == np.float32 and a.shape == b.shape and np.abs(a - b).max() < LIMIT
        assert np.ptp(theirs[1]) > .1
    assert set(gaps) == {1, 8} and 0 < max(gap.absolute for gap in gaps.values()) < LIMIT
    assert [p.name for p in tmp_path.iterdir()] == ['net.onnx']
    file = onnxruntime.InferenceSession(str(tmp_path/'net.onnx'))
    assert file.get_inputs()[0].type == 'tensor(uint8)' and file.get_inputs()[0].shape == ['batch', 128, 128, 3]
    assert [o.name for o in file.get_outputs()] == (['boxes', 'scores'] if decoded else ['locs', 'logits'])
    assert file.get_modelmeta().custom_metadata_map['names'].split('\n') == list(CLASSES)

def test_decoded_answers_by_hand(cfg, session):
    images = probe_images(cfg.image_size, 2)
    (locs, logits), (boxes, scores) = answers(session, images, cfg, False), answers(session, images, cfg, True)
    assert np.array_equal(boxes[..., [1, 0, 3, 2]], clip_boxes(decode(locs, cfg)))
    assert np.allclose(scores, 1/(1 + np.exp(-logits[..., 1:].astype(float))))
    assert (boxes[..., 2:] >= boxes[..., :2]).all()

def test_photographs_through_the_reference_model(sample_data, tmp_path):
    "ONNX within 1e-4 of torch at batch 1 and 8, raw and decoded."
    cfg = SSDConfig(coco_root=str(sample_data('coco-tiny')), norm_momentum=.5)
    session, records = lively_session(cfg, 3), open_dataset(cfg, training=False).records[:8]
    images = np.stack([load_square(r.image, 300, (r.height, r.width)) for r in records])
    for decoded in (False, True):
        export(session, cfg, tmp_path/'net.onnx', decoded=decoded)
        for count in (1, 8):
            mine, theirs = run_onnx(tmp_path/'net.onnx', images[:count]), answers(session, images[:count], cfg, decoded)
            gap = max(float(np.abs(a - b).max()) for a, b in zip(mine, theirs))
            print(f'decoded {decoded}, batch {count}: {gap:.1e} of {np.abs(theirs[1]).max():.1f}')
            assert gap < 1e-4

def test_an_average_is_exported_where_there_is_one(cfg, tmp_path):
    "The command writes what evaluation looks at."
    session = lively_session(cfg.replace(ema=.9), 4)
    save(tmp_path/'last.safetensors', session.get_state(), cfg.replace(ema=.9))
    command('export', tmp_path)
    seeing, images = make_session('torch', cfg, training=False), probe_images(128, 2)
    seeing.set_state(session.get_state())
    assert np.abs(run_onnx(tmp_path/'last.onnx', images)[1] - seeing.predict(images)[1]).max() < LIMIT

def test_command(checkpoint, tmp_path):
    done = command('export', checkpoint.parent, '--decoded', '--output', tmp_path/'shared.onnx')
    assert 'largest difference from the torch session: ' in done.stdout
    assert 'at batch 1, ' in done.stdout and 'at batch 8' in done.stdout and (tmp_path/'shared.onnx').exists()
    assert 'no such checkpoint' in command('export', 'no/such.ckpt', status=2).stderr
    assert 'invalid choice' in command('export', checkpoint, '--format', 'onx', status=2).stderr
    assert list(checkpoint.parent.glob('*.onnx')) == []

def test_a_wrong_file_is_not_written(cfg, session, tmp_path):
    class Turncoat:
        def export(self, path, decoded): session.export(path, decoded)
        def predict(self, images): return tuple(a + .01 for a in session.predict(images))
    with pytest.raises(ExportError, match='differ'): export(Turncoat(), cfg, tmp_path/'wrong.onnx')
    assert list(tmp_path.iterdir()) == []

def test_mindir_answers_as_mindspore_and_torch_do(cfg, session, tmp_path):
    pytest.importorskip('mindspore')
    other = make_session('mindspore', cfg, training=False, device='cpu')
    other.set_state(session.get_state())
    images = probe_images(cfg.image_size, 8)
    for decoded in (False, True):
        gaps = export(other, cfg, tmp_path/'net.mindir', 'mindir', decoded)
        assert set(gaps) == {1, 8} and max(gap.absolute for gap in gaps.values()) < LIMIT
        mine, theirs = run_mindir(tmp_path/'net.mindir', images), answers(session, images, cfg, decoded)
        for a, b in zip(mine, theirs): assert np.abs(a - b).max() < 1e-3

HUB = '''
import json, sys, torch, numpy as np
net = torch.hub.load({root!r}, 'ssd300_mobilenet_v2', source='local')
locs, logits = net(torch.zeros(2, 300, 300, 3, dtype=torch.uint8))
tiny = torch.hub.load({root!r}, 'tiny', source='local', checkpoint={checkpoint!r})
with torch.inference_mode(): mine = tiny(torch.from_numpy(np.load({images!r})))[1].numpy()
found = torch.hub.load({root!r}, 'detector', source='local', checkpoint={checkpoint!r})
parameters = sum(p.numel() for p in net.parameters())
print(json.dumps([list(locs.shape), list(logits.shape), mine.sum().item(), parameters, list(found.classes)]))
'''

def test_torch_hub(checkpoint, session, tmp_path):
    "From another folder, as a user has it."
    np.save(tmp_path/'images.npy', images := probe_images(128, 2))
    code = HUB.format(root=str(ROOT), checkpoint=str(checkpoint), images=str(tmp_path/'images.npy'))
    env = {**os.environ, 'TORCH_HOME': str(tmp_path)}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    locs, logits, total, parameters, names = json.loads(done.stdout.splitlines()[-1])
    assert locs == [2, 1917, 4] and logits == [2, 1917, 81]
    assert parameters == 4_393_461 and names == list(CLASSES)
    assert total == pytest.approx(float(session.predict(images)[1].sum()), rel=1e-4)

def test_mindspore_hub(checkpoint, session, monkeypatch):
    ms = pytest.importorskip('mindspore')
    monkeypatch.syspath_prepend(str(ROOT))
    from mindspore_hub_conf import create_network
    locs, logits = create_network('ssd300_mobilenet_v2')(ms.Tensor(np.zeros((1, 300, 300, 3), np.uint8)))
    assert locs.shape == (1, 1917, 4) and logits.shape == (1, 1917, 81)
    images = probe_images(128, 2)
    tiny = create_network('tiny', str(checkpoint))
    assert np.abs(tiny(ms.Tensor(images))[1].asnumpy() - session.predict(images)[1]).max() < 1e-3
    with pytest.raises(ConfigError, match='ssd300_mobilenet_v2'): create_network('ssd300')
    with pytest.raises(ConfigError, match='class_num'): create_network('tiny', classnum=3)
