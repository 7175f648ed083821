"""The autoencoder against diffusers' own, recorded by fixtures/record_vae.py; and what it is made of."""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax.config import MeshConfig
from kind_jax.errors import UserError
from kind_jax.nn.init import Initializer
from kind_jax.train.sharding import batch_sharding, make_mesh
from kind_jax.vae import VaeConfig, decode, decode_in_batches, decoder, encode, load_vae
from kind_jax.vae.layers import Conv
from kind_jax.vae.vae import definition, fingerprint

FIXTURES = Path(__file__).parents[1] / "fixtures"
STABLE_DIFFUSION = VaeConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2)


@pytest.fixture(scope="module")
def vae():
    return load_vae(FIXTURES / "vae_reference")


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURES / "vae_reference.npz") as file:
        return {name: jnp.asarray(file[name]) for name in file.files}


def gap(a, b):
    return float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))


def test_encoding_is_that_of_diffusers(vae, reference):
    mean, logvar = encode(vae.config, vae.params, reference["images"])
    assert mean.shape == (2, 2, 3, 4)
    assert gap(mean, reference["mean"]) < 1e-4
    assert gap(logvar, reference["logvar"]) < 1e-4
    assert np.std(reference["mean"]) > 0.1


def test_decoding_is_that_of_diffusers(vae, reference):
    images = decode(vae.config, vae.params, reference["latents"])
    assert images.shape == (2, 16, 24, 3)
    assert gap(images, reference["decoded"]) < 1e-4
    assert np.std(reference["decoded"]) > 0.1


def test_log_variances_are_clipped(vae, reference):
    bias = vae.params["quant_conv"]["bias"] + np.array([0] * 4 + [-100, 100, 0, 0], np.float32)
    params = vae.params | {"quant_conv": vae.params["quant_conv"] | {"bias": bias}}
    mean, logvar = encode(vae.config, params, reference["images"])
    assert gap(mean, reference["mean"]) < 1e-4
    assert (np.asarray(logvar)[..., 0] == -30).all()
    assert (np.asarray(logvar)[..., 1] == 20).all()


def test_bfloat16_is_near(vae, reference):
    images = decode(vae.config, vae.params, reference["latents"], dtype="bfloat16")
    assert images.dtype == jnp.float32
    scale = float(np.std(reference["decoded"]))
    assert 1e-4 < gap(images, reference["decoded"]) < 0.3 * scale
    mean, _ = encode(vae.config, vae.params, reference["images"], dtype="bfloat16")
    assert 1e-5 < gap(mean, reference["mean"]) < 0.3 * float(np.std(reference["mean"]))


def test_batches_of_any_size_on_any_devices_give_the_same(vae):
    latents = np.random.default_rng(1).standard_normal((5, 2, 2, 4)).astype(np.float32)
    whole = np.asarray(decode(vae.config, vae.params, jnp.asarray(latents)))
    assert gap(decode_in_batches(vae, latents, 2), whole) < 1e-5
    spread = decoder(vae, batch=1, sharding=batch_sharding(make_mesh(MeshConfig(), jax.devices()[:2])))
    assert gap(spread(latents), whole) < 1e-5
    for wrong, batch, message in (
        (latents[:0], 8, "latents to be decoded are 0"),
        (latents, 0, "batch of a VAE is 0"),
        (latents[..., :3], 8, "latents have 3 channels, but the VAE decodes latents of 4"),
    ):
        with pytest.raises(UserError, match=message):
            decode_in_batches(vae, wrong, batch)


def test_latents_are_in_the_scale_of_a_model(vae, reference):
    config = dataclasses.replace(vae.config, scaling_factor=2.0, shift_factor=0.5)
    z = reference["latents"] / vae.config.scaling_factor
    assert gap(decode(config, vae.params, (z - 0.5) * 2.0), reference["decoded"]) < 1e-4


def test_halving_pads_below_and_to_the_right_alone():
    x = np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4, 1)
    conv = Conv(1, 1, halve=True, init=Initializer(0))

    def picks(row, column):
        conv.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[row, column].set(1.0)
        return np.asarray(conv(jnp.asarray(x)))[0, :, :, 0]

    np.testing.assert_array_equal(picks(0, 0), x[0, ::2, ::2, 0])
    np.testing.assert_array_equal(picks(2, 2), [[x[0, 2, 2, 0], 0], [0, 0]])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 20, 3), "images are 16x20 pixels, but both must be multiples of 8"),
        ((1, 15, 16, 3), "images are 15x16 pixels"),
        ((1, 0, 8, 3), "images are 0x8 pixels"),
        ((1, 16, 16, 1), "images have 1 channels, but the VAE encodes images of 3"),
    ],
)
def test_images_that_do_not_fit_are_refused(vae, shape, message):
    with pytest.raises(UserError, match=message):
        encode(vae.config, vae.params, jnp.zeros(shape))


def test_the_fingerprint_is_of_weights_and_config(vae):
    assert fingerprint(vae.config, vae.params) == vae.fingerprint
    other = dataclasses.replace(vae.config, scaling_factor=0.5)
    assert fingerprint(other, vae.params) != vae.fingerprint
    bias = np.nextafter(vae.params["quant_conv"]["bias"], np.float32(9))
    params = vae.params | {"quant_conv": vae.params["quant_conv"] | {"bias": bias}}
    assert fingerprint(vae.config, params) != vae.fingerprint


def test_stable_diffusion_has_as_many_parameters_as_known():
    leaves = jax.tree.leaves(definition(STABLE_DIFFUSION)[1])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == 83_653_863
