"""kill -9 at random points of a training run that saves every three steps."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chaos import children
from chaos.outcome import Outcome
from kind_jax.tasks import task_of
from kind_jax.train import history


def trial(scratch: Path, kills: int, seed: int, config: Path) -> Outcome:
    """Kill a run ``kills`` times, then let it end and compare it with one that nobody touched.

    One kill in five falls anywhere in the start of a process, the others within a second and a half after its first
    step, which is two to ten saves. What is promised: the newest checkpoint is always good, every start goes on from
    exactly there, and the weights, the optimizer's state and every logged loss are those of the untouched run.
    """
    run, log = scratch / "run", scratch / "output.txt"
    line = ["train", "--config", config, "--workdir", run]
    begun = time.monotonic()
    failures, points = killed(line, run, log, kills, np.random.default_rng(seed))
    killing = time.monotonic() - begun

    end = newest(run) + 5
    whole = scratch / "whole"
    for directory in (run, whole):
        code, said = children.run([*line[:-1], directory, "--stop-after", end], log)
        if code:
            failures.append(f"{directory.name} ended with {code}: {said[-300:]}")
            return Outcome(cases=kills, figures=points, failures=tuple(failures))
    compared = scratch / "compared.json"
    if children.wait(children.fork(lambda: _compare(config, run, whole, end, compared), log)):
        failures.append(f"the two runs could not be compared: {log.read_text()[-300:]}")
    else:
        failures += json.loads(compared.read_text())
    figures = points | {"steps": end, "seconds_a_kill": round(killing / kills, 2)}
    return Outcome(cases=kills, figures=figures, failures=tuple(failures))


def killed(
    line: Sequence[object], run: Path, log: Path, kills: int, rng: np.random.Generator
) -> tuple[list[str], dict[str, int]]:
    """Start a command line of a run ``kills`` times, and kill it each time; what went wrong, and where it was hit."""
    failures, points = [], {"start": 0, "training": 0, "saving": 0}
    startup = 5.0
    for number in range(kills):
        before = newest(run) or None
        born = time.monotonic()
        pid = children.command(line, log)
        early = rng.random() < 0.2
        if early:
            time.sleep(rng.uniform(0, startup))
        else:
            while not _stepped(log) and time.monotonic() - born < 120:
                time.sleep(0.005)
            startup = 0.7 * startup + 0.3 * (time.monotonic() - born)
            time.sleep(rng.uniform(0, 1.5))
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            failures.append(f"kill {number}: the run had ended already with {status}: {log.read_text()[-300:]}")
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        saving = any(".saving" in p.name for p in (run / "checkpoints").glob("*"))
        points["start" if early else "saving" if saving else "training"] += 1
        failures += [f"kill {number}: {problem}" for problem in _problems(run, log.read_text(errors="replace"), before)]
    return failures, points


def newest(run: Path) -> int:
    """Step of the newest checkpoint, 0 if there is none."""
    return max(history.steps(run / "checkpoints"), default=0)


def _stepped(log: Path) -> bool:
    return log.exists() and "\nstep " in "\n" + log.read_text(errors="replace")


def _problems(run: Path, said: str, before: int | None) -> list[str]:
    """What is wrong after a kill of a process that began when ``before`` was the newest checkpoint."""
    problems = []
    resumed = re.search(r"resuming .* at step (\d+)", said)
    if resumed and int(resumed[1]) != before:
        problems.append(f"it went on from step {resumed[1]}, but step {before} was there")
    if not resumed and before is not None and "\nstep " in "\n" + said:
        problems.append(f"it began anew, but step {before} was there")
    found = history.latest_good(run / "checkpoints")
    if found.refused or (found.step or 0) != newest(run):
        problems.append(f"the newest checkpoint is not good: {found.refused}")
    if (found.step or 0) < (before or 0):
        problems.append(f"step {before} was lost, the newest is {found.step}")
    return problems


def _compare(file: Path, run: Path, whole: Path, step: int, out: Path) -> int:
    """Write what differs between two runs; in a child, since it needs a device."""
    import jax

    from kind_jax.config import load_file
    from kind_jax.data import pipeline
    from kind_jax.data.dataset import open_dataset
    from kind_jax.train import leaves
    from kind_jax.train import state as states
    from kind_jax.train.checkpoint import Checkpoints
    from kind_jax.train.metrics import read_metrics

    config = load_file(file)
    dataset = open_dataset(config.data, "train")

    def everything(directory: Path) -> dict[str, Any]:
        data = pipeline.batches(dataset, batch=config.train.batch, seed=config.data.seed)
        state = Checkpoints(directory / "checkpoints", config).restore(step, states.abstract(task_of(config)), data)
        lines = read_metrics(directory / "metrics.jsonl")
        logged = [(m["step"], m["loss"], m.get("validation_top1", -1.0)) for m in lines]
        arrays = {path: np.asarray(leaf) for path, leaf in leaves.paths(jax.device_get(state)).items()}
        return (
            arrays
            | {"position of the input": np.array(data.get_state()["next_index"]), "losses": np.array(logged)}
            | {
                f"best/{file.name}": np.frombuffer(file.read_bytes(), np.uint8)
                for file in directory.glob("best/*.safetensors")
            }
        )

    mine, others = everything(run), everything(whole)
    same = {name for name in others if name in mine and mine[name].tobytes() == others[name].tobytes()}
    names = sorted(mine.keys() | others.keys())
    differing = [f"{name} differs from the untouched run" for name in names if name not in same]
    if mine["losses"][:, 0].tolist() != list(range(1, step + 1)):
        differing.append("the metrics do not have every step once")
    out.write_text(json.dumps(differing))
    return 0
