"""What a transfer costs: time of a step, optimizer state, and temporary memory, against full fine-tuning.

    make study-transfer-cost

Time is the median over rounds of the ratio of two interleaved blocks of steps, with the quartiles; absolute times of a
shared machine mean nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from common import as_bundle, entry, markdown, report

from kind_jax import model
from kind_jax.config import Config, change, load_file
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.step import make_step
from kind_jax.transferring.plan import plan
from kind_jax.transferring.run import footprint
from kind_jax.transferring.start import start

CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"
DENSE = {"factor": {"projections": ()}, "label_embedding": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure methods of transfer from ten classes to three."""

    width: int = 256
    depth: int = 4
    size: int = 16
    """Side of the images; patches of 2 make (size / 2)² tokens."""
    batch: int = 16
    rounds: int = 15
    steps: int = 2
    """Steps of a block."""
    out: Path = Path("runs/study-transfer-cost")


class Contestant:
    """One method's compiled step with its state."""

    def __init__(self, source: Config, method: str) -> None:
        weights = model.init(source.model, 0)
        config = plan(change(source, model={"num_classes": 3}, transfer={"method": method}), source, "")
        m, batch = config.model, config.train.batch
        rng = np.random.default_rng(0)
        self.batch = {
            "image": rng.standard_normal((batch, m.size, m.size, m.channels), np.float32),
            "label": (np.arange(batch) % 3).astype(np.int32),
        }
        self.footprint = footprint(config)
        begin = jax.jit(functools.partial(states.start, task_of(config)))
        self.state = begin(start(config, as_bundle(source, weights)))
        self.step = jax.jit(make_step(task_of(config)), donate_argnums=0).lower(self.state, self.batch).compile()
        analysis: Any = self.step.memory_analysis()
        self.temporary = int(analysis.temp_size_in_bytes)

    def seconds(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            self.state, _ = self.step(self.state, self.batch)
        jax.block_until_ready(self.state)
        return (time.perf_counter() - begin) / steps


def main() -> None:
    arguments = tyro.cli(Arguments)
    base = load_file(CONFIG)
    kind = change(
        base,
        model={"width": arguments.width, "depth": arguments.depth, "size": arguments.size, "heads": 4,
               "factor": {"learngenes": None, "tailors": None}},
        train={"batch": arguments.batch},
    )  # fmt: skip
    dense = change(kind, model=DENSE)
    pairs = {
        "KIND: learngenes + fresh tailors": (kind, "kind"),
        "KIND, everything trained": (kind, "full"),
        "dense, full fine-tuning": (dense, "full"),
        "LoRA, rank 4": (dense, "lora"),
    }
    found = {name: Contestant(*pair) for name, pair in pairs.items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    for contestant in found.values():
        contestant.seconds(2)
    for _ in range(arguments.rounds):
        for name, contestant in found.items():
            times[name].append(contestant.seconds(arguments.steps))
    rows = [
        ["method", "trained", "optimizer state", "temporary memory", "step time / full fine-tuning of the same model"]
    ]
    record = {}
    for name, contestant in found.items():
        whole = "KIND, everything trained" if pairs[name][0] is kind else "dense, full fine-tuning"
        ratios = np.array(times[name]) / np.array(times[whole])
        low, middle, high = np.percentile(ratios, (25, 50, 75))
        cost = contestant.footprint
        share = cost.optimizer_bytes / found[whole].footprint.optimizer_bytes
        temporary = contestant.temporary / found[whole].temporary
        rows.append([
            name, f"{cost.trained:,} of {cost.parameters:,}", f"{cost.optimizer_bytes / 1e6:.2f} MB ({share:.3f})",
            f"{contestant.temporary / 1e6:.1f} MB ({temporary:.2f})", f"{middle:.2f} ({low:.2f} to {high:.2f})",
        ])  # fmt: skip
        record[name] = {
            **dataclasses.asdict(cost), "temporary_bytes": contestant.temporary, "optimizer_ratio": share,
            "temporary_ratio": temporary, "time_ratio": [low, middle, high],
        }  # fmt: skip
    report(arguments.out, record, markdown(rows))


if __name__ == "__main__":
    entry(main)
