"Every flag has its effect, and what goes wrong ends in a sentence with the last checkpoint whole."
import csv, json, os, re, resource, shutil, signal, struct, subprocess, sys
from dataclasses import replace
from pathlib import Path
import cv2, numpy as np, pytest
from conftest import BACKEND, NET, command, shadow
from ssd_nb import checkpoint, train as training
from ssd_nb.networks.table import initial_state, parameters
from ssd_nb.backends.contract import random_batch
from ssd_nb.backends.session import make_session
from ssd_nb.config import PRESETS, SSDConfig, make_parser, read_yaml
from ssd_nb.errors import ConfigError, UserError
from ssd_nb.data.dataset import open_dataset
from ssd_nb.learning.schedule import learning_rates
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.train import train
from ssd_nb.training.metrics import read_steps
from ssd_nb.training.run import RunError
from ssd_nb.training.stop import Stopped

MICRO = dict(**NET, batch_size=8, epoch_size=2, device='cpu', num_workers=0, run_eval=False, warmup_epochs=1.)

@pytest.fixture(scope='module')
def scenes(tmp_path_factory): return write_shapes(tmp_path_factory.mktemp('data')/'shapes', train=24, val=8)

@pytest.fixture
def micro(scenes, tmp_path):
    "For what the loop does, whichever framework is below it."
    return SSDConfig.preset('tiny', backend=BACKEND, coco_root=str(scenes), output_dir=str(tmp_path/'run'), **MICRO)

@pytest.fixture
def each(micro, backend):
    "For what a framework does itself: once with each."
    return micro.replace(backend=backend)

@pytest.fixture(scope='module')
def trained(scenes, backend, tmp_path_factory):
    cfg = SSDConfig.preset('tiny', backend=backend, coco_root=str(scenes), output_dir=str(tmp_path_factory.mktemp('trained')/'run'), **MICRO)
    return train(cfg.replace(epoch_size=4, save_checkpoint_epochs=1, keep_checkpoint_max=0, save_checkpoint_steps=0))

def last(run, name='last'): return checkpoint.load(Path(run.folder)/f'{name}.safetensors')[0]
def names(run): return {p.name for p in Path(run.folder).iterdir()}

# Flags

def test_schedule_flags(micro):
    run = train(micro.replace(lr=.02, lr_init=.004, epoch_size=3, batch_size=12))
    steps = read_steps(run.folder/'metrics.csv')
    assert [(s.epoch, s.step) for s in steps] == [(e, k) for e in (1, 2, 3) for k in (1, 2)] # 24 images, 12 a step
    assert steps[0].lr == pytest.approx(.004) and max(s.lr for s in steps) == pytest.approx(.02)

def test_save_checkpoint_epochs_and_keep_checkpoint_max(micro):
    assert {n for n in names(train(micro.replace(epoch_size=5, save_checkpoint_epochs=2))) if 'safetensors' in n} == {'last.safetensors', *(f'epoch-000{k}.safetensors' for k in (2, 4, 5))}
    few = train(micro.replace(epoch_size=5, save_checkpoint_epochs=1, keep_checkpoint_max=2, output_dir=micro.output_dir + '2'))
    assert {n for n in names(few) if 'epoch' in n} == {'epoch-0004.safetensors', 'epoch-0005.safetensors'}

def test_save_best_ckpt(micro):
    cfg = micro.replace(run_eval=True, eval_start_epoch=1, eval_interval=1)
    run = train(cfg)
    scores = [s.mAP for s in run.steps if s.mAP is not None]
    assert len(scores) == 2 and checkpoint.load(run.folder/'best.safetensors')[2]['best'] == max(scores)
    assert 'best.safetensors' not in names(train(cfg.replace(save_best_ckpt=False, output_dir=cfg.output_dir + '2')))

def test_a_state_is_taken_over_at_any_time(each):
    "Also by a session that has trained and predicted; and what it has learnt since its last prediction is seen by the next."
    one, two, other = (make_session(each.backend, each, training=training, device='cpu') for training in (True, True, False))
    batches = [random_batch(each, 4, seed=k) for k in range(3)]
    def same(): return all(np.array_equal(a, b) for a, b in zip(one.predict(batches[0].images), other.predict(batches[0].images)))
    for session in (one, two, other): session.predict(batches[0].images)
    for batch in batches:
        one.train_step(batch, .02)
        other.set_state(one.get_state())
        assert same()
    two.train_step(batches[1], .02)
    two.set_state(one.get_state())
    assert float(one.train_step(batches[0], .02)) == float(two.train_step(batches[0], .02))
    assert all(np.array_equal(v, two.get_state()[k]) for k, v in one.get_state().items())

def test_class_num_and_image_shape(each):
    run = train(each.replace(image_shape=(96, 96), epoch_size=1))
    assert last(run)['logits0.predict.bias'].shape == (7*3,)
    locs, logits = make_session(run.cfg.backend, run.cfg, training=False).predict(np.zeros((1, 96, 96, 3), np.uint8))
    assert locs.shape[1] == run.cfg.num_boxes != each.num_boxes and logits.shape[2] == 7
    with pytest.raises(UserError, match='--class_num 7'): train(each.replace(class_num=5))

def test_seed(each):
    one, two = (train(each.replace(seed=k, epoch_size=1, output_dir=f'{each.output_dir}{k}')) for k in (1, 2))
    assert one.steps[0].loss != two.steps[0].loss

def test_loss_scale_too_large_overflows(each):
    with pytest.raises(RunError, match='overflowed.*--dynamic_loss_scale'): train(each.replace(loss_scale=3e38))

def test_dynamic_loss_scale_finds_its_place(each):
    run = train(each.replace(loss_scale=3e38, dynamic_loss_scale=True, epoch_size=6, batch_size=2))
    scale, _, skipped = last(run)['scaler']
    assert scale < 3e38 and 0 < skipped < 40 and 'overflowed and were skipped' in (run.folder/'train.log').read_text()
    assert all(np.isfinite(s.loss) for s in run.steps) # the loss itself is not scaled

@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
def test_amp_learns_like_float32(amp, each, trained):
    run = train(each.replace(amp=amp, epoch_size=4))
    ratio = float(run.steps[-1].loss)/float(trained.steps[-1].loss)
    assert ratio != 1 and .7 < ratio < 1.4 and last(run)['scaler'][2] == 0
    assert all(v.dtype == np.float32 for v in last(run).values())

def test_ema_is_evaluated(each):
    cfg = each.replace(ema=.9, run_eval=True, eval_start_epoch=2)
    run, state = train(cfg), None
    session, state = make_session(run.cfg.backend, run.cfg, training=False), last(run)
    session.set_state(state)
    averaged = {k: state['ema.' + k] for k in initial_state(run.cfg)}
    assert all(np.array_equal(session.get_state()[k], v) for k, v in averaged.items())
    assert any(not np.array_equal(state[k], v) for k, v in averaged.items())

def events(folder):
    "All events of a run, file by file, their checksums verified."
    event_pb2, crc = pytest.importorskip('tensorboardX.proto.event_pb2'), pytest.importorskip('tensorboardX.record_writer').masked_crc32c
    for path in sorted(folder.glob('events.out.tfevents.*'), key=lambda p: (p.stat().st_mtime_ns, p.name)):
        data, found = path.read_bytes(), []
        while data:
            size, check = struct.unpack('<QI', data[:12])
            content, (end,) = data[12:12 + size], struct.unpack('<I', data[12 + size:16 + size])
            assert crc(data[:8]) == check and crc(content) == end
            found.append(event_pb2.Event.FromString(content))
            data = data[16 + size:]
        yield found

def numbers(events):
    "What is shown of each step, without those that a later file makes it forget; nothing may be shown twice."
    shown = {}
    for e in [e for file in events for e in file]:
        if e.HasField('session_log'): shown = {k: v for k, v in shown.items() if k[0] < e.step}
        for v in e.summary.value:
            assert (e.step, v.tag) not in shown
            shown[e.step, v.tag] = v.simple_value
    return shown

def wanted(steps):
    found = {(n, k): getattr(s, k) for n, s in enumerate(steps, 1) for k in ('loss', 'lr', 'mAP', 'AP50')}
    return {k: np.float32(v) for k, v in found.items() if v is not None}

def test_tensorboard_file_holds_every_step(micro):
    run = train(micro.replace(tensorboard=True, run_eval=True, eval_start_epoch=1, eval_interval=1, save_best_ckpt=False, save_checkpoint_epochs=2))
    (found,) = events(run.folder)
    assert found[0].file_version == 'brain.Event:2' and [e.step for e in found[1:]] == [1, 1, 2, 3, 3, 4, 5, 6, 6] # two epochs of three steps, each judged
    assert numbers([found]) == wanted(run.steps) and (6, 'mAP') in numbers([found])

@pytest.mark.parametrize('at', ['step', 'evaluation', 'checkpoint'])
def test_tensorboard_shows_a_run_once_and_changes_no_number(at, micro, monkeypatch):
    "Killed in the eighth step, with a checkpoint after the sixth; while evaluating; or before the evaluation is in a checkpoint."
    cfg = micro.replace(save_checkpoint_steps=2, batch_size=6, run_eval=True, eval_start_epoch=1, eval_interval=1, save_best_ckpt=False) # four steps an epoch
    plain = train(cfg.replace(output_dir=cfg.output_dir + '-plain'))
    class Killed(BaseException): pass
    def kill(*_): raise Killed
    write = checkpoint.save
    def not_the_last(*args, **about): kill() if about['step'] == 8 and not about['evaluate'] else write(*args, **about)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        if at == 'step': meddle(patch, 8, kill)
        if at == 'evaluation': patch.setattr(training, 'evaluate', kill)
        if at == 'checkpoint': patch.setattr(checkpoint, 'save', not_the_last)
        train(cfg.replace(tensorboard=True))
    resumed = train(cfg.replace(tensorboard=True), resume=cfg.output_dir)
    assert numbers(events(resumed.folder)) == wanted(plain.steps)
    assert (resumed.folder/'metrics.csv').read_bytes() == (plain.folder/'metrics.csv').read_bytes()
    assert all(np.array_equal(v, last(plain)[k]) for k, v in last(resumed).items())

@pytest.mark.parametrize('count', [1, 2])
def test_tensorboard_without_its_package(count, tmp_path):
    "Said once and before anything is done, also when there would be many processes."
    (tmp_path/'absent').mkdir()
    shadow('tensorboardX', tmp_path/'absent')
    path = os.pathsep.join([str(tmp_path/'absent'), str(Path(__file__).parents[1])])
    done = command('train', '--preset', 'tiny', '--coco_root', 'scenes', '--tensorboard', '--device_num', count, status=2, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': path})
    assert done.stderr.count("--tensorboard needs tensorboardX, which is not installed: pip install 'ssd_nb[tensorboard]'") == 1
    assert [p.name for p in tmp_path.iterdir()] == ['absent']

def test_freeze_layer(each, trained):
    run = train(each.replace(pre_trained=str(trained.folder), freeze_layer='backbone'))
    before, after = last(trained), last(run)
    for p in parameters(run.cfg):
        if p.part == 'backbone': assert np.array_equal(before[p.name], after[p.name]), p.name
    assert not np.array_equal(before['logits0.predict.bias'], after['logits0.predict.bias'])

def test_pre_trained_starts_from_the_weights(each, trained):
    run = train(each.replace(pre_trained=str(trained.folder/'last.safetensors'), lr=1e-9, lr_init=1e-9, epoch_size=1))
    before, after = last(trained), last(run)
    assert all(np.allclose(before[p.name], after[p.name], atol=1e-5) for p in parameters(run.cfg) if p.trainable)
    assert len(run.steps) == 3 and float(run.steps[0].loss) < .7*float(trained.steps[0].loss)

def test_pre_trained_epoch_size_continues_there(each, trained, scenes):
    "Two epochs, then the other two from the checkpoint: the numbers of the run of four."
    class Cut(Exception): pass
    def cut(run, session, judge, epoch, per_epoch, stop, finish=training.finish_epoch):
        finish(run, session, judge, epoch, per_epoch, stop)
        if epoch == 1: raise Cut
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr(training, 'finish_epoch', cut)
        train(each.replace(epoch_size=4, save_checkpoint_epochs=2))
    run = train(each.replace(epoch_size=4, pre_trained=each.output_dir, pre_trained_epoch_size=2, output_dir=each.output_dir + '2'))
    assert [s.row() for s in run.steps] == [s.row() for s in trained.steps[6:]]
    assert all(np.array_equal(v, last(trained)[k]) for k, v in last(run).items() if k != 'scaler')

def test_pre_trained_epoch_size_of_the_reference(each, trained):
    run = train(each.replace(protocol='reference', epoch_size=4, pre_trained=str(trained.folder), pre_trained_epoch_size=2, crop_sides=(.3, 1.)))
    rates = learning_rates(run.cfg, 3)
    assert [s.lr for s in run.steps] == pytest.approx([*rates[6:], *[rates[-1]]*6])

def test_filter_weight_on_another_number_of_classes(each, trained, tmp_path, scenes):
    state = {**last(trained)}
    cfg = trained.cfg.replace(class_num=81, classes=())
    checkpoint.save(tmp_path/'81.safetensors', {**initial_state(cfg), **{k: v for k, v in state.items() if k in initial_state(cfg) and 'logits' not in k}}, cfg)
    with pytest.raises(ConfigError, match='81 classes.*--filter_weight'): train(each.replace(pre_trained=str(tmp_path/'81.safetensors')))
    still = dict(pre_trained=str(tmp_path/'81.safetensors'), filter_weight=True, lr=1e-9, lr_init=1e-9, epoch_size=1)
    both, classes = (last(train(each.replace(**still, output_dir=f'{tmp_path}/{k}', checkpoint_filter_list=names))) for k, names in
                     enumerate((('multi_loc_layers', 'multi_cls_layers'), ('logits',))))
    fresh = initial_state(each)
    assert np.allclose(classes['locs0.predict.weight'], state['locs0.predict.weight'], atol=1e-5) and np.allclose(both['locs0.predict.weight'], fresh['locs0.predict.weight'], atol=1e-5)
    assert np.allclose(both['stem.weight'], state['stem.weight'], atol=1e-5) and both['logits0.predict.bias'].shape == (7*3,)

def test_81_classes_to_blood_cells(sample_data, tmp_path, monkeypatch):
    "The full network from a file of COCO's 81 classes, by the command: the heads are fresh, all else starts from the file, and the loss falls."
    big, voc, started = SSDConfig(seed=2), tmp_path/'voc', []
    checkpoint.save(tmp_path/'81.safetensors', initial_state(big), big)
    (voc/'ImageSets/Main').mkdir(parents=True)
    for name in ('Annotations', 'JPEGImages'): (voc/name).symlink_to(sample_data('bccd')/name)
    (voc/'ImageSets/Main/trainval.txt').write_text('\n'.join(sorted(p.stem for p in (voc/'Annotations').iterdir())[:8]))
    make, made = training.make_session, []
    monkeypatch.setattr(training, 'make_session', lambda *args, **kw: made.append(make(*args, **kw)) or made[0])
    meddle(monkeypatch, 1, lambda batch: started or started.append(made[0].get_state()))
    training.main(f'--backend {BACKEND} --dataset voc --voc_root {voc} --class_num 4 --pre_trained {tmp_path}/81.safetensors --filter_weight --on_bad_data skip --device cpu --num_workers 0 --batch_size 4 '
                  f'--epoch_size 3 --warmup_epochs 1 --lr .02 --augment false --output_dir {tmp_path}/run'.split())
    steps, cfg = read_steps(tmp_path/'run/metrics.csv'), SSDConfig(class_num=4)
    assert len(steps) == 6 and steps[-1].loss < .5*steps[0].loss
    file, fresh, heads = initial_state(big), initial_state(cfg), ('locs', 'logits')
    for p in parameters(cfg): assert np.array_equal(started[0][p.name], (fresh if p.name.startswith(heads) else file)[p.name]), p.name
    state, _, about = checkpoint.load(tmp_path/'run/last.safetensors')
    assert state['logits0.predict.bias'].shape == (4*3,) and set(SSDConfig(**read_yaml(tmp_path/'run/config.yaml')).classes) == {'RBC', 'WBC', 'Platelets'}

def test_data_flags(micro, scenes, tmp_path):
    "The same scenes as TXT rows and as VOC files give the same first loss as COCO's."
    dataset = open_dataset(micro, training=True)
    rows, voc = [], tmp_path/'voc'
    for d in ('Annotations', 'ImageSets/Main', 'JPEGImages'): (voc/d).mkdir(parents=True)
    for r in dataset.records:
        boxes = (r.boxes*np.tile([r.height, r.width], 2))[:, [1, 0, 3, 2]]
        rows.append(' '.join([Path(r.image).name, *(','.join([*map(str, b.round(3)), str(c)]) for b, c in zip(boxes, r.labels))]))
        objects = ''.join(f'<object><name>{dataset.classes[c - 1]}</name><difficult>0</difficult><bndbox>' + ''.join(f'<{t}>{v:.3f}</{t}>' for t, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), b))
                          + '</bndbox></object>' for b, c in zip(boxes, r.labels))
        stem = Path(r.image).stem
        (voc/f'Annotations/{stem}.xml').write_text(f'<annotation><filename>{stem}.jpg</filename><size><width>{r.width}</width><height>{r.height}</height></size>{objects}</annotation>')
        shutil.copy(r.image, voc/f'JPEGImages/{stem}{Path(r.image).suffix}')
    (voc/'ImageSets/Main/train.txt').write_text('\n'.join(Path(r.image).stem for r in dataset.records))
    (tmp_path/'rows.txt').write_text('\n'.join(rows))
    image_dir = str(Path(dataset.records[0].image).parent)
    runs = [train(micro.replace(epoch_size=1, output_dir=f'{tmp_path}/run-{k}', **v)) for k, v in dict(coco={}, txt=dict(dataset='txt', image_dir=image_dir, anno_path=str(tmp_path/'rows.txt')),
            voc=dict(dataset='voc', voc_root=str(voc), classes=dataset.classes, augment=True)).items()]
    assert len({len(r.steps) for r in runs}) == 1
    assert all(.5 < float(r.steps[0].loss)/float(runs[0].steps[0].loss) < 2 for r in runs)

def test_every_flag_has_a_sentence():
    text = make_parser('x', 'y').format_help()
    for flag in ('device_num lr dataset epoch_size batch_size pre_trained pre_trained_epoch_size save_checkpoint_epochs loss_scale class_num image_shape mindrecord_dir coco_root '
                 'voc_root image_dir anno_path').split():
        assert re.search(rf'--{flag} .*\s+\w+', text), flag

# What goes wrong

class Meddling:
    "A session in whose n-th step something happens."
    def __init__(self, session, at, what): self.session, self.left, self.what = session, at, what
    def __getattr__(self, name): return getattr(self.session, name)
    def train_step(self, batch, lr):
        self.left -= 1
        if self.left <= 0: self.what(batch)
        return self.session.train_step(batch, lr)

def meddle(monkeypatch, at, what):
    make = training.make_session
    monkeypatch.setattr(training, 'make_session', lambda *args, **kw: Meddling(make(*args, **kw), at, what))

def broken(cfg, match):
    "The run ends with the sentence; its last checkpoint is whole, and it can be resumed."
    with pytest.raises(RunError, match=match) as e: train(cfg)
    assert f'--resume {cfg.output_dir}' in str(e.value)
    return checkpoint.load(f'{cfg.output_dir}/last.safetensors')

def test_nan_targets_end_the_run(each, monkeypatch):
    def plant(batch): batch.locs[batch.labels > 0] = np.nan
    meddle(monkeypatch, 5, plant)
    broken(each.replace(epoch_size=9, save_checkpoint_epochs=1), 'not been finite for 10 steps')
    listed = json.loads(Path(each.output_dir, 'not_finite.json').read_text())
    assert len(listed) == 10 and len(listed[0]['image_ids']) == 8
    assert all(np.isfinite(v).all() for v in checkpoint.load(f'{each.output_dir}/last.safetensors')[0].values())

def test_one_nan_batch_is_survived(each, monkeypatch):
    def plant(batch, done=[]): batch.locs[batch.labels > 0] = np.nan if not done else 0; done.append(1)
    meddle(monkeypatch, 2, plant)
    assert last(train(each))['scaler'][2] == 1

def test_deleted_image(micro, scenes, tmp_path, monkeypatch):
    root = shutil.copytree(scenes, tmp_path/'scenes')
    meddle(monkeypatch, 4, lambda batch: [p.unlink() for p in (root/'train').iterdir()])
    broken(micro.replace(coco_root=str(root), save_checkpoint_epochs=1), r'train/.*\.(jpg|png)')

def test_dead_worker(micro, monkeypatch):
    def kill(batch):
        for pid in Path(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read_text().split(): os.kill(int(pid), signal.SIGKILL)
    meddle(monkeypatch, 5, kill)
    broken(micro.replace(num_workers=1, epoch_size=4, save_checkpoint_epochs=1), 'a process that prepares batches was killed by signal 9')

def test_full_disk(micro, monkeypatch):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    meddle(monkeypatch, 5, lambda batch: resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(f'{micro.output_dir}/last.safetensors').st_size//2, old[1])))
    try: state, _, about = broken(micro.replace(epoch_size=4, save_checkpoint_epochs=1), 'File too large|cannot be written')
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert about['step'] == 3
    monkeypatch.undo()
    assert train(micro.replace(epoch_size=4, save_checkpoint_epochs=1), resume=micro.output_dir).steps[-1].epoch == 4

@pytest.mark.parametrize('where, match', [('/proc/none/run', 'can be written'), ('{}/file/run', 'can be written'), ('{}', 'not empty')])
def test_output_dir_that_cannot_be_used(where, match, micro, tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(ConfigError, match=match): train(micro.replace(output_dir=where.format(tmp_path)))

class Counted:
    "A file of which is known what was written to it."
    def __init__(self, file, written): self.file, self.written = file, written
    def __getattr__(self, name): return getattr(self.file, name)
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def read(self, *_): raise AssertionError('nothing need be read')
    def write(self, data): self.written.append(len(data)); return self.file.write(data)

def test_metrics_are_appended(tmp_path, monkeypatch):
    "Rows of a long run, written once an epoch: each time the new ones and the one before them, no more."
    metrics, steps, written = training.Metrics(tmp_path/'metrics.csv'), [], []
    monkeypatch.setattr(training, 'open', lambda *args, **kw: Counted(open(*args, **kw), written), raising=False)
    for epoch in range(20):
        steps += [training.Step(epoch, k, .1, np.float32(k)) for k in range(50)]
        written.clear(); metrics.write(steps)
        assert sum(written) == sum(len(s.row()) for s in steps[-51:])
    monkeypatch.undo()
    assert [s.row() for s in read_steps(tmp_path/'metrics.csv')] == [s.row() for s in steps]
