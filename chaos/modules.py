"""kill -9 at random points of the runs of all modules of a network: what is assembled of them has the same bits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from chaos import children, kills
from chaos.outcome import Outcome

COUNT = 3  # modules of module.py


def trial(scratch: Path, count: int, seed: int) -> Outcome:
    """Kill the runs of three modules, ``count`` times in all; let them end, and assemble them and runs that nobody
    touched. The two networks must be the same file for file."""
    rng, log, config = np.random.default_rng(seed), scratch / "output.txt", Path(__file__).with_name("module.py")
    meta, points = scratch / "meta", {"start": 0, "training": 0, "saving": 0}
    beginning = [
        "train", "--config", config.with_name("module_meta.py"), "--workdir", meta, "--train.sample-every", 0,
    ]  # fmt: skip
    code, said = children.run(beginning, log)
    if code:
        return Outcome(cases=0, figures=points, failures=(f"the meta model ended with {code}: {said[-300:]}",))
    failures: list[str] = []
    for index in range(COUNT):
        line = ["train", "--config", config, "--module.meta", meta, "--module.index", index, "--workdir"]
        run = scratch / "killed" / f"module-{index}"
        times = count // COUNT + (index < count % COUNT)
        found, where = kills.killed([*line, run], run, log, times, rng)
        failures += [f"module {index}: {problem}" for problem in found]
        points = {name: points[name] + where[name] for name in points}
        end = kills.newest(run) + 5
        for directory in (run, scratch / "whole" / run.name):
            code, said = children.run([*line, directory, "--stop-after", end], log)
            if code:
                failures.append(f"module {index} of {directory.parent.name} ended with {code}: {said[-300:]}")
    hashes = {}
    for root in (scratch / "killed", scratch / "whole"):
        code, said = children.run(["assemble", root, "--unfinished"], log)
        if code:
            failures.append(f"what is in {root.name} was not assembled: {said[-300:]}")
        hashes[root.name] = {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted((root / "assembled").glob("*.safetensors"))
        }
    if not hashes["whole"] or hashes["killed"] != hashes["whole"]:
        failures.append(f"the assembled networks differ: {hashes}")
    return Outcome(cases=count, figures=points, failures=tuple(failures))
