"""Several hosts: two real processes train, one is killed, both start again, and nothing shows in the losses."""

import dataclasses
import importlib
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import jax
import numpy as np
import pytest

from kind_jax.config import load_file
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError
from kind_jax.train import cluster, hosts, loop, watch
from kind_jax.train.cluster import Place
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
from kind_jax.train import loop, watch

watch.SILENCE = {SILENCE}

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
    monkeypatch.setattr(loop, "open_dataset", relabelled)
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


SLURM = {
    "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[007,012-015],other",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}  # fmt: skip
BY_HAND = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:99", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}


def place(address, count, index, device=None):
    return Place(address=address, count=count, index=index, device=device)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),
        (SLURM, place("node007:61441", 16, 3, 1)),
        (SLURM | {"SLURM_STEP_NODELIST": "a,b"}, place("a:61441", 16, 3, 1)),
        (SLURM | {"JAX_COORDINATOR_PORT": "77", "JAX_LOCAL_DEVICE_IDS": "0,1"}, place("node007:77", 16, 3)),
        (SLURM | {"JAX_COORDINATOR_ADDRESS": "head:5"}, place("head:5", 16, 3, 1)),
        (SLURM | {"KIND_JAX_SINGLE_HOST": "1"}, None),
        (SLURM | {"KIND_JAX_SINGLE_HOST": "0"}, place("node007:61441", 16, 3, 1)),
        (OPEN_MPI, place(f"10.96.0.1:{1531576320 // 4096 % 4096 + 61440}", 2, 1, 0)),
        (OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp6://[fe80::9,26::2]:4"}, place("[fe80::9]:61441", 2, 1, 0)),
        (BY_HAND, place("10.0.0.1:99", 2, 1)),
        (SLURM | BY_HAND, place("10.0.0.1:99", 2, 1, 1)),
    ],
    ids=str,
)
def test_the_environment_says_who_takes_part(environment, expected):
    assert cluster.find(environment) == expected


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (SLURM, "SlurmCluster"),
        (OPEN_MPI, "OmpiCluster"),
        (OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "49152.0;tcp6://[fe80::1]:4"}, "OmpiCluster"),
    ],
)
def test_addresses_are_those_that_jax_would_choose(environment, name, monkeypatch):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("SLURM_NTASKS", "16")  # which in a step is SLURM_STEP_NUM_TASKS
    theirs = getattr(importlib.import_module("jax._src.clusters"), name)
    host, _, port = theirs.get_coordinator_address(1, None).rpartition(":")
    mine = cluster.find(environment)
    assert mine is not None
    assert (mine.address.replace("[", "").replace("]", ""), mine.count, mine.index, mine.device) == (
        f"{host}:{port}", theirs.get_process_count(), theirs.get_process_id(), theirs.get_local_process_id(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"TPU_SKIP_MDS_QUERY": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, place("a:8482", 2, 1)),
        (
            {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "first:1",
             "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"},
            place("first:8482", 4, 3),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_hosts_of_a_tpu_slice_in_the_environment(environment, expected, on_tpu):
    assert cluster.find(environment) == expected


@pytest.fixture
def on_tpu(monkeypatch):
    monkeypatch.setattr(cluster, "computes_on_cpu", lambda: False)
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: name)


METADATA = {
    "worker-network-endpoints": "unknown:1:10.0.0.5,unknown:2:10.0.0.6",
    "agent-worker-number": "1",
    "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-16'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n",
}


class _MetadataServer(BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(METADATA[self.path.rpartition("/")[2]].encode())

    def log_message(self, *given):
        pass


def test_hosts_of_a_tpu_slice_on_the_metadata_server(on_tpu):
    with HTTPServer(("127.0.0.1", 0), _MetadataServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            found = cluster.find({"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"})
        finally:
            server.shutdown()
            thread.join()
    assert found == place("10.0.0.5:8482", 4, 3)
    with pytest.raises(UserError, match=r"metadata server 127\.0\.0\.1:\d+ did not tell .* KIND_JAX_SINGLE_HOST=1"):
        cluster.find({"GCE_METADATA_IP": f"127.0.0.1:{free_port()}"})


def test_what_a_scheduler_leaves_out_is_named():
    lacking = {name: value for name, value in SLURM.items() if name not in ("SLURM_PROCID", "SLURM_STEP_NODELIST")}
    with pytest.raises(UserError, match=r"SLURM announces 16 .* lacks SLURM_PROCID, SLURM_STEP_NODELIST: .*_HOST=1"):
        cluster.find(lacking)
    with pytest.raises(UserError, match=r"OMPI_MCA_orte_hnp_uri is 'x', in which no address was found"):
        cluster.find(OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "x"})
    with pytest.raises(UserError, match=r"KIND_JAX_SINGLE_HOST is 'yes', but it must be 1 .* or 0\."):
        cluster.find({"KIND_JAX_SINGLE_HOST": "yes"})


@pytest.mark.parametrize(
    ("environment", "joined"),
    [
        ({}, []),
        (KUBERNETES, [None]),
        (KUBERNETES | {"KIND_JAX_SINGLE_HOST": "1"}, []),
        (BY_HAND, [place("10.0.0.1:99", 2, 1)]),
    ],
    ids=str,
)
def test_hosts_are_joined_only_where_several_are_announced(environment, joined, monkeypatch):
    calls = []
    monkeypatch.setattr(hosts, "_initialize", calls.append)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    hosts.join()
    assert calls == joined


def test_who_cannot_join_is_told_how_to_go_on_alone(monkeypatch):
    given = {}

    def refuse(**settings):
        given.update(settings)
        raise ValueError("coordinator_address should be defined.")

    for name, value in (SLURM | {"SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    asked = inspect.signature(jax.distributed.initialize).parameters
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(UserError, match=r"could not be joined: coordinator_.* defined; .*KIND_JAX_SINGLE_HOST=1\."):
        hosts.join()
    assert given.keys() <= asked.keys()
    assert (given["coordinator_address"], given["num_processes"], given["process_id"]) == ("node007:61441", 16, 0)


def test_a_jax_that_hides_its_coordinator_is_named(monkeypatch, capsys):
    client = types.SimpleNamespace(key_value_set=None, wait_at_barrier=None)
    state = types.SimpleNamespace(global_state=types.SimpleNamespace(client=client))
    monkeypatch.setitem(sys.modules, "jax._src.distributed", state)
    assert hosts._client() is None
    assert "does not give access to its coordinator (key_value_dir_get): if a host is lost" in capsys.readouterr().err
    client.key_value_dir_get = None
    assert hosts._client() is client
    monkeypatch.setitem(sys.modules, "jax._src.distributed", None)  # importing it fails
    assert hosts._client() is None


def test_nothing_else_uses_what_jax_does_not_publish():
    """Of what is used, this JAX has everything; a newer one that lacks it fails here and not on a cluster."""
    private = re.compile(r"\bjax\._src\b|\bjaxlib\._|\bfrom jaxlib\b")
    folders = ("kind_jax", "configs", "studies", "benchmarks", "chaos")
    found = {f for folder in folders for f in (ROOT / folder).rglob("*.py") if private.search(f.read_text())}
    assert found == {ROOT / "kind_jax" / "train" / "hosts.py"}
    assert "client" in type(importlib.import_module("jax._src.distributed").global_state).__annotations__
    client = importlib.import_module("jaxlib._jax").DistributedRuntimeClient
    assert [name for name in watch.CLIENT if not hasattr(client, name)] == []
