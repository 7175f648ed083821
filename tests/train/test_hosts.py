"""Several hosts: two real processes train, one is killed, both start again, and nothing shows in the losses."""

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kind_jax.config import load_file
from kind_jax.data.dataset import open_dataset
from kind_jax.train import loop, opening
from kind_jax.train.ending import EXIT_RESTARTABLE
from kind_jax.train.metrics import read_metrics
from kind_jax.train.watch import BEAT

ROOT = Path(__file__).parents[2]
STEPS = 12
SILENCE = 8  # seconds; less than users have, so that the tests are quick
ENDING = 6  # seconds that a process may take to end, on a busy machine

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
MAIN = f"""
import dataclasses, sys, time
import numpy as np
from kind_jax.data import dataset
from kind_jax.train import opening, progress, watch

watch.SILENCE = {SILENCE}

def relabelled(config, split):
    found = dataset.open_dataset(config, split)
    labels = np.arange(len(found.source), dtype=np.int32) % 40
    source = dataset.MemorySource(images=found.source.images, labels=labels)
    return dataclasses.replace(found, source=source, class_names=tuple(str(i) for i in range(40)))

opening.open_dataset = relabelled
if "--slow" in sys.argv:
    sys.argv.remove("--slow")
    make = progress.Progress.update
    progress.Progress.update = lambda *given, **more: (time.sleep(0.2), make(*given, **more))
from kind_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""


# What hosts do besides training, in little time.
PARTS = f"""
import sys, time
from pathlib import Path
from kind_jax.errors import UserError
from kind_jax.train import hosts, watch

watch.SILENCE, hosts._VISIBLE, hosts._JOIN = {SILENCE}, 0.5, int(sys.argv[3])
what, folder = sys.argv[1], Path(sys.argv[2])
hosts.join()
with watch.one_fate():
    hosts.barrier("begun")
    print("begun", flush=True)
    if what == "folders":
        with hosts.locked(folder / "same"):
            hosts.shared(folder / "same")
            print("shared")
        own = folder / ("first" if hosts.is_first() else "second")
        try:
            with hosts.locked(own):
                hosts.shared(own)
        except UserError as e:
            print(e)
        if not hosts.is_first():
            raise UserError("the disk of this host is full.")
    if what == "folders" or not hosts.is_first():
        hosts.barrier("the other one does not come")
    time.sleep(100)
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(folder, run, devices, *more, processes=1, index=0, port=0):
    arguments = ["train", "--config", folder / "config.py", "--workdir", run, *more]
    return spawn(folder / "main.py", arguments, devices, processes=processes, index=index, port=port)


def spawn(script, arguments, devices, *, processes=1, index=0, port=0):
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
        [sys.executable, script, *arguments], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def two(folder, run, *more):
    port = free_port()
    return [start(folder, run, 4, *more, processes=2, index=i, port=port) for i in (0, 1)]


def saved(run):
    return sorted(int(p.name) for p in (run / "checkpoints").glob("*") if p.name.isdigit())


def losses(run):
    return {m["step"]: m["loss"] for m in read_metrics(run / "metrics.jsonl")}


def relabelled(config, split):
    """What the processes of a run get, see MAIN."""
    found = open_dataset(config, split)
    labels = np.arange(len(found.source), dtype=np.int32) % 40
    source = dataclasses.replace(found.source, labels=labels)
    return dataclasses.replace(found, source=source, class_names=tuple(str(i) for i in range(40)))


def train_here(folder, run):
    """The same on the eight devices of this process."""
    loop.train(load_file(folder / "config.py"), run)


def same_as_alone(folder, alone, both):
    """A run may go on with another number of hosts, to the losses of one process."""
    train_here(folder, both)
    expected, found = losses(alone), losses(both)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=2e-4)
    assert {p.name for p in (both / "samples").iterdir()} == {p.name for p in (alone / "samples").iterdir()}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "main.py").write_text(MAIN)
    monkeypatch.setattr(opening, "open_dataset", relabelled)
    train_here(tmp_path, tmp_path / "alone")
    return tmp_path / "alone"


def test_two_processes_train_as_one_and_survive_the_loss_of_one(tmp_path, alone):
    both, deadline = tmp_path / "both", time.monotonic() + 250
    first, second = two(tmp_path, both, "--slow")
    while 5 not in losses(both) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    while not saved(both) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    assert saved(both)
    second.kill()
    killed = time.monotonic()
    said = first.communicate(timeout=60)[0]
    took = time.monotonic() - killed
    second.communicate()
    assert first.returncode == EXIT_RESTARTABLE, said
    assert re.search(rf"error: process 1 of 2 \(host .+\) is lost: nothing was heard for {SILENCE} s\. .*same", said)
    assert "Traceback" not in said
    assert "stack trace" not in said
    assert took < SILENCE + ENDING
    assert STEPS not in losses(both)
    same_as_alone(tmp_path, alone, both)


@pytest.mark.slow
def test_one_host_is_asked_to_stop_and_all_save_and_continue(tmp_path, alone):
    both, deadline = tmp_path / "both", time.monotonic() + 250
    first, second = two(tmp_path, both, "--slow")
    while 6 not in losses(both) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    second.send_signal(signal.SIGTERM)
    said = [p.communicate(timeout=200)[0] for p in (first, second)]
    assert [first.returncode, second.returncode] == [EXIT_RESTARTABLE] * 2, "\n".join(said)
    stopped = max(losses(both))
    assert saved(both)[-1] == stopped < STEPS
    assert f"saved step {stopped}" in said[0]
    assert "stopped at step" not in said[1]  # only the first host speaks
    same_as_alone(tmp_path, alone, both)


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


def parts(folder, what):
    (folder / "parts.py").write_text(PARTS)
    port = free_port()
    return [spawn(folder / "parts.py", [what, folder, "60"], 1, processes=2, index=i, port=port) for i in (0, 1)]


def test_a_folder_that_is_not_shared_and_an_error_of_one_host_reach_every_process(tmp_path):
    first, second = parts(tmp_path, "folders")
    said = [p.communicate(timeout=100)[0] for p in (first, second)]
    for text in said:
        assert "shared\n" in text
        assert "is not the same folder on all hosts (process 1 does not see the lock of process 0)" in text
        assert "Traceback" not in text
    assert "error: the disk of this host is full.\n" in said[1]
    assert re.search(r"error: process 1 of 2 \(host .*\) stopped, .*: the disk of this host is full\.\n", said[0])
    assert [first.returncode, second.returncode] == [2, 2]


def test_the_loss_of_the_first_process_ends_the_others_without_a_stack_trace(tmp_path):
    first, second = parts(tmp_path, "wait")
    assert second.stdout is not None
    while "begun" not in second.stdout.readline():
        assert second.poll() is None
    time.sleep(2 * BEAT)
    first.kill()
    killed = time.monotonic()
    said = second.communicate(timeout=60)[0]
    took = time.monotonic() - killed
    first.communicate()
    assert second.returncode == EXIT_RESTARTABLE, said
    assert re.search(r"error: process 0 of 2 \(host .*\) is lost: it closed its connection, and was last heard", said)
    assert "same command" in said
    assert "Traceback" not in said
    assert "stack trace" not in said
    assert took < ENDING  # not even the silence has to be waited for


def test_a_process_whose_others_do_not_come_says_so(tmp_path):
    (tmp_path / "parts.py").write_text(PARTS)
    port = free_port()
    process = spawn(tmp_path / "parts.py", ["wait", tmp_path, "1"], 1, processes=2, index=1, port=port)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == EXIT_RESTARTABLE, said
    assert f"did not come within 1 s; the first one was expected at 127.0.0.1:{port}." in said
    assert "stack trace" not in said
