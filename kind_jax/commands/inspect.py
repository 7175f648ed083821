"""``kind-jax inspect``: what a model is made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kind_jax.commands.console import Classes, check_png, chosen, say_paths, table, typed
from kind_jax.config import RunConfig
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Show the size of every collection and the components and energy of every factored weight."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    classes: Classes = ()
    """Classes whose tailors to load, by number, range or name, like 3,7 or 0-4 or cat,dog; default: all that the model
    serves."""
    out: Path | None = None
    """PNG file of the energy plot; default: energy.png in the run, or beside the artifact, if it can be
    written there."""
    weights: Literal["ema", "raw", "best"] | None = None
    """Moving average, last weights, or (of a classifier) those with the best held-out accuracy of a run; default: the
    moving average, or what the artifact holds."""


def run(args: list[str]) -> int:
    """Parse ``args``, print the tables and write the plot; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax inspect")

    from kind_jax.config import ModelConfig
    from kind_jax.deploy import anatomy, cost
    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.deploy.hub import result_of
    from kind_jax.files import atomic_write_bytes
    from kind_jax.nn.contraction import choose
    from kind_jax.plots import energy_bars
    from kind_jax.tasks import task_of
    from kind_jax.train.extended import told

    check_png(parsed.out)
    classes = typed("--classes", parsed.classes)
    bundle = open_bundle(parsed.source, classes=classes, weights=parsed.weights)
    chosen(classes, bundle.class_names)
    table(
        f"{parsed.source} (step {bundle.step}, {bundle.weights} weights)",
        ("collection", "parameters", "MB"),
        [
            (s.name, f"{s.parameters:,}", f"{s.bytes / 1e6:.2f}")
            for s in anatomy.sizes(bundle.collections, len(bundle.groups))
        ],
    )
    for line in told(parsed.source):
        print(line)
    settings, train = bundle.config.model, bundle.config.train
    if isinstance(settings, ModelConfig):
        flops = cost.total(settings, len(bundle.groups)).flops
    else:
        flops = task_of(bundle.config).flops() / 3 / train.batch  # a step goes forward, and twice as far backward
    print(f"one evaluation on one image: {flops / 1e6:,.2f} MFLOPs (2 x multiply-adds, one group on)")
    layers = anatomy.layers(bundle.collections)
    if not layers:
        print("every projection is dense: there are no components")
        return 0

    def order(layer: anatomy.Layer) -> str:
        """How a training step of this config multiplies by the learngenes."""
        if not layer.learngenes:
            return "-"
        tokens = cost.rows_of(settings, layer.name) if isinstance(settings, ModelConfig) else settings.tokens
        rows = train.batch // train.accumulate * tokens
        return choose(settings.contraction, layer.shape[0], layer.learngenes, layer.shape[1], rows)

    table(
        "components",
        (
            "weight", "d_in x d_out", "learngenes", "tailors/group", "energy of learngenes", "of one group's tailors",
            "learngenes in training",
        ),
        [
            (
                layer.name, f"{layer.shape[0]} x {layer.shape[1]}", str(layer.learngenes), str(layer.tailors),
                f"{layer.energy_learngenes:.2f}", f"{layer.energy_tailors:.2f}", order(layer),
            )
            for layer in layers
        ],
    )  # fmt: skip
    if (rows := _rows(bundle.config)) is not None:
        print(rows)
    out = parsed.out or result_of(parsed.source, "energy.png")
    try:
        atomic_write_bytes(out, energy_bars(anatomy.as_bars(layers)))
    except UserError as e:
        if parsed.out is not None:
            raise
        print(f"there is no plot, since {str(e).removesuffix('.')}; --out can name another place")
        return 0
    say_paths("energy: sum of (|s| |u| |v|)² over components; tailors: mean over groups", {"plot": out})
    return 0


def _rows(config: RunConfig) -> str | None:
    """What the rows of the tailor bank cost that a training step uses; None where the config is of no step."""
    from kind_jax.plan.estimate import readable
    from kind_jax.plan.rows import rows_in_use
    from kind_jax.tasks import task_of
    from kind_jax.train.layout import layout_of

    task = task_of(config)
    try:
        found = rows_in_use(task, layout_of(task))
    except UserError:
        return None
    if found is None:
        return None
    return (
        f"a training step on one device works on {found.count} rows of the bank and looks up {found.copies}: "
        f"{readable(found.bytes)} of its memory"
    )
