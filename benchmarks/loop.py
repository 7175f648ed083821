"""The share of wall time that the training loop spends waiting for input and for checkpoints."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from harness import Found, Ratio, Row
from record import Settings

from kind_jax.config import change, load_file
from kind_jax.train.loop import train
from kind_jax.train.metrics import FILE_NAME, read_metrics

TARGET = 0.03
METRICS = ("input_wait", "checkpoint_stall")
CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"


def measure(settings: Settings) -> Found:
    """Train on the digits through the whole loop, and read what it says about itself."""
    sizes = {"steps": 600, "log_every": 50, "checkpoint_every": 200, "sample_every": 0}
    if settings.quick:
        sizes |= {"steps": 40, "log_every": 10, "checkpoint_every": 20}
    config = change(load_file(CONFIG), train=sizes)
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run")
        lines = read_metrics(Path(folder) / "run" / FILE_NAME)
    # The first interval compiles, and the last one has no steps: it is what follows the last step.
    lines = [line for line in lines[1:-1] if all(name in line for name in METRICS)]
    if not lines:
        return Found(skipped=f"metrics.jsonl has no {' and no '.join(METRICS)}.", sizes=sizes)
    rows = [
        Row(what=f"{name} / wall time of a logging interval", ratio=Ratio.of([line[name] for line in lines]))
        for name in METRICS
    ]
    # Intervals have equally many steps, so that the mean is the share of the whole but for the stalls' own length.
    total = Ratio.exact(float(np.mean([sum(line[name] for name in METRICS) for line in lines])))
    rows.append(Row(what="input wait and checkpoint stall / wall time, mean of intervals", ratio=total, target=TARGET))
    return Found(rows=tuple(rows), sizes=sizes, details={"lines": lines})
