"""How fast composed models sample: against a plain dense DiT of equal size, and what a smaller rank saves.

    make study-compose-speed

Times are medians over rounds of the ratio of two interleaved calls of the compiled sampler, with the quartiles.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from common import as_bundle, entry, markdown, report

from kind_jax import model
from kind_jax.config import Config, change, load_file
from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.compose import compose
from kind_jax.deploy.cost import total
from kind_jax.host import keep_memory
from kind_jax.nn.gate import learngenes_only

CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compose one class out of an untrained model (speed does not depend on the weights' values) and time it."""

    width: int = 384
    depth: int = 4
    size: int = 16
    batch: int = 8
    ranks: tuple[int, ...] = (38, 77, 115)
    """Ranks of the factored models: 0.1, 0.2 and 0.3 of the default width."""
    rounds: int = 25
    out: Path = Path("runs/study-compose-speed")


def evaluation(config: Config, bundle: Bundle, batch: int) -> Callable[[], jax.Array]:
    """One evaluation of the network, what a sampler repeats, compiled."""
    m = config.model
    images = jnp.zeros((batch, m.size, m.size, m.channels))
    t, labels = jnp.zeros(batch), jnp.zeros(batch, jnp.int32)
    weights = jax.device_put(bundle.collections)
    f = jax.jit(lambda w, x: model.apply(m, w, x, t, labels, learngenes_only()))
    jax.block_until_ready(f(weights, images))
    return lambda: f(weights, images)


def main() -> None:
    arguments = tyro.cli(Arguments)
    keep_memory()
    base = change(
        load_file(CONFIG),
        model={"width": arguments.width, "depth": arguments.depth, "size": arguments.size, "heads": 6,
               "factor": {"learngenes": None, "tailors": None}},
    )  # fmt: skip
    dense = change(base, model={"factor": {"projections": ()}})
    kind = as_bundle(base, model.init(base.model, 0))
    composed = {"composed, dense": compose(kind, classes=[0], form="dense")}
    for rank in arguments.ranks:
        made = compose(kind, classes=[0], rank=rank, form="factored", criterion="energy")
        composed[f"composed, rank {rank}"] = made
    plain = evaluation(dense, as_bundle(dense, model.init(dense.model, 0)), arguments.batch)
    calls = {name: evaluation(made.bundle.config, made.bundle, arguments.batch) for name, made in composed.items()}
    ratios: dict[str, list[float]] = {name: [] for name in calls}

    def seconds(f: Callable[[], jax.Array]) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(f())
        return time.perf_counter() - begin

    for _ in range(arguments.rounds):
        for name, call in calls.items():
            # Each call follows one of the other model, so neither finds its own weights in the cache.
            ratios[name].append(seconds(call) / seconds(plain))
    flops = total(dense.model).flops
    rows = [["model", "parameters", "FLOPs, share of dense", "time, share of dense", "saving realised"]]
    record = {}
    for name, values in ratios.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        share = composed[name].after.flops / flops
        realised = f"{(1 - middle) / (1 - share):.2f}" if share < 0.99 else "-"
        size = composed[name].after.parameters
        rows.append([name, f"{size:,}", f"{share:.3f}", f"{middle:.3f} ({low:.3f} to {high:.3f})", realised])
        record[name] = {"parameters": size, "flops": share, "time": [low, middle, high]}
    report(arguments.out, record, markdown(rows))


if __name__ == "__main__":
    entry(main)
