"""The network of the judge: a small convolutional classifier. N: images, H: height, W: width, C: channels."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

FEATURES = 32
_WIDTH, _MAX_WIDTH, _LAST_SIDE = 24, 96, 4

Params = dict[Any, Any]


def _patches(x: Float[Array, "N H W C"], stride: int) -> Float[Array, "N h w 9*C"]:
    """The 3 x 3 neighbourhood of every stride-th pixel, zeros outside the image."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [x[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


class JudgeNet(nnx.Module):
    """3 x 3 convolutions, halving the sides down to 4 pixels, then 32 features, then one logit a class.

    A convolution is written as patches times a matrix: XLA's convolution inside a loop is five times slower on CPU.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs):
        height, width, fan_in = shape
        convs, norms, strides = [], [], []
        while True:
            strides.append(2 if strides else 1)
            height, width = -(-height // strides[-1]), -(-width // strides[-1])
            fan_out = min(_WIDTH * 2 ** len(convs), _MAX_WIDTH)
            convs.append(nnx.Linear(9 * fan_in, fan_out, rngs=rngs))
            norms.append(nnx.LayerNorm(fan_out, rngs=rngs))
            fan_in = fan_out
            if len(convs) >= 2 and max(height, width) <= _LAST_SIDE:
                break
        self.strides = tuple(strides)
        self.convs, self.norms = nnx.List(convs), nnx.List(norms)
        self.hidden = nnx.Linear(height * width * fan_in, FEATURES, rngs=rngs)
        self.head = nnx.Linear(FEATURES, num_classes, rngs=rngs)

    def __call__(self, images: Float[Array, "N H W C"]) -> tuple[Float[Array, "N 32"], Float[Array, "N classes"]]:
        """The features and the logits."""
        x = images
        for conv, norm, stride in zip(self.convs, self.norms, self.strides, strict=True):
            x = nnx.relu(norm(conv(_patches(x, stride))))
        # Taken before the activation, which silences about half of so few features: a Fréchet distance would be blind
        # in those directions.
        features = self.hidden(x.reshape(x.shape[0], -1))
        return features, self.head(nnx.gelu(features))


@functools.partial(jax.jit, static_argnums=(0, 1))
def init(shape: tuple[int, int, int], num_classes: int, key: Key[Array, ""]) -> Params:
    """Fresh weights as a nested dict of arrays."""
    return nnx.to_pure_dict(nnx.state(JudgeNet(shape, num_classes, rngs=nnx.Rngs(key))))


def blueprint(shape: tuple[int, int, int], num_classes: int) -> tuple[nnx.GraphDef[JudgeNet], Params]:
    """The structure of the network, and its weights as shapes and dtypes only."""
    net = nnx.eval_shape(lambda: JudgeNet(shape, num_classes, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(net)
    return graph, nnx.to_pure_dict(state)


def apply(
    graph: nnx.GraphDef[JudgeNet], params: Params, images: Float[Array, "N H W C"]
) -> tuple[Float[Array, "N 32"], Float[Array, "N classes"]]:
    """Features and logits, as a pure function of the weights."""
    return nnx.merge(graph, params)(images)


apply_jit = jax.jit(apply, static_argnums=0)
