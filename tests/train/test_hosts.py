"""Several hosts: two real processes train, one is killed, both start again, and nothing shows in the losses."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kind_jax.errors import UserError
from kind_jax.train import checkpoint, hosts
from kind_jax.train.metrics import read_metrics

ROOT = Path(__file__).parents[2]
STEPS = 12

CONFIG = f"""
import tiny
from kind_jax.config import MeshConfig

def get_config():
    # 40 classes, so that steps take rows out of a bank that is spread over both processes.
    return tiny.change(
        tiny.CONFIG,
        model={{"num_classes": 40, "groups": None, "factor": {{"learngenes": 8}}}},
        mesh=MeshConfig(data=2, fsdp=4, tensor=1),
        optimizer={{"eps": 1e-3}},
        train={{"steps": {STEPS}, "batch": 16, "checkpoint_every": 4, "sample_every": 6, "ema": 0.9}},
    )
"""

# Digits with 40 labels: a data set of more classes than digits has, made in the process that trains.
MAIN = """
import dataclasses, sys, time
import numpy as np
from kind_jax.data import dataset
from kind_jax.train import loop

def relabelled(config, split):
    found = dataset.open_dataset(config, split)
    labels = np.arange(len(found.source), dtype=np.int32) % 40
    source = dataset.MemorySource(images=found.source.images, labels=labels)
    return dataclasses.replace(found, source=source, class_names=tuple(str(i) for i in range(40)))

loop.open_dataset = relabelled
if "--slow" in sys.argv:
    sys.argv.remove("--slow")
    make = loop.Progress.update
    loop.Progress.update = lambda *given, **more: (time.sleep(0.2), make(*given, **more))
from kind_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(folder, run, devices, *more, processes=1, index=0, port=0):
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax-tests"), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }  # fmt: skip
    if processes > 1:
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
        }
    return subprocess.Popen(
        [sys.executable, folder / "main.py", "train", "--config", folder / "config.py", "--workdir", run, *more],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(*processes):
    said = [p.communicate(timeout=200)[0] for p in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), "\n".join(said)
    return said


def two(folder, run, *more):
    port = free_port()
    return [start(folder, run, 4, *more, processes=2, index=i, port=port) for i in (0, 1)]


def losses(run):
    return {m["step"]: m["loss"] for m in read_metrics(run / "metrics.jsonl")}


def test_two_processes_train_as_one_and_survive_the_loss_of_one(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "main.py").write_text(MAIN)
    alone, both = tmp_path / "alone", tmp_path / "both"
    finish(start(tmp_path, alone, 8))

    first, second = two(tmp_path, both, "--slow")
    deadline = time.monotonic() + 150
    while 5 not in losses(both) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    while not checkpoint.steps(both / "checkpoints") and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    second.kill()  # a host is lost; the scheduler ends the others and starts all again
    second.communicate()
    first.kill()
    said = first.communicate()[0]
    assert checkpoint.steps(both / "checkpoints"), said
    assert STEPS not in losses(both)

    said = finish(*two(tmp_path, both, "--stop-after", str(STEPS - 2)))
    assert "resuming" in said[0]
    assert "resuming" not in said[1]  # only the first host speaks
    assert "stopped at step" not in said[1]
    finish(start(tmp_path, both, 8))  # a run may go on with another number of hosts
    expected, found = losses(alone), losses(both)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-4)
    assert {p.name for p in (both / "samples").iterdir()} == {p.name for p in (alone / "samples").iterdir()}


def test_a_folder_that_is_taken_is_refused_by_every_process(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "run").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from kind_jax.train.lock import run_lock\n"
         "with run_lock(sys.argv[1]):\n    print('held', flush=True); time.sleep(100)", str(tmp_path / "run")],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        processes = two(tmp_path, tmp_path / "run")
        for process in processes:
            said = process.communicate(timeout=200)[0]
            assert process.returncode == 2, said
            assert f"in use by process {holder.pid}" in said
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_NUM_PROCESSES": "2"},
        {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"},
        {"JAX_COORDINATOR_ADDRESS": "localhost", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
        {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
        {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"},
    ],
    ids=str,
)
def test_half_a_set_up_is_refused(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"the environment has JAX_COORDINATOR_ADDRESS=.*must have the host:port"):
        hosts.join()


@pytest.mark.parametrize(
    ("environment", "many"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "16"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}, True),
    ],
    ids=str,
)
def test_hosts_are_looked_for_only_where_several_are_announced(environment, many, monkeypatch):
    calls = []
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda *given: calls.append(given))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    hosts.join()
    assert bool(calls) == many
