"""Training steps on an accelerator: time, FLOPs and memory of each variant, against the dense model of its size."""

from __future__ import annotations

import dataclasses
from typing import Any

import fused
import jax
import numpy as np
from accelerator_cases import SIZES, batch_of, random_state, variants
from accelerator_log import Log, NotApplicableError, Settings, WrongError
from cases import compiled, dense, kind
from harness import Contestant, race

from kind_jax import chips
from kind_jax.config import Config
from kind_jax.tasks import task_of
from kind_jax.train.step import make_step


def attention(log: Log, settings: Settings) -> None:
    """Whether the attention of a bfloat16 training step is the platform's fused one."""
    del settings
    log.case("attention", "dense, bfloat16", _attention)


def _attention() -> dict[str, Any]:
    platform = jax.devices()[0].platform
    if platform == "cpu":
        raise NotApplicableError("CPU: attention is the package's own, with a hand-written backward pass")
    config = dense(kind(width=128, depth=2, tokens=64, batch=16, scan_unroll=1, dtype="bfloat16"))
    program, _ = compiled(make_step(task_of(config)), random_state(config), batch_of(config), donate=True)
    text = program.as_text()  # pyright: ignore[reportFunctionMemberAccess]
    calls = fused.targets(text)
    if platform == "tpu":
        raise NotApplicableError(f"TPU: attention is left to XLA; custom calls in the program: {calls or 'none'}")
    wanted = fused.expected("bfloat16", 64)
    found = fused.check(text, wanted=wanted)
    if not wanted:
        raise NotApplicableError(f"cuDNN's fused attention is not asked for on {jax.devices()[0].device_kind}")
    return {"fused_attention": found, "custom_calls": calls}


@dataclasses.dataclass
class Steps:
    """A compiled training step with its state and batch, which takes several steps at a time.

    Attributes:
      facts: compile time and memory, from :func:`cases.compiled`.
      loss: of the last step.
    """

    name: str
    facts: dict[str, Any]
    attention: dict[str, int]
    program: Any
    state: Any
    batch: Any
    loss: Any = None

    @classmethod
    def of(cls, name: str, config: Config) -> Steps:
        """Compile the step, and draw state and batch on the device.

        Raises:
          WrongError: fused attention is not in the program, although it was asked for.
        """
        task, batch = task_of(config), batch_of(config)
        state = random_state(config)
        program, facts = compiled(make_step(task), state, batch, donate=True)
        m = config.model
        text = program.as_text()  # pyright: ignore[reportFunctionMemberAccess]
        found = fused.check(text, wanted=fused.expected(m.dtype, m.width // m.heads))
        return cls(name=name, facts=facts, attention=found, program=program, state=state, batch=batch)

    def contestant(self, steps: int) -> Contestant:
        def several() -> None:
            for _ in range(steps):
                self.state, metrics = self.program(self.state, self.batch)
                self.loss = metrics["loss"]
            jax.block_until_ready((self.state, self.loss))

        return Contestant(name=self.name, step=several, **self.facts)


def measure(log: Log, settings: Settings) -> None:
    """All variants of all sizes."""
    for size in settings.sizes:
        base: list[Steps] = []  # the dense model, which the others race against
        for name, make in variants(size).items():
            if name == "dense" or settings.wants(f"{size}: {name}"):
                log.case("train", f"{size}: {name}", lambda make=make, base=base: _timed(make(), base, settings))
        base.clear()


def _timed(config: Config, base: list[Steps], settings: Settings) -> dict[str, Any]:
    before = memory()
    ours = Steps.of("ours", config)
    contestant = ours.contestant(settings.steps)
    contestant.step()
    after = memory()
    # One after the other in the same seconds, so that the card's clock is the same for both.
    rivals = [steps.contestant(settings.steps) for steps in base]
    try:
        made = race([contestant, *rivals], rounds=settings.rounds, warmup=1)
    except Exception:
        base.clear()  # its state may be donated and gone
        raise
    seconds = made.seconds["ours"] / settings.steps
    loss = float(ours.loss)
    figures = step_figures(config, seconds) | {
        "compile_seconds": ours.facts["compile_seconds"],
        "program_bytes": ours.facts.get("total_bytes"),
        "temporary_bytes": ours.facts.get("temporary_bytes"),
        "fused_attention": ours.attention,
        **peak(before, after),
    }
    if base:
        figures["against"] = "dense"
        figures["ratio"] = dataclasses.asdict(made.ratio("ours", base[0].name))
    else:
        ours.name = "dense"
        base.append(ours)
    if not np.isfinite(loss):
        raise WrongError(f"the loss of the last step is {loss}", figures)
    return figures


def step_figures(config: Config, seconds: np.ndarray) -> dict[str, Any]:
    """What follows from the seconds that a training step took in each round."""
    median, flops = float(np.median(seconds)), task_of(config).flops()
    top = chips.peak_flops(jax.devices()[0].device_kind)
    return {
        "seconds": median,
        "seconds_quartiles": [float(q) for q in np.percentile(seconds, (25, 75))],
        "batch": config.train.batch,
        "images_per_second": config.train.batch / median,
        "flops": flops,
        "mfu": None if top is None else flops / median / top,
    }


def memory() -> dict[str, int]:
    """What the device says of its memory; empty where it says nothing."""
    return jax.devices()[0].memory_stats() or {}


def peak(before: dict[str, int], after: dict[str, int]) -> dict[str, Any]:
    """The most that a case had in use beside what was there before it.

    JAX keeps one peak for the whole process: where a case stays below that of an earlier one, there is an upper bound
    alone.
    """
    if "peak_bytes_in_use" not in after:
        return {"peak_bytes": None, "peak_is_bound": False}
    bound = after["peak_bytes_in_use"] <= before["peak_bytes_in_use"]
    return {"peak_bytes": after["peak_bytes_in_use"] - before["bytes_in_use"], "peak_is_bound": bound}


def smallest_first(sizes: tuple[str, ...]) -> tuple[str, ...]:
    """Sizes in the order of :data:`accelerator_cases.SIZES`, so that peaks rise."""
    return tuple(size for size in SIZES if size in sizes)
