"""How fast composed models evaluate, against a plain dense DiT: the contestants of studies/compose_speed.py."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
from harness import Contestant, Found, Row, race
from record import Settings

from kind_jax import model
from kind_jax.config import Config, change, load_file
from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.compose import compose
from kind_jax.deploy.cost import total

ROOT = Path(__file__).parents[1]


def measure(settings: Settings) -> Found:
    """Evaluation time of one class composed out of a KIND model, by rank; the share of FLOPs is in the names."""
    sys.path.append(str(ROOT / "studies"))  # scripts, not a package
    from common import as_bundle  # pyright: ignore[reportMissingImports]
    from compose_speed import evaluation  # pyright: ignore[reportMissingImports]

    width, depth, size, batch = (64, 1, 8, 2) if settings.quick else (384, 4, 16, 8)
    base = change(
        load_file(ROOT / "configs" / "digits.py"),
        model={"width": width, "depth": depth, "size": size, "heads": 4,
               "factor": {"learngenes": None, "tailors": None}},
    )  # fmt: skip
    dense = change(base, model={"factor": {"projections": ()}})
    kind = as_bundle(base, model.init(base.model, 0))

    def contestant(name: str, config: Config, bundle: Bundle) -> Contestant:
        call = evaluation(config, bundle, batch)
        return Contestant(name=name, step=lambda: jax.block_until_ready(call()))

    ranks = [round(width * share) for share in (0.1, 0.2, 0.3)]
    made = {"composed, dense": compose(kind, classes=[0], form="dense")} | {
        f"composed, rank {r}": compose(kind, classes=[0], rank=r, form="factored", criterion="energy") for r in ranks
    }
    contestants = [contestant("dense", dense, as_bundle(dense, model.init(dense.model, 0)))]
    contestants += [contestant(name, m.bundle.config, m.bundle) for name, m in made.items()]
    found = race(contestants, rounds=settings.rounds)
    flops = total(dense.model).flops
    rows = [
        Row(what=f"{name} ({m.after.flops / flops:.3f} of the FLOPs) / dense", ratio=found.ratio(name, "dense"))
        for name, m in made.items()
    ]
    sizes = {"width": width, "depth": depth, "size": size, "batch": batch, "ranks": ranks}
    return Found(rows=tuple(rows), sizes=sizes, details=found.details())
