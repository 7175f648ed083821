"""Everything that is to be known of one accelerator: is it right, how fast, how much memory, and what was predicted.

    make accelerator
    python benchmarks/accelerator.py --only train --size B/2 --minutes 10
    python benchmarks/accelerator.py --quick             # on a CPU, to see that everything works

Runs on any machine with JAX, flax, optax and what the package itself imports; PyTorch is raced against where it is
there. Results are on disk after every case, so that a run that is cut short leaves what it has.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]  # a bare machine has no installed package

from kind_jax.errors import UserError  # noqa: E402
from kind_jax.files import atomic_write_text  # noqa: E402

SECTIONS = ("numerics", "attention", "torch", "train", "sampling", "plan")
OUT = ROOT / "docs" / "results" / "accelerator.json"


class _Parser(argparse.ArgumentParser):
    """Of the standard library, since a bare machine need not have tyro; it refuses as our commands do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists what there is.")


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The command line.

    Raises:
      UserError: something in it is wrong.
    """
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument(
        "--only", default=",".join(SECTIONS), help=f"sections, separated by commas: {', '.join(SECTIONS)}"
    )
    parser.add_argument("--size", help="sizes that are timed: tiny, S/2, B/2, L/2; B/2,L/2 unless given")
    parser.add_argument("--cases", default="", help="only cases whose name this regular expression matches somewhere")
    parser.add_argument("--minutes", type=float, default=25.0, help="what is not begun by then is recorded as skipped")
    parser.add_argument("--rounds", type=int, default=15, help="of a race")
    parser.add_argument("--steps", type=int, default=5, help="training steps in a turn of a round")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file")
    parser.add_argument("--table", type=Path, help="Markdown file; beside --out unless given")
    parser.add_argument(
        "--add", action="store_true", help="keep the other cases that --out has of this machine and code"
    )
    parser.add_argument("--quick", action="store_true", help="--size tiny, three rounds of one step")
    found = parser.parse_args(given)
    found.only = tuple(dict.fromkeys(name.strip() for name in found.only.split(",") if name.strip()))
    found.size = found.size or ("tiny" if found.quick else "B/2,L/2")
    found.table = found.table or found.out.with_suffix(".md")
    _check(found)
    return found


def _check(found: argparse.Namespace) -> None:
    for name in found.only:
        _require(name in SECTIONS, "--only", name, f"one of {', '.join(SECTIONS)}")
    _require(bool(found.only), "--only", "", "at least one section")
    for name in found.size.split(","):
        _require(name in ("tiny", "S/2", "B/2", "L/2"), "--size", name, "one of tiny, S/2, B/2, L/2")
    for name, least in (("minutes", 0), ("rounds", 1), ("steps", 1)):
        value = getattr(found, name)
        _require(least <= value < 1e6, f"--{name}", value, f"{least} or more")
    try:
        re.compile(found.cases)
    except re.error as e:
        raise UserError(f"--cases is {found.cases!r}, but it must be a regular expression: {e}.") from e


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise UserError(f"{name} is {value!r}, but it must be {wanted}.")


def main(given: Sequence[str]) -> int:
    """Measure, write, print; returns 1 if a check failed or a case broke."""
    arguments = parse(given)
    # Not all of the card at once: PyTorch's peer lives on it, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")

    from kind_jax.host import keep_memory

    keep_memory()  # before JAX allocates anything

    try:
        import accelerator_numerics
        import accelerator_plan
        import accelerator_sampling
        import accelerator_torch
        import accelerator_training
        import jax
        from accelerator_log import BAD, Log, Settings, read
        from accelerator_table import table
    except ModuleNotFoundError as e:
        raise UserError(f"the Python package {e.name!r} is missing; pip install it beside JAX.") from e

    sizes = accelerator_training.smallest_first(tuple(arguments.size.split(",")))
    rounds, steps = (min(arguments.rounds, 3), 1) if arguments.quick else (arguments.rounds, arguments.steps)
    settings = Settings(sizes=sizes, rounds=rounds, steps=steps, cases=arguments.cases)
    if jax.default_backend() == "cpu" and sizes != ("tiny",):
        raise UserError("JAX has found no accelerator, and a CPU takes hours for these sizes; --quick shows all of it.")
    header = _header(settings, given, quick=sizes == ("tiny",))
    earlier = []
    if arguments.add and arguments.out.exists():
        old = read(arguments.out)
        for name in ("machine", "versions", "source"):
            if old.get(name) != header[name]:
                raise UserError(
                    f"{arguments.out} is of another {name}, so nothing can be added to it; leave out --add."
                )
        earlier = old["cases"]
    log = Log(arguments.out, header, arguments.minutes, earlier)
    planner = accelerator_plan.Planner(settings) if "plan" in arguments.only else None
    sections: dict[str, Any] = {
        "numerics": accelerator_numerics.measure, "attention": accelerator_training.attention,
        "plan": lambda log, settings: planner.collect(log) if planner else None,
        # While JAX holds little of the card.
        "torch": accelerator_torch.measure,
        "train": accelerator_training.measure, "sampling": accelerator_sampling.measure,
    }  # fmt: skip
    try:
        for name, measure in sections.items():
            if name in arguments.only:
                measure(log, settings)
    finally:
        if planner is not None:
            planner.stop()
        log.write()
        text = table(log, header)
        atomic_write_text(arguments.table, text)
        print(f"\n{text}\n  {arguments.out}\n  {arguments.table}")
    if not log.made:
        raise UserError(f"--cases is {arguments.cases!r}, but no case has such a name.")
    return int(any(case.status in BAD for case in log.made))


def _header(settings: Any, given: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """What is said of the machine, the code and the command."""
    import jax
    import record

    from kind_jax.chips import peak_flops

    about = record.circumstances(record.Settings(rounds=settings.rounds, quick=quick))
    devices = jax.devices()
    first = devices[0]
    return {
        "command": shlex.join(["python", "benchmarks/accelerator.py", *given]),
        "began": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "commit": _commit(),
        "source": about["source"],
        "versions": about["versions"],
        "machine": {
            "device": first.device_kind,
            "platform": first.platform,
            "devices": len(devices),  # all but the first stand idle
            "runtime": " ".join(first.client.platform_version.split()),
            "compute_capability": str(getattr(first, "compute_capability", "")) or None,
            "memory_bytes": (first.memory_stats() or {}).get("bytes_limit"),
            "peak_flops": peak_flops(first.device_kind),
            "compilation_cache": bool(jax.config.jax_compilation_cache_dir),  # pyright: ignore[reportAttributeAccessIssue]
            "cpu": about["cpu"],
            "cores": about["cores"],
        },
        "settings": {**dataclasses.asdict(settings), "quick": quick},
    }


def _commit() -> str | None:
    """The commit, with a + where files differ from it; None where there is no repository."""
    try:
        hash_, changed = (
            subprocess.run(
                ["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{hash_}+" if changed else hash_


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; what is finished is on disk", file=sys.stderr)
        sys.exit(75)
