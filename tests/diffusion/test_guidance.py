import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_dit import fixture, forward, images

from kind_jax.diffusion.guidance import guide
from kind_jax.errors import UserError


def _outputs():
    return (jax.random.normal(jax.random.key(seed), (2, 4, 4, 6)) for seed in range(2))


def test_guided_output_is_the_recorded_one():
    recorded = fixture()
    half = images("cfg/x_nchw")[:2]
    output = jax.jit(forward)(jnp.concatenate([half, half]), recorded["cfg/t"], recorded["cfg/y"])
    got = guide(output[:2], output[2:], float(recorded["cfg/scale"]), channels=3)
    np.testing.assert_allclose(got, images("cfg/out_nchw")[:2], atol=5e-6)


def test_scale_one_is_the_conditional_output_and_zero_the_unconditional_one():
    c, u = _outputs()
    np.testing.assert_array_equal(guide(c, u, 1.0, None), c)
    np.testing.assert_allclose(guide(c, u, 0.0, None), u, atol=1e-6)


def test_only_the_leading_channels_are_guided():
    c, u = _outputs()
    got = jax.jit(lambda c, u, scale: guide(c, u, scale, 2))(c, u, jnp.float32(4.0))
    np.testing.assert_allclose(got[..., :2], (u + 4 * (c - u))[..., :2], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[..., 2:], c[..., 2:])
    with pytest.raises(UserError, match=r"guidance_channels is 7, but it must be at most 6"):
        guide(c, u, 4.0, 7)
