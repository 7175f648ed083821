"""Speed, memory and compile time, always as ratios of runs that are interleaved in one process.

    make bench
    make bench ARGS='--only layer,classes'

Each measure's result is written as soon as it is finished; the same command continues after an interruption.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import tyro
from record import Settings, circumstances, measure, read, table

from kind_jax.errors import UserError
from kind_jax.files import atomic_write_text

# name: (module, function); imported only when they run, since JAX must come after keep_memory.
MEASURES = {
    "layer": ("layer", "measure"),
    "classes": ("steps", "classes"),
    "kind_vs_dense": ("steps", "kind_vs_dense"),
    "torch": ("torch_peer", "measure"),
    "classifiers": ("classifiers", "measure"),
    "modules": ("modules", "measure"),
    "distillation": ("distillation", "measure"),
    "matching": ("matching", "measure"),
    "scan": ("programs", "measure"),
    "contraction": ("steps", "contraction"),
    "compose": ("composed", "measure"),
    "loop": ("loop", "measure"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure, and write JSON files and a table.

    Attributes:
      only: measures to make anew, separated by commas, of layer, classes, kind_vs_dense, torch, classifiers, modules,
        distillation, matching, scan, contraction, compose, loop; all of them, except those whose results are there
        already, if empty.
      rounds: rounds of a race.
      out: folder of the results.
      quick: tiny sizes and three rounds, to see that everything works; the figures mean nothing.
      full: every point of the layer's grid instead of six.
    """

    only: str = ""
    rounds: int = 25
    out: Path = Path("runs/bench")
    quick: bool = False
    full: bool = False


def main() -> None:
    from kind_jax.host import keep_memory

    keep_memory()  # before JAX allocates anything
    arguments = tyro.cli(Arguments, description=__doc__)
    wanted = [name.strip() for name in arguments.only.split(",") if name.strip()]
    for name in wanted:
        if name not in MEASURES:
            raise UserError(f"--only is {arguments.only!r}, but {name!r} is not one of {', '.join(MEASURES)}.")
    if arguments.rounds < 1:
        raise UserError(f"--rounds is {arguments.rounds}, but it must be 1 or more.")
    for name in MEASURES:  # refuse a damaged folder before hours of work
        read(arguments.out / f"{name}.json")

    import jax

    # A program out of the cache would have compiled in no time.
    jax.config.update("jax_enable_compilation_cache", False)
    settings = Settings(
        rounds=min(arguments.rounds, 3) if arguments.quick else arguments.rounds,
        quick=arguments.quick,
        full=arguments.full,
    )
    given = circumstances(settings)
    for name in wanted or MEASURES:
        module, function = MEASURES[name]
        compute = getattr(importlib.import_module(module), function)
        measure(name, lambda compute=compute: compute(settings), arguments.out, given, again=bool(wanted))
        _summarise(arguments.out)
    print(f"\n{(arguments.out / 'summary.md').read_text()}\n  {arguments.out / 'summary.md'}")


def _summarise(folder: Path) -> None:
    found = [read(folder / f"{name}.json") for name in MEASURES]
    atomic_write_text(folder / "summary.md", table([record for record in found if record is not None]))


if __name__ == "__main__":
    try:
        main()
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(75)
