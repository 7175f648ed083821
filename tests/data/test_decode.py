"""Any file becomes the pixels that Pillow would give, or a reason; never a warning, a crash or a huge allocation."""

import concurrent.futures
import io
import subprocess
import time
import tracemalloc
import warnings

import hostile_images
import numpy as np
import pytest
from PIL import Image

from kind_jax.data import decode as decode_module
from kind_jax.data.decode import BadImage, centre_crop, decode

SOUND, BAD = hostile_images.sound(), hostile_images.bad()


def center_crop_arr(pil_image, image_size):
    """ADM's function, guided-diffusion/image_datasets.py, line by line."""
    while min(*pil_image.size) >= 2 * image_size:
        pil_image = pil_image.resize(tuple(x // 2 for x in pil_image.size), resample=Image.BOX)
    scale = image_size / min(*pil_image.size)
    pil_image = pil_image.resize(tuple(round(x * scale) for x in pil_image.size), resample=Image.BICUBIC)
    arr = np.array(pil_image)
    crop_y = (arr.shape[0] - image_size) // 2
    crop_x = (arr.shape[1] - image_size) // 2
    return arr[crop_y : crop_y + image_size, crop_x : crop_x + image_size]


@pytest.mark.parametrize("shape", [(7, 13), (63, 64), (64, 63), (65, 300), (333, 129), (17, 17), (16, 16), (32, 31)])
@pytest.mark.parametrize("size", [8, 16, 31])
def test_the_crop_is_adms(shape, size):
    image = Image.fromarray(hostile_images.pixels(*shape))
    np.testing.assert_array_equal(centre_crop(image, size), center_crop_arr(image, size))


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_odd_but_sound_files_are_what_pillow_makes_of_them(name, channels, mode, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decode(SOUND[name], 16, channels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = center_crop_arr(Image.open(io.BytesIO(SOUND[name])).convert(mode), 16)
    assert (found.dtype, found.shape) == (np.uint8, (16, 16, channels))
    np.testing.assert_array_equal(found, expected.reshape(found.shape))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_a_reason_at_once(name, capfd):
    data, reason = BAD[name]
    tracemalloc.start()
    begin = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage, match=reason) as error:
            decode(data, 256, 3)
    assert time.monotonic() - begin < 2
    assert tracemalloc.get_traced_memory()[1] < 3 * len(data) + (16 << 20)
    tracemalloc.stop()
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
    output, errors = capfd.readouterr()
    assert output == ""
    # Pillow leaves libtiff's own handler of errors in place, and Python cannot reach it.
    assert errors == "" or name.endswith((".tif", ".tiff"))


def test_no_other_program_is_called(monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError(f"another program: {args}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    for data, _ in BAD.values():
        with pytest.raises(BadImage):
            decode(data, 256, 3)


def test_pillows_warning_of_large_images_neither_shows_nor_matters():
    image = Image.new("1", (9500, 9500), 1)
    assert Image.MAX_IMAGE_PIXELS < 9500 * 9500
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decode(hostile_images.encoded(image, "PNG"), 2, 1) == 255).all()


def test_a_file_that_is_too_large_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(decode_module, "LIMIT", 100)
    with pytest.raises(BadImage, match=r"it has \d+ bytes, but at most 100 are read"):
        decode(SOUND["photo.jpg"], 16, 3)


def test_threads_decode_alike():
    names = [name for name in (*SOUND, *BAD) if name != "line.png"] * 4

    def outcome(name):
        try:
            return decode(SOUND[name] if name in SOUND else BAD[name][0], 16, 3).tobytes()
        except BadImage as e:
            return str(e)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(outcome, names)) == [outcome(name) for name in names]
