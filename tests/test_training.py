"Every flag has its effect, and what goes wrong ends in a sentence with the last checkpoint whole."
import json, os, re, resource, shutil, signal, struct
from pathlib import Path
import numpy as np, pytest
from conftest import BACKEND, NET, command, perfect, shadow
from ssd_nb import checkpoint, eval as evaluation, train as training
from ssd_nb.networks.table import initial_state, parameters
from ssd_nb.backends.contract import random_batch
from ssd_nb.backends.session import for_inference, make_session
from ssd_nb.config import SSDConfig, make_parser, read_yaml
from ssd_nb.errors import ConfigError, UserError
from ssd_nb.data.dataset import open_dataset
from ssd_nb.data.loader import Loader
from ssd_nb.learning.losses import focal
from ssd_nb.learning.schedule import learning_rates
from ssd_nb.learning.shapes import write_shapes
from ssd_nb.train import train
from ssd_nb.training import metrics
from ssd_nb.training.metrics import Metrics, Step, read_steps
from ssd_nb.training.run import RunError
from ssd_nb.training.start import pretrained_state

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
    folder = tmp_path_factory.mktemp('trained')/'run'
    cfg = SSDConfig.preset('tiny', backend=backend, coco_root=str(scenes), output_dir=str(folder), **MICRO)
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
    kept = names(train(micro.replace(epoch_size=5, save_checkpoint_epochs=2)))
    epochs = {f'epoch-000{k}.safetensors' for k in (2, 4, 5)}
    assert {n for n in kept if 'safetensors' in n} == {'last.safetensors', *epochs}
    few = train(micro.replace(epoch_size=5, save_checkpoint_epochs=1, keep_checkpoint_max=2,
                              output_dir=micro.output_dir + '2'))
    assert {n for n in names(few) if 'epoch' in n} == {'epoch-0004.safetensors', 'epoch-0005.safetensors'}

def test_save_best_ckpt(micro):
    cfg = micro.replace(run_eval=True, eval_start_epoch=1, eval_interval=1)
    run = train(cfg)
    scores = [s.mAP for s in run.steps if s.mAP is not None]
    assert len(scores) == 2 and checkpoint.load(run.folder/'best.safetensors')[2]['best'] == max(scores)
    assert 'best.safetensors' not in names(train(cfg.replace(save_best_ckpt=False, output_dir=cfg.output_dir + '2')))

def test_a_state_is_taken_over_at_any_time(each):
    "Also by a session that has trained and predicted; what it has learnt since is seen by its next prediction."
    one, two, other = (make_session(each.backend, each, training=t, device='cpu') for t in (True, True, False))
    batches = [random_batch(each, 4, seed=k) for k in range(3)]
    def same():
        answers = zip(one.predict(batches[0].images), other.predict(batches[0].images))
        return all(np.array_equal(a, b) for a, b in answers)
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

def test_an_image_without_objects_adds_to_the_loss_and_not_to_its_divisor(each):
    "By hand: where the heads' weights are 0, every logit is the bias, and every box has the same loss."
    session, batch = make_session(each.backend, each, device='cpu'), random_batch(each, 4)
    state = {name: np.zeros_like(v) if '.predict.' in name else v for name, v in session.get_state().items()}
    for name in state:
        if name.startswith('logits') and name.endswith('.predict.bias'): state[name] -= 1
    session.set_state(state)
    batch.locs[:] = 0
    low, high = focal(np.float64(-1), each.gamma), focal(np.float64(1), each.gamma)
    one = each.alpha*high + (1 - each.alpha)*(each.class_num - 1)*low # one column should be high, the others low
    for matched in ([3, 2, 0, 0], [0, 0, 0, 5], [0, 0, 0, 0]):
        batch.labels[:], batch.num_matched[:] = 0, matched
        for labels, n in zip(batch.labels, matched): labels[:n] = 1
        wanted = batch.labels.size*one/max(sum(matched), 1)
        assert float(session.train_step(batch, 0.)) == pytest.approx(wanted, rel=1e-4)

def test_loss_scale_too_large_overflows(each):
    "Said when all six steps of the run were in vain, and in a longer run after ten in a row."
    match = 'last 6 steps overflowed.*--dynamic_loss_scale'
    with pytest.raises(RunError, match=match): train(each.replace(loss_scale=3e38))
    longer = each.replace(loss_scale=3e38, epoch_size=9, output_dir=each.output_dir + '2')
    with pytest.raises(RunError, match='last 12 steps overflowed'): train(longer)

def test_an_epoch_of_one_step_may_overflow(each, monkeypatch):
    "The first step is skipped; the run goes on and learns."
    made, make, scales = [], training.make_session, [1024., 1024., 1024., 3e38]
    def scale(batch):
        state = made[0].get_state()
        _, good, skipped = state['scaler']
        made[0].set_state({**state, 'scaler': np.array([scales.pop(), good, skipped], np.float32)})
    monkeypatch.setattr(training, 'make_session', lambda *args, **kw: made.append(make(*args, **kw)) or made[0])
    meddle(monkeypatch, 1, scale)
    run = train(each.replace(batch_size=24, epoch_size=4))
    assert len(run.steps) == 4 and last(run)['scaler'][2] == 1 and run.wasted == 0
    assert 'overflowed and were skipped: 1;' in (run.folder/'train.log').read_text()

@pytest.mark.parametrize('name', ['torch', 'mindspore'])
def test_a_batch_of_one_is_refused_before_the_first_step(name, micro):
    "Where the last map is a single cell, batch norm has nothing to compare; no framework is asked."
    cfg = SSDConfig.preset('tiny', backend=name, batch_size=1, coco_root=micro.coco_root, output_dir=micro.output_dir)
    assert cfg.maps[-1].size == (1, 1)
    with pytest.raises(ConfigError, match='--batch_size 2 or more'): train(cfg)
    assert not Path(cfg.output_dir).exists()
    assert train(micro.replace(batch_size=1, epoch_size=1)).steps # its last map has more cells

def test_dynamic_loss_scale_finds_its_place(each):
    run = train(each.replace(loss_scale=3e38, dynamic_loss_scale=True, epoch_size=6, batch_size=2))
    scale, _, skipped = last(run)['scaler']
    assert scale < 3e38 and 0 < skipped < 40 and 'overflowed and were skipped' in (run.folder/'train.log').read_text()
    assert all(np.isfinite(s.loss) for s in run.steps) # the loss itself is not scaled

@pytest.mark.parametrize('amp', ['bf16', 'fp16'])
def test_amp_learns_like_float32(amp, each, trained):
    "The first loss is that of float32 but for rounding; what follows is chaotic, and falls."
    run = train(each.replace(amp=amp, epoch_size=4))
    first, latest = float(run.steps[0].loss), float(run.steps[-1].loss)
    assert first == pytest.approx(float(trained.steps[0].loss), rel=.03) and latest != float(trained.steps[-1].loss)
    assert latest < first and last(run)['scaler'][2] < 5
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
    event_pb2 = pytest.importorskip('tensorboardX.proto.event_pb2')
    crc = pytest.importorskip('tensorboardX.record_writer').masked_crc32c
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
    "What is to be shown of each step."
    found = {(n, k): getattr(s, k) for n, s in enumerate(steps, 1) for k in ('loss', 'lr', 'mAP', 'AP50')}
    return {k: np.float32(v) for k, v in found.items() if v is not None}

def test_tensorboard_file_holds_every_step(micro):
    run = train(micro.replace(tensorboard=True, run_eval=True, eval_start_epoch=1, eval_interval=1,
                              save_best_ckpt=False, save_checkpoint_epochs=2))
    (found,) = events(run.folder)
    assert found[0].file_version == 'brain.Event:2'
    assert [e.step for e in found[1:]] == [1, 1, 2, 3, 3, 4, 5, 6, 6] # two epochs of three steps, each judged
    assert numbers([found]) == wanted(run.steps) and (6, 'mAP') in numbers([found])

@pytest.mark.parametrize('at', ['step', 'evaluation', 'checkpoint'])
def test_tensorboard_shows_a_run_once_and_changes_no_number(at, micro, monkeypatch):
    "Killed in the eighth step, with a checkpoint after the sixth; while evaluating; or before the evaluation is saved."
    cfg = micro.replace(save_checkpoint_steps=2, batch_size=6, run_eval=True, eval_start_epoch=1, eval_interval=1,
                        save_best_ckpt=False) # four steps per epoch
    plain = train(cfg.replace(output_dir=cfg.output_dir + '-plain'))
    class Killed(BaseException): pass
    def kill(*_): raise Killed
    write = checkpoint.save
    def not_the_last(*args, **about):
        if about['step'] == 8 and not about['evaluate']: kill()
        write(*args, **about)
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
    args = '--preset', 'tiny', '--coco_root', 'scenes', '--tensorboard', '--device_num', count
    done = command('train', *args, status=2, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': path})
    said = "--tensorboard needs tensorboardX, which is not installed: pip install 'ssd_nb[tensorboard]'"
    assert done.stderr.count(said) == 1
    assert [p.name for p in tmp_path.iterdir()] == ['absent']

def test_freeze_layer(each, trained):
    run = train(each.replace(pre_trained=str(trained.folder), freeze_layer='backbone'))
    before, after = last(trained), last(run)
    for p in parameters(run.cfg):
        if p.part == 'backbone': assert np.array_equal(before[p.name], after[p.name]), p.name
    assert not np.array_equal(before['logits0.predict.bias'], after['logits0.predict.bias'])

def test_pre_trained_starts_from_the_weights(each, trained):
    "Its first loss is that of the file's network on the first batch."
    run = train(each.replace(pre_trained=str(trained.folder/'last.safetensors'), lr=1e-9, lr_init=1e-9, epoch_size=1))
    before, after = last(trained), last(run)
    assert all(np.allclose(before[p.name], after[p.name], atol=1e-5) for p in parameters(run.cfg) if p.trainable)
    session = make_session(each.backend, each)
    session.set_state(for_inference(before))
    batch = next(Loader(open_dataset(each, training=True), each, training=True).epoch(0))
    assert len(run.steps) == 3 and float(run.steps[0].loss) == float(session.train_step(batch, 1e-9))

def test_pre_trained_epoch_size_continues_there(each, trained, scenes):
    "Two epochs, then the other two from the checkpoint: the numbers of the run of four."
    class Cut(Exception): pass
    def cut(run, session, judge, epoch, per_epoch, stop, finish=training.finish_epoch):
        finish(run, session, judge, epoch, per_epoch, stop)
        if epoch == 1: raise Cut
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr(training, 'finish_epoch', cut)
        train(each.replace(epoch_size=4, save_checkpoint_epochs=2))
    run = train(each.replace(epoch_size=4, pre_trained=each.output_dir, pre_trained_epoch_size=2,
                             output_dir=each.output_dir + '2'))
    assert [s.row() for s in run.steps] == [s.row() for s in trained.steps[6:]]
    assert all(np.array_equal(v, last(trained)[k]) for k, v in last(run).items() if k != 'scaler')

def test_pre_trained_epoch_size_of_the_reference(each, trained):
    run = train(each.replace(protocol='reference', epoch_size=4, pre_trained=str(trained.folder),
                             pre_trained_epoch_size=2, crop_sides=(.3, 1.)))
    rates = learning_rates(run.cfg, 3)
    assert [s.lr for s in run.steps] == pytest.approx([*rates[6:], *[rates[-1]]*6])

def test_filter_weight_on_another_number_of_classes(each, trained, tmp_path, scenes):
    state, file = last(trained), tmp_path/'81.safetensors'
    cfg = trained.cfg.replace(class_num=81, classes=())
    wide = initial_state(cfg)
    wide.update({k: v for k, v in state.items() if k in wide and 'logits' not in k})
    checkpoint.save(file, wide, cfg)
    with pytest.raises(ConfigError, match='81 classes.*--filter_weight'): train(each.replace(pre_trained=str(file)))
    still = each.replace(pre_trained=str(file), filter_weight=True, lr=1e-9, lr_init=1e-9, epoch_size=1)
    both = still.replace(checkpoint_filter_list=('multi_loc_layers', 'multi_cls_layers'))
    classes, fresh = still.replace(checkpoint_filter_list=('logits',)), initial_state(each)
    for start, left_out in ((both, ('locs', 'logits')), (classes, ('logits',))): # exactly, before any step
        found = pretrained_state(start)
        for name in fresh:
            expected = fresh if name.startswith(left_out) else state
            assert np.array_equal(found[name], expected[name]), name
    after = last(train(both))
    def close(a, b, name): return np.allclose(a[name], b[name], atol=1e-5)
    assert close(after, fresh, 'locs0.predict.weight') and close(after, state, 'stem.weight')
    assert after['logits0.predict.bias'].shape == (7*3,) and after['scaler'][2] == 0

def test_81_classes_to_blood_cells(sample_data, tmp_path, monkeypatch):
    """The full network from a file of COCO's 81 classes, by the command: the heads are fresh, all else starts from the
    file, and the loss falls."""
    big, voc, started = SSDConfig(seed=2), tmp_path/'voc', []
    checkpoint.save(tmp_path/'81.safetensors', initial_state(big), big)
    (voc/'ImageSets/Main').mkdir(parents=True)
    for name in ('Annotations', 'JPEGImages'): (voc/name).symlink_to(sample_data('bccd')/name)
    stems = sorted(p.stem for p in (voc/'Annotations').iterdir())
    (voc/'ImageSets/Main/trainval.txt').write_text('\n'.join(stems[:8]))
    make, made = training.make_session, []
    monkeypatch.setattr(training, 'make_session', lambda *args, **kw: made.append(make(*args, **kw)) or made[0])
    meddle(monkeypatch, 1, lambda batch: started or started.append(made[0].get_state()))
    training.main(f'--backend {BACKEND} --dataset voc --voc_root {voc} --class_num 4 --on_bad_data skip '
                  f'--pre_trained {tmp_path}/81.safetensors --filter_weight --augment false '
                  f'--device cpu --num_workers 0 --batch_size 4 '
                  f'--epoch_size 3 --warmup_epochs 1 --lr .02 --output_dir {tmp_path}/run'.split())
    steps, cfg = read_steps(tmp_path/'run/metrics.csv'), SSDConfig(class_num=4)
    assert len(steps) == 6 and steps[-1].loss < .8*steps[0].loss
    file, fresh, heads = initial_state(big), initial_state(cfg), ('locs', 'logits')
    for p in parameters(cfg):
        expected = fresh if p.name.startswith(heads) else file
        assert np.array_equal(started[0][p.name], expected[p.name]), p.name
    state, _, _ = checkpoint.load(tmp_path/'run/last.safetensors')
    assert state['logits0.predict.bias'].shape == (4*3,)
    assert set(read_yaml(tmp_path/'run/config.yaml')['classes']) == {'RBC', 'WBC', 'Platelets'}

def corners(record):
    "Boxes of a record in pixels, x before y."
    return (record.boxes*np.tile([record.height, record.width], 2))[:, [1, 0, 3, 2]]

def write_txt(dataset, path):
    "The records as rows of a TXT file."
    rows = []
    for r in dataset.records:
        boxes = [','.join([*map(str, box.round(3)), str(c)]) for box, c in zip(corners(r), r.labels)]
        rows.append(' '.join([Path(r.image).name, *boxes]))
    path.write_text('\n'.join(rows))

def write_voc(dataset, root):
    "The records as a VOC data set."
    for name in ('Annotations', 'ImageSets/Main', 'JPEGImages'): (root/name).mkdir(parents=True)
    for r in dataset.records:
        objects, image = [], Path(r.image)
        for box, c in zip(corners(r), r.labels):
            sides = ''.join(f'<{tag}>{v:.3f}</{tag}>' for tag, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), box))
            name = f'<name>{dataset.classes[c - 1]}</name><difficult>0</difficult>'
            objects.append(f'<object>{name}<bndbox>{sides}</bndbox></object>')
        size = f'<size><width>{r.width}</width><height>{r.height}</height></size>'
        head = f'<filename>{image.stem}.jpg</filename>{size}'
        (root/f'Annotations/{image.stem}.xml').write_text(f'<annotation>{head}{"".join(objects)}</annotation>')
        shutil.copy(image, root/f'JPEGImages/{image.stem}{image.suffix}')
    (root/'ImageSets/Main/train.txt').write_text('\n'.join(Path(r.image).stem for r in dataset.records))

def test_data_flags(micro, tmp_path):
    "The same scenes as TXT rows and as VOC files give about the same first loss as COCO's."
    dataset = open_dataset(micro, training=True)
    write_txt(dataset, tmp_path/'rows.txt')
    write_voc(dataset, tmp_path/'voc')
    txt = dict(dataset='txt', image_dir=str(Path(dataset.records[0].image).parent), anno_path=str(tmp_path/'rows.txt'))
    voc = dict(dataset='voc', voc_root=str(tmp_path/'voc'), classes=dataset.classes)
    runs = []
    for k, data in enumerate(({}, txt, voc)):
        runs.append(train(micro.replace(epoch_size=1, output_dir=f'{tmp_path}/run-{k}', **data)))
    assert len({len(r.steps) for r in runs}) == 1
    assert all(.5 < float(r.steps[0].loss)/float(runs[0].steps[0].loss) < 2 for r in runs)

def turn_categories(root, old, new):
    "A split `new` with the images and objects of `old`; its categories are listed backwards and have other ids."
    truth = json.loads((root/f'annotations/instances_{old}.json').read_text())
    ids = {c['id']: 100 - c['id'] for c in truth['categories']}
    truth['categories'] = [{**c, 'id': ids[c['id']]} for c in reversed(truth['categories'])]
    for a in truth['annotations']: a['category_id'] = ids[a['category_id']]
    (root/f'annotations/instances_{new}.json').write_text(json.dumps(truth))
    (root/new).symlink_to(old)

def test_training_and_eval_judge_by_the_same_classes(micro, scenes, tmp_path, monkeypatch, capsys):
    "What names every object by the training data is perfect in both, however the evaluation file numbers its classes."
    root = Path(shutil.copytree(scenes, tmp_path/'scenes'))
    turn_categories(root, 'val', 'turned')
    cfg = micro.replace(coco_root=str(root), epoch_size=1, run_eval=True, eval_start_epoch=1)
    known = open_dataset(cfg, training=False)
    found = perfect(known)
    assert open_dataset(cfg.replace(val_split='turned'), training=False).classes == known.classes[::-1]
    monkeypatch.setattr(training, 'detect_all', lambda *args, **kw: found)
    monkeypatch.setattr(evaluation, 'detect_by', lambda *args, **kw: [found])
    for split in ('val', 'turned'):
        run = train(cfg.replace(val_split=split, output_dir=f'{tmp_path}/{split}'))
        assert run.steps[-1].mAP == 1. and tuple(read_yaml(run.folder/'config.yaml')['classes']) == known.classes
        evaluation.main(['--checkpoint_path', str(run.folder), '--output_dir', f'{tmp_path}/eval-{split}'])
        assert json.loads((tmp_path/f'eval-{split}/report.json').read_text())['AP'] == 1.

def test_classes_by_name_in_the_order_that_is_asked_for(micro, scenes, tmp_path):
    "--classes decides over the file's order, in both splits."
    turned = open_dataset(micro, training=True).classes[::-1]
    cfg, learn, judge = training.open_splits(micro.replace(classes=turned, run_eval=True))
    assert cfg.classes == learn.classes == judge.classes == turned

def test_every_flag_has_a_sentence():
    text = make_parser('x', 'y').format_help()
    for flag in ('device_num lr dataset epoch_size batch_size pre_trained pre_trained_epoch_size '
                 'save_checkpoint_epochs loss_scale class_num image_shape '
                 'mindrecord_dir coco_root voc_root image_dir anno_path').split():
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
    state, _, _ = checkpoint.load(f'{each.output_dir}/last.safetensors')
    assert all(np.isfinite(v).all() for v in state.values())

def test_one_nan_batch_is_survived(each, monkeypatch):
    done = []
    def plant(batch):
        batch.locs[batch.labels > 0] = 0 if done else np.nan
        done.append(1)
    meddle(monkeypatch, 2, plant)
    assert last(train(each))['scaler'][2] == 1

def test_deleted_image(micro, scenes, tmp_path, monkeypatch):
    root = shutil.copytree(scenes, tmp_path/'scenes')
    meddle(monkeypatch, 4, lambda batch: [p.unlink() for p in (root/'train').iterdir()])
    broken(micro.replace(coco_root=str(root), save_checkpoint_epochs=1), r'train/.*\.(jpg|png)')

def test_dead_worker(micro, monkeypatch):
    def kill(batch):
        children = Path(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read_text().split()
        for pid in children: os.kill(int(pid), signal.SIGKILL)
    meddle(monkeypatch, 5, kill)
    cfg = micro.replace(num_workers=1, epoch_size=4, save_checkpoint_epochs=1)
    broken(cfg, 'a process that prepares batches was killed by signal 9')

def test_full_disk(micro, monkeypatch):
    old, cfg = resource.getrlimit(resource.RLIMIT_FSIZE), micro.replace(epoch_size=4, save_checkpoint_epochs=1)
    def fill(batch):
        half = os.stat(f'{micro.output_dir}/last.safetensors').st_size//2
        resource.setrlimit(resource.RLIMIT_FSIZE, (half, old[1]))
    meddle(monkeypatch, 5, fill)
    try: _, _, about = broken(cfg, 'File too large|cannot be written')
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert about['step'] == 3
    monkeypatch.undo()
    assert train(cfg, resume=micro.output_dir).steps[-1].epoch == 4

@pytest.mark.parametrize('where, match', [
    ('/proc/none/run', 'can be written'), ('{}/file/run', 'can be written'), ('{}', 'not empty')])
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
    def write(self, data):
        self.written.append(len(data))
        return self.file.write(data)

def test_metrics_are_appended(tmp_path, monkeypatch):
    "Rows of a long run, written once an epoch: each time the new ones and the one before them, no more."
    kept, steps, written = Metrics(tmp_path/'metrics.csv'), [], []
    monkeypatch.setattr(metrics, 'open', lambda *args, **kw: Counted(open(*args, **kw), written), raising=False)
    for epoch in range(20):
        steps += [Step(epoch, k, .1, np.float32(k)) for k in range(50)]
        written.clear()
        kept.write(steps)
        assert sum(written) == sum(len(s.row()) for s in steps[-51:])
    monkeypatch.undo()
    assert [s.row() for s in read_steps(tmp_path/'metrics.csv')] == [s.row() for s in steps]
