"""With every projection dense, the model is the official PyTorch DiT."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import official_dit as official
import pytest

from kind_jax import model, partition
from kind_jax.diffusion.guidance import guide
from kind_jax.interchange.official import to_state_dict
from kind_jax.nn.gate import learngenes_only

REFERENCE = official.REFERENCE


def evaluate(config, weights, x, t, y):
    return model.apply(
        config, weights, jnp.asarray(x), jnp.asarray(t, jnp.float32), jnp.asarray(y, jnp.int32), learngenes_only()
    )


def relative(a, b):
    return np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b))


@pytest.mark.parametrize(
    "settings", [{}, {"scan_unroll": 0}, {"remat": True}], ids=["scanned", "unrolled", "rematerialised"]
)
def test_forward(settings):
    config = dataclasses.replace(official.CONFIG, **settings)
    weights = official.collections()
    partition.check_like(weights["params"], model.definition(config)[1]["params"], "the recording")
    x, t, y = (REFERENCE[f"forward/{n}"] for n in ("x_nchw", "t", "y_last_is_null_class"))
    out = jax.jit(evaluate, static_argnums=0)(config, weights, official.to_nhwc(x), t, y)
    assert relative(official.to_nchw(out), REFERENCE["forward/out_nchw"]) < 1e-5


def test_guided_forward_on_three_channels():
    x, y, t = (REFERENCE[f"cfg/{n}"] for n in ("x_nchw", "y", "t"))
    # The recording doubles the batch: its second half is ignored and replaced by the first with null labels.
    half = official.to_nhwc(x[: len(x) // 2])
    both, labels = np.concatenate([half, half]), y
    out = evaluate(official.CONFIG, official.collections(), both, t, labels)
    conditional, unconditional = jnp.split(out, 2)
    guided = guide(conditional, unconditional, float(REFERENCE["cfg/scale"]), 3)
    expected = REFERENCE["cfg/out_nchw"][: len(half)]
    assert relative(official.to_nchw(guided), expected) < 1e-5


def test_gradients():
    x, t, y = (REFERENCE[f"forward/{n}"] for n in ("x_nchw", "t", "y_last_is_null_class"))

    @jax.jit
    def loss(params):
        weights = {"learngenes": {}, "tailors": {}, "params": params}
        return jnp.mean(evaluate(official.CONFIG, weights, official.to_nhwc(x), t, y) ** 2)

    value, grads = jax.value_and_grad(loss)(official.collections()["params"])
    recorded = official.recorded("grad")
    np.testing.assert_allclose(value, recorded.pop("loss_mean_square_of_output"), rtol=1e-5)
    ours = to_state_dict(official.CONFIG, grads)
    assert len(recorded) == 11
    for name, expected in recorded.items():
        assert relative(ours[name], expected) < 1e-5, name
