"""Who takes part in a run of several hosts, and what is used of JAX to join them."""

import importlib
import inspect
import re
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import jax
import pytest

from kind_jax.errors import UserError
from kind_jax.train import cluster, hosts, watch
from kind_jax.train.cluster import Place

ROOT = Path(__file__).parents[2]
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
        cluster.find({"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"})


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
