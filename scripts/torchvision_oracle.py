"""What torchvision's networks answer with weights that anybody can draw again, as a small file for the tests.

    python -m venv oracle && oracle/bin/pip install torch==2.14.1 torchvision==0.29.1
    oracle/bin/python scripts/torchvision_oracle.py tests/fixtures/torchvision.npz

The weights are no trained ones: each is drawn by NumPy from the name and the shape of its parameter. So the tests draw
the same ones, put them through our mapping of names, and compare the answers, without torchvision. This file imports
NumPy alone until it is run as a command, and nothing of this library at all: an oracle must not share its mistakes."""
import math, sys, zlib
from pathlib import Path
import numpy as np

EVERY = 61 # of so many boxes one is kept
CELLS = 500 # numbers kept of a feature map
SIDES = dict(mobilenet_v2=300, vgg16=300, resnet50=320) # of the image that the classifiers see

def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    "Float32 numbers that follow from the name and the shape of a parameter, in a range that keeps the answers lively."
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith('num_batches_tracked'): return np.array(1, np.int64)
    if name.endswith('running_var') or len(shape) == 1 and name.endswith('.weight'): found = rng.uniform(.6, 1.4, shape)
    elif name.endswith('scale_weight'): found = rng.uniform(10, 30, shape)
    elif len(shape) == 1: found = rng.normal(0, .1, shape)
    else: found = rng.normal(0, math.sqrt(2/math.prod(shape[1:])), shape)
    if name == 'backbone.features.0.weight': found /= 100 # its input is of the order of 100
    dense = len(shape) == 4 and shape[1] > 1
    wide = dense and shape[2] == 3 # the heads of ssd300_vgg16; the other's are 1x1, after larger numbers
    if dense and 'regression_head' in name: found *= .5 if wide else .3
    if dense and 'classification_head' in name: found *= 2 if wide else .4
    return found.astype(np.float32)

def picture(side: int) -> np.ndarray:
    "An image [side, side, 3] uint8 with structures of many sizes."
    rng, total = np.random.default_rng(side), np.zeros((side, side, 3))
    for cells in (3, 7, 20, 60):
        places = np.arange(side)*cells//side
        total += rng.uniform(0, 64, (cells, cells, 3))[places][:, places]
    return total.astype(np.uint8)

def sample(array: np.ndarray) -> np.ndarray:
    "Some numbers of an array, the same ones for the same shape."
    return array.reshape(-1)[np.random.default_rng(array.size).integers(0, array.size, CELLS)]

def summary(array: np.ndarray) -> np.ndarray:
    "Largest size, mean and percentiles."
    flat = np.asarray(array, np.float64).reshape(-1)
    return np.array([np.abs(flat).max(), flat.mean(), *np.percentile(flat, range(0, 101, 10))])

def listed(model) -> np.ndarray: # texts such as "layer.weight 64 3 3 3"
    "Names and shapes of all that a model stores; it is filled with drawn numbers."
    import torch
    state = {name: torch.from_numpy(drawn(name, tuple(t.shape))) for name, t in model.state_dict().items()}
    model.load_state_dict(state)
    model.eval()
    return np.array([f'{name} {" ".join(map(str, t.shape))}'.strip() for name, t in state.items()])

def detector(name: str) -> dict[str, np.ndarray]:
    "Answers, default boxes and detections of one of torchvision's two SSDs."
    import torch
    from torchvision.models import detection
    model = getattr(detection, name)(weights=None, weights_backbone=None)
    names = listed(model)
    side = model.transform.min_size[0]
    image = torch.from_numpy(picture(side)).permute(2, 0, 1).float()/255
    images, _ = model.transform([image])
    features = list(model.backbone(images.tensors).values())
    heads = model.head(features)
    anchors = model.anchor_generator(images, features)[0].numpy()
    locs, logits = (heads[key][0].numpy() for key in ('bbox_regression', 'cls_logits'))
    found = {key: value.numpy() for key, value in model([image])[0].items()}
    some = slice(None, None, EVERY)
    return dict(names=names, locs=locs[some], logits=logits[some], anchors=anchors[some], locs_all=summary(locs),
                logits_all=summary(logits), anchors_all=summary(anchors), count=np.array(len(locs)), **found)

def classifier(name: str) -> dict[str, np.ndarray]:
    "Two feature maps of one of torchvision's classifiers, those that a detector takes from it."
    import torch
    import torchvision
    model = getattr(torchvision.models, name)(weights=None)
    names = listed(model)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((.485, .456, .406), (.229, .224, .225)))
    x = ((torch.from_numpy(picture(SIDES[name])).permute(2, 0, 1).float()/255 - mean)/std)[None]
    if name == 'mobilenet_v2':
        maps = dict(tap=model.features[14].conv[0](model.features[:14](x)), last=model.features(x))
    elif name == 'vgg16':
        model.features[16].ceil_mode = True # as in SSD
        maps = dict(conv4=model.features[:23](x), conv5=model.features[:30](x))
    else:
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        half = model.layer3(model.layer2(model.layer1(x)))
        maps = dict(layer3=half, layer4=model.layer4(half))
    out = {key: sample(t[0].numpy()) for key, t in maps.items()}
    return dict(names=names, **out, **{f'{key}_all': summary(t.numpy()) for key, t in maps.items()})

def main(path: str) -> None:
    "Write the file and say what is in it."
    import torch
    torch.set_grad_enabled(False)
    out = {}
    for make, names in {detector: ('ssd300_vgg16', 'ssdlite320_mobilenet_v3_large'),
                        classifier: SIDES}.items():
        for name in names:
            found = make(name)
            out |= {f'{name}/{key}': value for key, value in found.items()}
            sizes = {key: list(value.shape) for key, value in found.items()}
            summaries = {key: value.round(3).tolist() for key, value in found.items() if key.endswith('_all')}
            print(name, sizes, summaries, sep='\n  ')
    np.savez_compressed(path, **out)
    print(f'{path}: {Path(path).stat().st_size:,} bytes')

if __name__ == '__main__': main(*sys.argv[1:])
