"""Everything that must not lose a step or load a wrong number, tried many times: ``make chaos``.

    make chaos
    make chaos ARGS='--only kills --kills 20'

Exit code 1 means that something did not go as promised; ``chaos.json`` in the output folder has every case.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import tyro

from chaos.outcome import Outcome, joined
from kind_jax.config import Config, change

TRIALS = ("kills", "modules", "flips", "lines", "headers", "places", "hosts")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Try what befalls long runs, and write chaos.json.

    Attributes:
      kind: of the runs that are killed, flipped and spread over hosts.
      only: trials, separated by commas, of kills, modules, flips, lines, headers, places, hosts; all of them if empty.
      kills: kill -9 of a training run, and of the runs of modules.
      flips: bits flipped in checkpoints and artifacts.
      lines: mutated command lines and configs.
      headers: mutated headers of artifacts.
      seed: of everything random.
      out: folder of the results.
    """

    kind: Literal["diffusion", "classifier"] = "diffusion"
    only: str = ""
    kills: int = 100
    flips: int = 500
    lines: int = 200
    headers: int = 200
    seed: int = 0
    out: Path = Path("runs/chaos")


def trials(arguments: Arguments, scratch: Path) -> dict[str, Callable[[], Outcome]]:
    """What is tried, by name. Nothing in this process may ask JAX for a device: it forks."""
    from chaos import children, flips, fuzz, hosts, kills, modules, places
    from chaos.config import get_config

    config = Path(__file__).with_name({"diffusion": "config.py", "classifier": "classifier.py"}[arguments.kind])

    def small() -> Config:
        return change(get_config(), train={"steps": 4, "batch": 8})

    def flip() -> Outcome:
        run = scratch / "flips" / "run"
        train = ["train", "--config", config, "--workdir", run, "--stop-after", 6]
        for line in (train, ["export", run, "--out", scratch / "flips" / "art"]):
            code, said = children.run(line, scratch / "flips.txt")
            assert code == 0, said
        return flips.trial(run / "checkpoints", scratch / "flips" / "art", arguments.flips, arguments.seed)

    def in_child(name: str, work: Callable[[Path], Outcome]) -> Outcome:
        """For what needs devices itself."""
        (scratch / name).mkdir(exist_ok=True)
        result, log = scratch / name / "outcome.json", scratch / name / "output.txt"

        def write() -> int:
            result.write_text(json.dumps(dataclasses.asdict(work(scratch / name))))
            return 0

        if code := children.wait(children.fork(write, log), 3600):
            return Outcome(cases=0, figures={}, failures=(f"it ended with {code}: {log.read_text()[-2000:]}",))
        found = json.loads(result.read_text())
        return Outcome(**{**found, "failures": tuple(found["failures"])})

    def fuzz_lines() -> Outcome:
        whole, found, first = scratch / "lines" / "whole", [], 0
        run = fuzz.run_in(whole)

        def make(place: Path) -> Outcome:
            fuzz.make_run(small(), place)
            return Outcome(cases=0, figures={}, failures=())

        found.append(in_child("lines/whole", make))
        while first < arguments.lines and not any(outcome.failures for outcome in found):
            name, left = f"lines_{first}", arguments.lines - first
            work = functools.partial(fuzz.fuzz_lines, run, cases=left, seed=arguments.seed, first=first)
            found.append(in_child(name, work))
            first += found[-1].cases
        return joined(found)

    def fuzz_headers(place: Path) -> Outcome:
        whole = fuzz.make_run(small(), place / "whole")
        return fuzz.fuzz_headers(whole.artifact, place / "tried", arguments.headers, arguments.seed)

    return {
        "kills": lambda: kills.trial(scratch / "kills", arguments.kills, arguments.seed, config),
        "modules": lambda: modules.trial(scratch / "modules", arguments.kills, arguments.seed),
        "flips": flip,
        "lines": fuzz_lines,
        "headers": lambda: in_child("headers", fuzz_headers),
        "places": lambda: places.trial(scratch / "places"),
        "hosts": lambda: hosts.trial(scratch / "hosts", config),
    }


def main() -> int:
    """Run the trials; 1 if one of them failed."""
    arguments = tyro.cli(Arguments, description=__doc__)
    wanted = [name.strip() for name in arguments.only.split(",") if name.strip()] or list(TRIALS)
    if unknown := sorted(set(wanted) - set(TRIALS)):
        print(f"error: --only names {unknown[0]!r}, but it must name some of {', '.join(TRIALS)}.", file=sys.stderr)
        return 2
    scratch, record = Path(tempfile.mkdtemp(prefix="chaos-")), {}
    # Children are many and short: every program is compiled once.
    os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0"}
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(scratch / "jax"))
    try:
        for name, trial in trials(arguments, scratch).items():
            if name not in wanted:
                continue
            (scratch / name).mkdir()
            begun = time.monotonic()
            outcome = trial()
            record[name] = dataclasses.asdict(outcome) | {"seconds": round(time.monotonic() - begun, 1)}
            verdict = f"{len(outcome.failures)} FAILED" if outcome.failures else "all as promised"
            took = record[name]["seconds"]
            print(f"{name}: {outcome.cases} cases, {verdict} ({took:.0f} s) {outcome.figures}", flush=True)
            for failure in outcome.failures[:20]:
                print(f"  {failure}", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "chaos.json").write_text(json.dumps(record, indent=1))
    print(f"  {arguments.out / 'chaos.json'}")
    return int(any(found["failures"] for found in record.values()))


if __name__ == "__main__":
    sys.exit(main())
