"""Two processes train and measure a classifier as one: statistics, held-out figures and best weights are the same."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import chex
import pytest

from classifying import tiny_classifier as tiny
from kind_jax.classifying import best
from kind_jax.config import change
from kind_jax.deploy.bundle import open_bundle
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics

TESTS = Path(__file__).parents[1]
MAIN = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from classifying.test_hosts import CONFIG
from kind_jax.train import hosts
from kind_jax.train.loop import train
from pathlib import Path

hosts.join()
train(CONFIG, Path(sys.argv[1]))
"""
# Without erased rectangles, whose noise makes the least difference of a sum visible after a few steps.
CONFIG = change(tiny.run(tiny.RESNET, steps=4, sample_every=2), augment={"erase": 0.0}, mesh={"fsdp": 2})


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    around = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    flags = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAIN, str(tmp_path / "two")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env={**os.environ, **flags, **around, "JAX_PROCESS_ID": str(index)},
        )
        for index in (0, 1)
    ]  # fmt: skip
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-2000:]
    train(change(CONFIG, mesh={"fsdp": 1}), tmp_path / "one")
    mine, others = (
        [
            (line["step"], line["loss"], line.get("validation_top1"))
            for line in read_metrics(tmp_path / n / "metrics.jsonl")
        ]
        for n in ("two", "one")
    )
    assert [m[0] for m in mine] == [1, 2, 3, 4]
    for (_, loss, top1), (_, other, other_top1) in zip(mine, others, strict=True):
        assert loss == pytest.approx(other, rel=1e-3)
        assert (top1 is None) == (other_top1 is None)
        assert top1 is None or abs(top1 - other_top1) < 0.02
    assert best.read(tmp_path / "two") is not None
    a, b = (open_bundle(tmp_path / name).collections for name in ("two", "one"))
    chex.assert_trees_all_close(a["stats"], b["stats"], rtol=1e-2, atol=1e-3)
    assert open_bundle(tmp_path / "two", weights="best").collections["params"]
