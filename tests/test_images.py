"Image files: every kind as Pillow reads it, upright and without transparency; broken ones refused with a clear error."
import io, warnings
import cv2
import numpy as np
import pytest
from conftest import encoded, smooth
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageOps
from ssd_nb.errors import DataError
from ssd_nb.images import load_image
from ssd_nb.learning.augment import load_square

RNG = np.random.default_rng(7)
RGB, FOUR = Image.fromarray(smooth(RNG, 40, 56)), smooth(RNG, 37, 53, 4)


@pytest.mark.parametrize('mode, kind', [
    ('RGB', 'JPEG'), ('L', 'JPEG'), ('CMYK', 'JPEG'), ('RGB', 'PNG'), ('L', 'PNG'), ('1', 'PNG'), ('P', 'PNG'),
    ('P', 'GIF'), ('RGB', 'BMP'), ('RGB', 'WEBP'), ('RGB', 'TIFF'), ('CMYK', 'TIFF'), ('L', 'PPM')])
def test_kinds_agree_with_pillow(mode, kind):
    image = Image.fromarray(FOUR, 'CMYK') if mode == 'CMYK' else RGB.convert(mode)
    data = encoded(image, kind)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).astype(int)
    got = load_image(data)
    assert got.dtype == np.uint8 and got.flags.c_contiguous and got.flags.writeable
    assert np.abs(got - wanted).max() <= 2


@pytest.mark.parametrize('mode, kind', [('RGBA', 'PNG'), ('LA', 'PNG'), ('RGBA', 'WEBP'), ('RGBA', 'TIFF')])
def test_transparent_becomes_white(mode, kind):
    four = Image.fromarray(FOUR, 'RGBA')
    data = encoded(four.convert(mode), kind, **({'lossless': True} if kind == 'WEBP' else {}))
    opened = np.asarray(Image.open(io.BytesIO(data)).convert('RGBA')).astype(float)
    alpha = opened[..., 3:]/255
    assert np.abs(load_image(data) - (opened[..., :3]*alpha + 255*(1 - alpha))).max() <= 2


def test_transparent_palette_entry():
    image = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (4, 4)), 'P')
    image.putpalette([200, 0, 0, 0, 0, 200])
    got = load_image(encoded(image, 'PNG', transparency=1))
    assert got[0, 0].tolist() == [200, 0, 0] and got[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [1, 3])
def test_sixteen_bits(suffix, channels):
    eight = smooth(RNG, 20, 30, 3)[..., :channels].squeeze()
    data = cv2.imencode(suffix, eight.astype(np.uint16)*256 + 99)[1].tobytes()
    wanted = eight[..., ::-1] if channels == 3 else np.repeat(eight[..., None], 3, 2)
    assert np.abs(load_image(data).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_exif_orientation(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RGB, kind, exif=exif)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    assert np.abs(load_image(data) - wanted).max() <= 2
    for k in (2, 4, 8):
        means = wanted.reshape(wanted.shape[0]//k, k, wanted.shape[1]//k, k, 3).mean((1, 3))
        got = load_image(data, k)
        assert got.shape == means.shape and np.abs(got - means).mean() < 4


def test_floating_point_pixels_are_refused():
    data = encoded(Image.fromarray(np.zeros((4, 4), np.float32)), 'TIFF')
    with pytest.raises(DataError, match='floating-point'): load_image(data)


WHOLE_FILES = {kind: encoded(RGB, kind) for kind in ('JPEG', 'PNG', 'GIF', 'WEBP')}

@given(st.sampled_from(sorted(WHOLE_FILES)), st.floats(0, 1))
@settings(deadline=None, max_examples=80)
def test_cut_off_files_are_refused_or_whole(kind, fraction):
    data = WHOLE_FILES[kind]
    part = data[:int(fraction*len(data))]
    try: assert np.array_equal(load_image(part), load_image(data)) # nothing that matters was missing
    except DataError as e: assert str(e).startswith('image in memory: ') and '\n' not in str(e)


NOISE, BEGINNINGS = st.binary(max_size=200), st.sampled_from([b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'II*\0'])

@given(st.one_of(NOISE, st.builds(lambda head, rest: head + rest, BEGINNINGS, NOISE)))
@settings(deadline=None, max_examples=100)
def test_any_bytes_give_an_image_or_a_clear_error(data):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # Pillow's, about metadata
        try: assert load_image(data).shape[2] == 3
        except DataError: pass


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match='gone.jpg'): load_image(tmp_path/'gone.jpg')


def test_an_image_of_another_size_is_named(tmp_path):
    path = tmp_path/'five.jpg'
    RGB.save(path)
    match = 'five.jpg: the image is 56 wide and 40 high, its annotation says 40 and 56'
    with pytest.raises(DataError, match=match): load_square(path, 32, (56, 40))
