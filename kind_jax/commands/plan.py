"""``kind-jax plan``: the train step compiled for hardware that is not here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kind_jax.commands.console import check_file, say_paths, table
from kind_jax.commands.given import base_config
from kind_jax.commands.kinds import PLAIN, for_settings
from kind_jax.config import Config, RunConfig, presets
from kind_jax.config.check import together
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.plan.compiled import CompiledStep
    from kind_jax.plan.estimate import Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compile the train step for hardware that is not here, and say whether it fits and how long a step takes.

    Exit code 2 says that it does not fit, and what would help.
    """

    config: Annotated[Path | None, tyro.conf.arg(help=f"Needed. {presets.HELP}")] = None
    mesh: str | None = None
    """Devices as data x fsdp (x tensor), like 16x16 or 8x16x2; default: the mesh.* settings, if they are all given."""
    chip: str | None = None
    """a100 (80 GB), a100-40, h100, h200, b200, v5e, v5p or v6e; default: all of them, one of which must fit."""
    mfu: float = 0.4
    """Share of the chip's peak that is assumed; recomputation by model.remat counts as work."""
    out: Path | None = None
    """JSON file for all figures; default: none."""
    settings: Annotated[RunConfig, tyro.conf.arg(name="")]


def run(args: list[str]) -> int:
    """Parse ``args``, compile, print the tables; returns the exit code."""
    base = base_config(Arguments, args, Config(), RunConfig)
    with together():
        form = for_settings(Arguments, type(base))
        parsed = tyro.cli(form, args=args, default=form(settings=base), prog="kind-jax plan", config=PLAIN)
    if parsed.config is None:
        raise UserError(
            "--config is missing, but it must name a preset, like dit_xl2, or a Python file with get_config()."
        )
    check_file(parsed.out)

    from kind_jax import chips
    from kind_jax.files import atomic_write_text
    from kind_jax.plan import estimate
    from kind_jax.plan.compiled import compile_step, fake_devices, parse_mesh

    config = parsed.settings
    if parsed.mesh is not None:
        config = dataclasses.replace(config, mesh=parse_mesh(parsed.mesh))
    wanted = [chips.find(parsed.chip)] if parsed.chip else list(chips.CHIPS)
    estimate.check_mfu(parsed.mfu)
    devices = fake_devices(config.mesh)
    step = compile_step(config, devices)
    verdicts = [estimate.judge(step, chip, config.train.batch, parsed.mfu) for chip in wanted]

    _say(config, step, verdicts, parsed.mfu)
    if parsed.out is not None:
        text = json.dumps(estimate.record(config, step, verdicts, parsed.mfu), indent=2)
        atomic_write_text(parsed.out, f"{text}\n")
        say_paths("written", {"figures": parsed.out})
    estimate.check_fits(config, step, verdicts, devices)
    return 0


def _say(config: RunConfig, step: CompiledStep, verdicts: list[Verdict], mfu: float) -> None:
    from kind_jax.plan.compiled import remat
    from kind_jax.plan.estimate import readable, readable_time
    from kind_jax.tasks import task_of
    from kind_jax.train.layout import described

    mesh, state = config.mesh, step.state
    rows = {
        "parameters": state.parameters, "moving average": state.average, "optimizer": state.optimizer,
        "counters": state.counters, "frozen": state.fixed, "input batch": step.batch, "temporary": step.temporary,
        "metrics": step.outputs, "total": step.memory,
    }  # fmt: skip
    if not state.fixed:
        del rows["frozen"]
    print(
        f"{step.devices} devices: data {mesh.data} x fsdp {mesh.fsdp} x tensor {mesh.tensor}; "
        f"batch {config.train.batch} in {config.train.accumulate} micro-batches; compiled in {step.seconds:.0f} s"
    )
    table("memory of a device", ("part", "size"), [(name, readable(size)) for name, size in rows.items()])
    for line in described(step.layout, task_of(config)):
        print(line)
    if step.rows is not None:
        print(
            f"A step works on {step.rows.count} rows of the bank and looks up {step.rows.copies} on each device: "
            f"{readable(step.rows.bytes)} of the temporary memory."
        )
    print(
        f"The tailor bank is {readable(state.tailors)} of the state. Temporary memory is an upper bound: the program\n"
        "that was compiled here is for CPU; it keeps attention probabilities [heads, tokens, tokens], which fused\n"
        "attention does not, and holds much of a bfloat16 model in float32."
    )
    total = step.collectives.total
    sent = [*step.collectives.by_kind.items(), ("total", total)]
    table(
        "collectives of a step",
        ("kind", "count", "results", "received"),
        [(kind, f"{t.count:,}", readable(t.output), readable(t.received)) for kind, t in sent],
    )
    if step.collectives.unknown_loops:
        print(f"{step.collectives.unknown_loops} loops with collectives have no known length and count as one round.")
    print(
        "Bytes of one device as the program for CPU sends them, by the best known algorithm. It computes much in\n"
        "float32 and uses all-reduce where a chip does with reduce-scatter: a chip may send as little as a quarter."
    )
    table(
        f"chips at {mfu:.0%} of their bfloat16 peak",
        ("chip", "memory", "fits", "free", "computing", "collectives", "step", "images/s", "... overlapped"),
        [
            (
                v.chip.title, readable(v.chip.memory), "yes" if v.fits else "no",
                readable(v.chip.memory - step.memory) if v.fits else "-", readable_time(v.compute_seconds),
                readable_time(v.collective_seconds), readable_time(v.step_seconds), f"{v.images_per_second:,.0f}",
                f"{v.overlapped_images_per_second:,.0f}",
            )
            for v in verdicts
        ],
    )  # fmt: skip
    passes = "four forward passes, one of them for model.remat" if remat(config) else "three forward passes"
    if state.fixed:
        passes = "forward through all, backward only as far as something trains, and no weight gradients of the rest"
    print(
        f"A step is {step.flops / 1e12:,.4g} TFLOPs on each device ({passes}). Its time, and images/s,\n"
        "are those of computing and collectives one after the other; in the last column the shorter of the two is\n"
        "hidden behind the longer one. Collectives run at the full bandwidths that the makers give: among the devices\n"
        "of a box or pod (on a torus along one axis, unless all take part), and over network adapters between boxes."
    )
