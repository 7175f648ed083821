import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kind_jax import images
from kind_jax.errors import UserError


def test_to_uint8_rounds_clips_and_inverts_the_usual_mapping():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(images.to_uint8(levels.astype(np.float32) / 127.5 - 1), levels)
    odd = jnp.array([-9.0, 9.0, 0.999]).reshape(1, 1, 3, 1)
    assert images.to_uint8(odd).ravel().tolist() == [0, 255, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_pixel_shows_what_is_not_finite(value):
    pictures = np.zeros((3, 2, 2, 1), np.float32)
    pictures[1, 0, 1] = value
    for make in (images.to_uint8, lambda p: images.grid(p, 2)):
        with pytest.raises(UserError, match="1 of 3 images have values that are NaN or infinite"):
            make(pictures)


def test_grid_places_scales_and_pads():
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    tiles = np.broadcast_to(colours[:, None, None, :], (3, 2, 3, 3)).copy()
    tiles[0, 1, 2] = 7
    got = images.grid(tiles, columns=2, scale=2, pad=1)
    assert got.shape == (2 * 4 + 1, 2 * 6 + 1, 3)
    assert (got[:2, :6] == colours[0]).all()
    assert (got[2:4, 4:6] == 7).all()
    assert (got[:4, 7:] == colours[1]).all()
    assert (got[5:, :6] == colours[2]).all()
    assert (got[4] == 128).all()
    assert (got[:, 6] == 128).all()
    assert (got[5:, 7:] == 128).all()


def test_grid_of_grey_floats_is_no_wider_than_its_images():
    got = images.grid(np.full((2, 4, 4, 1), 1.0, np.float32), columns=5, pad=0)
    assert got.shape == (4, 8, 3)
    assert (got == 255).all()


@pytest.mark.parametrize(
    ("shape", "settings", "match"),
    [
        ((0, 2, 2, 1), {}, "0 images"),
        ((1, 2, 2, 4), {}, "4 channels"),
        ((1, 2, 2, 1), {"columns": 0}, "columns .* is 0"),
        ((1, 2, 2, 1), {"scale": 0}, "scale .* is 0"),
    ],
)
def test_grid_refuses(shape, settings, match):
    with pytest.raises(UserError, match=match):
        images.grid(np.zeros(shape, np.float32), **{"columns": 1} | settings)


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7, 1), (5, 7)])
def test_png_is_lossless(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images.save_png(tmp_path / "x.png", array)
    data = (tmp_path / "x.png").read_bytes()
    assert data == images.png_bytes(array)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))).reshape(shape), array)
