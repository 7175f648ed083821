"""Which processes make up a run: read from what schedulers put into the environment.

JAX can find this out as well, but does not tell without joining at once; a relay has to be set up before that (see
kind_jax/train/relay.py). Addresses, ports and numbers are those that JAX itself would choose.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import urllib.request
from collections.abc import Callable, Mapping

from kind_jax.errors import UserError
from kind_jax.host import computes_on_cpu

_ALONE = "KIND_JAX_SINGLE_HOST"
_TPU_PORT = "8482"
_METADATA = "/computeMetadata/v1/instance/attributes/"
_PATIENCE = 60.0  # seconds for an answer of the metadata server


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The place of this process in a run of several.

    Attributes:
      address: host:port of the first process, where JAX's coordinator is.
      count: number of processes.
      index: of this process, from 0.
      device: number of the only local accelerator that this process may use; None leaves it to JAX.
    """

    address: str
    count: int
    index: int
    device: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scheduler:
    """Names of variables, and how the address of the first process follows from some of them."""

    name: str
    count: str
    index: str
    local: str
    where: tuple[str, ...]
    address: Callable[[Mapping[str, str]], str]

    def announces(self, environment: Mapping[str, str]) -> bool:
        count = environment.get(self.count, "")
        return count.isdecimal() and int(count) > 1


def find(environment: Mapping[str, str]) -> Place | None:
    """The place of this process; None if it is a run of its own, as far as ``environment`` says.

    Set up by hand, three variables say it: JAX_COORDINATOR_ADDRESS (host:port of the first process), JAX_NUM_PROCESSES
    and JAX_PROCESS_ID; the first alone overrides what a scheduler says. KIND_JAX_SINGLE_HOST=1 hides schedulers.

    Raises:
      UserError: the environment is contradictory or incomplete, or Cloud's metadata server does not answer.
    """
    if by_hand := _by_hand(environment):
        return by_hand
    if _is_alone(environment):
        return None
    for scheduler in _SCHEDULERS:
        if scheduler.announces(environment):
            return _scheduled(scheduler, environment)
    if computes_on_cpu() or importlib.util.find_spec("libtpu") is None:
        return None
    return _on_tpus(environment)


def is_kubernetes_job(environment: Mapping[str, str]) -> bool:
    """Whether this is a pod of an indexed job that is no run of its own: only the API server knows the others.

    JAX asks it, with the package kubernetes.
    """
    names = ("KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX")
    return not _is_alone(environment) and all(name in environment for name in names)


def _is_alone(environment: Mapping[str, str]) -> bool:
    alone = environment.get(_ALONE, "")
    if alone not in ("", "0", "1"):
        raise UserError(f"{_ALONE} is {alone!r}, but it must be 1 (a run of its own) or 0.")
    return alone == "1"


def _by_hand(environment: Mapping[str, str]) -> Place | None:
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, *numbers = found = [environment.get(name) for name in names]
    if found == [None, None, None] or (numbers == [None, None] and _is_announced(environment)):
        return None
    count, index = (int(n) if n and n.isdecimal() else -1 for n in numbers)
    if not re.fullmatch(r".+:\d+", address or "") or not 0 <= index < count:
        given = ", ".join(f"{name}={value}" for name, value in zip(names, found, strict=True))
        raise UserError(
            f"the environment has {given}, but it must have the host:port of the first process, the number of "
            "processes, and the number of this one, counted from 0."
        )
    return Place(address=str(address), count=count, index=index, device=_device(environment))


def _device(environment: Mapping[str, str]) -> int | None:
    """Schedulers start one process for each accelerator of a host; JAX reads JAX_LOCAL_DEVICE_IDS by itself."""
    if "JAX_LOCAL_DEVICE_IDS" in environment:
        return None
    mine = (s.local for s in _SCHEDULERS if s.announces(environment) and s.local in environment)
    return next((int(environment[name]) for name in mine), None)


def _is_announced(environment: Mapping[str, str]) -> bool:
    on_tpu = not computes_on_cpu() and importlib.util.find_spec("libtpu") is not None
    return on_tpu or is_kubernetes_job(environment) or any(s.announces(environment) for s in _SCHEDULERS)


def _scheduled(scheduler: _Scheduler, environment: Mapping[str, str]) -> Place:
    by_hand = environment.get("JAX_COORDINATOR_ADDRESS")
    needed = (scheduler.index, scheduler.local, *(() if by_hand else scheduler.where))
    missing = [name for name in needed if name not in environment]
    if missing:
        raise UserError(
            f"{scheduler.name} announces {environment[scheduler.count]} processes, but the environment lacks "
            f"{', '.join(missing)}: name the first process with JAX_COORDINATOR_ADDRESS=host:port, or say with "
            f"{_ALONE}=1 that this one is a run of its own."
        )
    return Place(
        address=by_hand or scheduler.address(environment),
        count=int(environment[scheduler.count]),
        index=int(environment[scheduler.index]),
        device=_device(environment),
    )


def _slurm_address(environment: Mapping[str, str]) -> str:
    """From ``node[001,007-015],other``, whose first node is node001."""
    first = re.sub(r"\[(\d+)[^\]]*\]", r"\1", environment["SLURM_STEP_NODELIST"]).partition(",")[0]
    return f"{first}:{_port(environment, int(environment['SLURM_JOB_ID']))}"


def _open_mpi_address(environment: Mapping[str, str]) -> str:
    """From ``1531576320.0;tcp://10.96.0.1,10.148.0.1:34911`` or ``...;tcp6://[fe80::1,2620::2]:43370``."""
    uri = environment["OMPI_MCA_orte_hnp_uri"]
    found = re.match(r"(\d+)\..*?;(?:tcp://([^,:]+)|tcp6://\[([^,\]]+))", uri)
    if found is None:
        raise UserError(f"OMPI_MCA_orte_hnp_uri is {uri!r:.200}, in which no address was found.")
    host = found[2] or f"[{found[3]}]"
    return f"{host}:{_port(environment, int(found[1]) // 2**12)}"


def _port(environment: Mapping[str, str], job: int) -> str:
    """Each job has its own, among the highest 4096."""
    return environment.get("JAX_COORDINATOR_PORT") or str(job % 2**12 + 65536 - 2**12)


_SCHEDULERS = (
    _Scheduler(
        name="Open MPI", count="OMPI_COMM_WORLD_SIZE", index="OMPI_COMM_WORLD_RANK", local="OMPI_COMM_WORLD_LOCAL_RANK",
        where=("OMPI_MCA_orte_hnp_uri",), address=_open_mpi_address,
    ),
    _Scheduler(
        name="SLURM", count="SLURM_STEP_NUM_TASKS", index="SLURM_PROCID", local="SLURM_LOCALID",
        where=("SLURM_STEP_NODELIST", "SLURM_JOB_ID"), address=_slurm_address,
    ),
)  # fmt: skip


def _on_tpus(environment: Mapping[str, str]) -> Place | None:
    """Hosts of one slice, or of several: GKE names them in the environment, Compute Engine on its metadata server."""
    names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    slices = {key: environment.get(f"MEGASCALE_{key}") for key in ("COORDINATOR_ADDRESS", "NUM_SLICES", "SLICE_ID")}
    if names is not None:
        workers, index = names.split(","), int(environment.get("TPU_WORKER_ID", "0"))
    elif environment.get("TPU_SKIP_MDS_QUERY"):  # JAX sets this where there is no TPU
        return None
    else:
        server = environment.get("GCE_METADATA_IP", "metadata.google.internal")
        # A worker is a name, or name:id:address.
        workers = [worker.split(":")[-1] for worker in _attribute(server, "worker-network-endpoints").split(",")]
        index = int(_attribute(server, "agent-worker-number"))
        more = _attribute(server, "tpu-env")  # lines like MEGASCALE_NUM_SLICES: '2'
        told = dict(re.findall(r"^MEGASCALE_(\w+)\s*:\s*'?([^'\n]*?)'?\s*$", more, re.MULTILINE))
        slices = {key: value or told.get(key) for key, value in slices.items()}
    count = len(workers) * int(slices["NUM_SLICES"] or 1)
    if count == 1:
        return None
    host = (slices["COORDINATOR_ADDRESS"] or workers[0]).partition(":")[0]
    address = f"{host}:{environment.get('JAX_COORDINATOR_PORT') or _TPU_PORT}"
    return Place(
        address=environment.get("JAX_COORDINATOR_ADDRESS") or address,
        count=count,
        index=index + int(slices["SLICE_ID"] or 0) * len(workers),
    )


def _attribute(server: str, key: str) -> str:
    """What Compute Engine's metadata server says about this machine."""
    request = urllib.request.Request(f"http://{server}{_METADATA}{key}", headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            return answer.read().decode()
    except OSError as e:
        raise UserError(
            f"the other hosts of this TPU slice are not known: the metadata server {server} did not tell {key} ({e}). "
            f"If this process is a run of its own, set {_ALONE}=1."
        ) from e
