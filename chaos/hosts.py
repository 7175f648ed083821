"""A run of two processes that loses one of them."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import kind_jax.cli
from chaos import children
from chaos.outcome import Outcome
from kind_jax.train import history, watch
from kind_jax.train.metrics import read_metrics

PATIENCE = watch.SILENCE + 10  # seconds from a loss to the end of the others; documented in docs/reliability.md


def trial(scratch: Path, config: Path) -> Outcome:
    """Lose the second process, then the first one, then go on to the end, and compare the losses with a whole run's.

    What is promised: the other process ends in time, with one sentence and exit code 75, the newest checkpoint is
    good, and the same commands continue from it.
    """
    failures, figures = [], {}
    run, whole = scratch / "run", scratch / "whole"
    for lost in (1, 0):
        before = _last(run)
        pids = _two(scratch, config, run, ["--train.checkpoint-every", 50])
        deadline = time.monotonic() + 200
        while _last(run) < before + 60 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(pids[lost], signal.SIGKILL)
        os.waitpid(pids[lost], 0)
        killed = time.monotonic()
        code = children.wait(pids[1 - lost], 3 * PATIENCE)
        took = time.monotonic() - killed
        said = (scratch / f"host{1 - lost}.txt").read_text(errors="replace")
        name = f"process {lost} killed"
        figures[f"{name}: seconds until the other ended"] = round(took, 1)
        sentence = rf"error: process {lost} of 2 \(host .+\) is lost: .* start all hosts again with the same command"
        if code != 75 or took > PATIENCE or not re.search(sentence, said) or "Traceback" in said:
            failures.append(f"{name}: the other ended with {code} after {took:.1f} s: {said[-500:]!r}")
        found = history.latest_good(run / "checkpoints")
        if found.step is None or found.refused:
            failures.append(f"{name}: no good checkpoint: {found.refused}")
    end = (history.steps(run / "checkpoints") or [0])[-1] + 5
    for directory in (run, whole):
        pids = _two(scratch, config, directory, ["--stop-after", end])
        codes = [children.wait(pid, 400) for pid in pids]
        if codes != [0, 0]:
            failures.append(f"{directory.name} ended with {codes}: {(scratch / 'host0.txt').read_text()[-300:]!r}")
            return Outcome(cases=2, figures=figures, failures=tuple(failures))
    mine, others = ([(m["step"], m["loss"]) for m in read_metrics(d / "metrics.jsonl")] for d in (run, whole))
    if mine != others or [step for step, _ in mine] != list(range(1, end + 1)):
        failures.append("the losses are not those of a run that lost nobody")
    return Outcome(cases=2, figures=figures | {"steps": end}, failures=tuple(failures))


def _last(run: Path) -> int:
    logged = read_metrics(run / "metrics.jsonl")
    return logged[-1]["step"] if logged else 0


def _two(scratch: Path, config: Path, run: Path, more: list[object]) -> list[int]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]

    def host(index: int) -> int:
        import jax

        jax.config.update("jax_num_cpu_devices", 2)
        os.environ |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(index)
        }  # fmt: skip
        line = ["train", "--config", config, "--workdir", run, *more]
        return kind_jax.cli.main([str(a) for a in line])

    return [children.fork(lambda i=i: host(i), scratch / f"host{i}.txt") for i in (0, 1)]
