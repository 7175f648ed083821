"""What a model costs: parameters, and FLOPs of one evaluation on one image, from shapes alone.

FLOPs are 2 x multiply-adds of every matrix product: linear layers (embeddings, adaLN and the last layer included) and
the two products of attention. Element-wise work (biases, norms, softmax, activations, the scaling by s) is not counted,
as in the usual figures for DiT (which count multiply-adds, so they are half of these). Tailors count once in FLOPs,
since one group is on for a sample, and for every group of the bank in parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from kind_jax.config import Form, ModelConfig
from kind_jax.nn import contraction
from kind_jax.nn.embed import FREQUENCIES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Parameters, and FLOPs of one forward pass on one image."""

    parameters: int
    flops: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(parameters=self.parameters + other.parameters, flops=self.flops + other.flops)


NOTHING = Cost(parameters=0, flops=0)


def tokens(config: ModelConfig) -> int:
    return (config.size // config.patch) ** 2


def component(d_in: int, d_out: int, rows: int) -> Cost:
    """One component u, s, v of a weight [d_in, d_out] that is applied to ``rows`` vectors."""
    return Cost(parameters=d_in + d_out + 1, flops=2 * rows * (d_in + d_out))


def kernel(d_in: int, d_out: int, rows: int) -> Cost:
    """A dense kernel, without its bias."""
    return Cost(parameters=d_in * d_out, flops=2 * rows * d_in * d_out)


def projection(d_in: int, d_out: int, rows: int, form: Form, groups: int) -> Cost:
    """A projection of a block with its bias."""
    one = component(d_in, d_out, rows)
    shared = Cost(parameters=(form.shared or 0) * one.parameters, flops=(form.shared or 0) * one.flops)
    if form.shared is None:
        shared = kernel(d_in, d_out, rows)
    own = Cost(parameters=groups * form.tailors * one.parameters, flops=form.tailors * one.flops)
    return shared + own + Cost(parameters=d_out, flops=0)


def rows_of(config: ModelConfig, name: str) -> int:
    """Vectors of one image that a projection is applied to; adaLN sees only the conditioning vector."""
    return 1 if name.endswith("adaln") else tokens(config)


def costs(config: ModelConfig, groups: int | None = None) -> dict[str, Cost]:
    """The cost of every part, whose sum is the model's.

    Args:
      groups: rows of the tailor bank; None is every group of the config.

    Returns:
      Projections by name, like ``3/qkv``, and ``attention`` (its two products in all blocks), ``patch_embed``,
      ``time_embed``, ``label_embed`` where there is one, and ``final``.
    """
    rows, width = tokens(config), config.width
    count = config.num_groups if groups is None else groups
    sizes, area = config.projection_sizes, config.patch**2

    def dense(d_in: int, d_out: int, rows: int) -> Cost:
        return kernel(d_in, d_out, rows) + Cost(parameters=d_out, flops=0)

    found = {
        name: projection(*sizes[name.partition("/")[2]], rows_of(config, name), form, count)
        for name, form in config.forms.items()
    }
    found["attention"] = Cost(parameters=0, flops=config.depth * 2 * 2 * rows * rows * width)
    found["patch_embed"] = dense(area * config.channels, width, rows)
    found["time_embed"] = dense(FREQUENCIES, width, 1) + dense(width, width, 1)
    if config.label_embedding:
        found["label_embed"] = Cost(parameters=(config.num_classes + 1) * width, flops=0)
    found["final"] = dense(width, 2 * width, 1) + dense(width, area * config.out_channels, rows)
    return found


def total(config: ModelConfig, groups: int | None = None) -> Cost:
    """The cost of the whole model; see :func:`costs`."""
    return sum(costs(config, groups).values(), start=NOTHING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Products:
    """FLOPs of a forward pass on a batch as training runs it: of the learngenes, and of all else."""

    learngenes: int
    rest: int

    @property
    def total(self) -> int:
        return self.learngenes + self.rest


def products(config: ModelConfig, images: int, kept: Sequence[int] | None = None) -> Products:
    """What a forward pass on ``images`` multiplies: learngenes in their order (``model.contraction``), and the tailors
    of every group that a sample's gate names, which are all of them where ``null_gate`` is ``all`` or ``mean``.

    Args:
      kept: how many tokens of an image each block sees, where some skip it; None: all.
    """
    seen = (tokens(config),) * config.depth if kept is None else kept
    on = 1 if config.null_gate in ("learngenes", "keep") else 1 + config.num_groups
    learngenes = rest = 0
    for name, form in config.forms.items():
        block, _, projection = name.partition("/")
        d_in, d_out = config.projection_sizes[projection]
        rows = images * (1 if projection == "adaln" else seen[int(block)])
        if form.shared is None:
            rest += kernel(d_in, d_out, rows).flops
        elif form.shared:
            order = contraction.choose(config.contraction, d_in, form.shared, d_out, rows)
            learngenes += contraction.flops(order, d_in, form.shared, d_out, rows)
        rest += on * form.tailors * component(d_in, d_out, rows).flops
    others = [cost.flops for name, cost in costs(config).items() if name not in {*config.forms, "attention"}]
    attention = sum(2 * 2 * n * n * config.width for n in seen)
    return Products(learngenes=learngenes, rest=rest + images * (sum(others) + attention))
