"""What the gate costs: the gated layer against an ungated low rank with as many active components.

Dimensions: B samples, T tokens, d features, C classes.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import call
from flax import nnx
from harness import Contestant, Found, Row, race
from record import Settings

from kind_jax import partition
from kind_jax.config import Contraction, Form
from kind_jax.nn.gate import Gate, one_group
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import FactoredDense, add_bias, matmul
from kind_jax.train import rows

TARGET = 1.10
CLASSES = (10, 600)
ORDERS: tuple[Contraction, ...] = ("factored", "auto")


@dataclasses.dataclass(frozen=True)
class Point:
    """Sizes of one comparison; there are d / 2 learngenes."""

    d: int
    T: int
    B: int
    tailors: int

    def __str__(self) -> str:
        return f"d {self.d}, T {self.T}, B {self.B}, N_T {self.tailors}"


def points(settings: Settings) -> list[Point]:
    if settings.quick:
        return [Point(64, 16, 4, 4)]
    if settings.full:
        return [
            Point(d, T, B, tailors)
            for d, T, B in itertools.product((384, 768, 1536), (64, 256), (8, 32))
            for tailors in (4, 5 * d // 64)
        ]
    return [
        Point(384, 64, 32, 4), Point(384, 64, 32, 30), Point(384, 256, 8, 30), Point(768, 64, 32, 4),
        Point(768, 256, 8, 60), Point(1536, 64, 8, 120),
    ]  # fmt: skip


def measure(settings: Settings) -> Found:
    """Forward and backward pass at each point, with few and with many classes."""
    found, details, grid = [], {}, points(settings)
    for point in grid:
        contestants = [_ungated(point)]
        for C in CLASSES:
            contestants += [_gated(f"gated, C {C}, {order}", point, C, order) for order in ORDERS]
        made = race(contestants, rounds=settings.rounds, steps=3)
        # In the same order of products as the ungated layer, what remains is the gate; auto is what a model does.
        for name in made.contestants:
            if name != "ungated":
                ratio = made.ratio(name, "ungated")
                found.append(Row(what=f"{name} / ungated; {point}", ratio=ratio, target=TARGET))
        details[str(point)] = made.details()
    return Found(rows=tuple(found), sizes={"points": [dataclasses.asdict(p) for p in grid]}, details=details)


def _inputs(point: Point) -> tuple[jax.Array, jax.Array]:
    """The input and the gradient of the output."""
    x, dy = np.random.default_rng(0).standard_normal((2, point.B, point.T, point.d), np.float32)
    return jnp.asarray(x), jnp.asarray(dy)


def _ungated(point: Point) -> Contestant:
    rank = point.d // 2 + point.tailors
    draw = np.random.default_rng(1).standard_normal
    weights = {
        "u": jnp.asarray(draw((point.d, rank), np.float32) * point.d**-0.5),
        "v": jnp.asarray(draw((rank, point.d), np.float32) * rank**-0.5),
        "bias": jnp.zeros(point.d),
    }

    def passes(weights: Any, x: jax.Array, dy: jax.Array) -> Any:
        def forward(w: Any, x: jax.Array) -> jax.Array:
            return add_bias(matmul(matmul(x, w["u"]), w["v"]), w["bias"])

        y, backward = jax.vjp(forward, weights, x)
        return y, backward(dy)

    return call("ungated", passes, weights, *_inputs(point))


def _gated(name: str, point: Point, classes: int, order: Contraction) -> Contestant:
    """A bank of the rows that the batch uses, which is all that the trainer's step shows to a layer."""
    held = min(classes, point.B)
    form = Form(shared=point.d // 2, tailors=point.tailors)
    layer = FactoredDense(point.d, point.d, form, groups=held, contraction=order, init=Initializer(0))
    graphdef, collections = partition.split(layer)
    labels = jnp.asarray(np.random.default_rng(2).integers(0, classes, point.B), jnp.int32)
    gate = one_group(labels)
    gate = Gate(rows.among(gate.index, rows.in_use(gate.index, held, classes)), gate.weight)

    def passes(weights: Any, gate: Any, x: jax.Array, dy: jax.Array) -> Any:
        def forward(w: Any, x: jax.Array) -> jax.Array:
            layer: nnx.Module = partition.join(graphdef, w)
            return layer(x, gate)

        y, backward = jax.vjp(forward, weights, x)
        return y, backward(dy)

    return call(name, passes, jax.device_put(collections), gate, *_inputs(point))
