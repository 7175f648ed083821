"""Several hosts as one run: joining them, and agreeing on what only one of them can know.

Every host runs the same command. The first one alone takes the lock of the run's folder and writes its metrics, its
samples and its config; all of them read their share of the data and write their share of a checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from kind_jax.errors import UserError
from kind_jax.host import computes_on_cpu
from kind_jax.train import watch
from kind_jax.train.ending import die
from kind_jax.train.lock import FILE_NAME, run_lock
from kind_jax.train.relay import relay

_MESSAGE = 1000  # bytes of a sentence that is sent to the other hosts
_JOIN = 300  # seconds to wait for the others at the start
_JAX_SILENCE = 100  # seconds; longer than watch.SILENCE, since JAX ends the process with a stack trace
_SHUTDOWN = 30  # seconds to wait for the others in the end, where they arrive together
_VISIBLE = 30.0  # seconds that a file may take to show on another host


def join() -> None:
    """Find the other hosts of this run, if there are any; call it before anything asks for a device.

    Set up by hand, three variables name them: JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. SLURM, Open MPI, GKE and Cloud TPU say it themselves. On a single host there is nothing to say; but
    where several are announced that are runs of their own (an indexed Kubernetes job, say, whose pods each train
    another model), KIND_JAX_SINGLE_HOST=1 says so.

    From here on the hosts have one fate (:mod:`kind_jax.train.watch`): when one is lost, the others end within
    ``watch.SILENCE`` and a few seconds more, with a sentence and exit code 75. Hosts that do not come at all are waited
    for as long as JAX does by default, which ends in the same way.

    Raises:
      UserError: the environment is contradictory, or names others that cannot be joined.
    """
    if jax.distributed.is_initialized():
        return
    by_hand = _by_hand()
    if by_hand is None and (_is_alone() or not _many_are_announced()):
        return
    try:
        _initialize(*(by_hand or (None, None, None)))
    except (RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0].rstrip(".")
        hint = "" if by_hand else "; if this process is a run of its own, set KIND_JAX_SINGLE_HOST=1"
        raise UserError(f"the other hosts of this run could not be joined: {reason}{hint}.") from e


def _is_alone() -> bool:
    alone = os.environ.get("KIND_JAX_SINGLE_HOST", "")
    if alone not in ("", "0", "1"):
        raise UserError(f"KIND_JAX_SINGLE_HOST is {alone!r}, but it must be 1 (a run of its own) or 0.")
    return alone == "1"


def _initialize(address: str | None, count: int | None, index: int | None) -> None:
    devices = None
    if address is None:
        with contextlib.suppress(ImportError, AttributeError, TypeError):  # not public: without it, no relay
            from jax._src.clusters import ClusterEnv

            address, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
                os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, _JOIN
            )
    began: list[watch.Watch] = []
    whom = f"; the first one was expected at {address}" if address and index else ""
    if address and index:
        address = relay(address, lambda: bool(began) and began[0].cut())
    # JAX ends the process with a stack trace if the others do not come; this is a little earlier.
    late = threading.Timer(_JOIN, die, [f"the other hosts of this run did not come within {_JOIN} s{whom}."])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            address, count, index, local_device_ids=devices, initialization_timeout=_JOIN + 60,
            heartbeat_timeout_seconds=_JAX_SILENCE, shutdown_timeout_seconds=_SHUTDOWN,
        )  # fmt: skip
    finally:
        late.cancel()
    from jax._src import distributed  # not public, but the only way to the client; Orbax takes it, too

    state = distributed.global_state
    if state.client is not None and state.num_processes > 1:
        began.append(watch.Watch(state.client, state.process_id, state.num_processes))
        watch.begin(began[0])


def _by_hand() -> tuple[str, int, int] | None:
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, *numbers = found = [os.environ.get(name) for name in names]
    if found == [None, None, None] or (numbers == [None, None] and _many_are_announced()):
        return None
    count, index = (int(n) if n and n.isdecimal() else -1 for n in numbers)
    if not re.fullmatch(r".+:\d+", address or "") or not 0 <= index < count:
        given = ", ".join(f"{name}={value}" for name, value in zip(names, found, strict=True))
        raise UserError(
            f"the environment has {given}, but it must have the host:port of the first process, the number of "
            "processes, and the number of this one, counted from 0."
        )
    return str(address), count, index


def _many_are_announced() -> bool:
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if os.environ.get(name, "1").isdecimal() and int(os.environ.get(name, "1")) > 1:
            return True
    if "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" in os.environ:
        return True
    if computes_on_cpu() or importlib.util.find_spec("libtpu") is None:
        return False
    workers = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    # A Cloud TPU machine without these variables asks its metadata server, which knows about one host as well.
    return workers is None or "," in workers or int(os.environ.get("MEGASCALE_NUM_SLICES", "1")) > 1


def is_first() -> bool:
    """Whether this host writes what is written once."""
    return jax.process_index() == 0


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the run's folder for all hosts together.

    Raises:
      UserError: on every host, if the first one cannot have it.
    """
    if jax.process_count() == 1:
        with run_lock(directory):
            yield
        return
    with contextlib.ExitStack() as stack:
        problem = ""
        if is_first():
            try:
                stack.enter_context(run_lock(directory))
            except UserError as e:
                problem = str(e)
        said = np.frombuffer(problem.encode()[:_MESSAGE].ljust(_MESSAGE), np.uint8)
        problem = bytes(multihost_utils.broadcast_one_to_all(said)).decode(errors="replace").strip()
        if problem:
            raise UserError(problem)
        yield


def shared(directory: Path) -> None:
    """Make sure that all hosts see one and the same folder; call it while the folder is :func:`locked`.

    Raises:
      UserError: on every host, if one of them does not see the lock of the first.
    """
    if jax.process_count() == 1:
        return
    content = _content(directory / FILE_NAME)[:_MESSAGE]
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(content.ljust(_MESSAGE), np.uint8))
    deadline = time.monotonic() + _VISIBLE
    while not (same := _content(directory / FILE_NAME)[:_MESSAGE].ljust(_MESSAGE) == bytes(sent)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)  # network file systems show it late
    seen = np.asarray(multihost_utils.process_allgather(np.array(same))).ravel()
    if not seen.all():
        blind = ", ".join(str(i) for i in np.flatnonzero(~seen))
        raise UserError(
            f"--workdir is {str(directory)!r}, which is not the same folder on all hosts (process {blind} does not see "
            "the lock of process 0), but it must lie on a file system that they share."
        )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def barrier(name: str) -> None:
    """Wait for the others, so that all see what the first has written."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def asked_to_stop(received: bool, step: int) -> bool:
    """Whether to stop after ``step``: at the same step on every host, however few of them were asked.

    With one host that is ``received``; with several, JAX's preemption service passes SIGTERM on.
    """
    if jax.process_count() == 1:
        return received
    return multihost_utils.reached_preemption_sync_point(step)


def from_first(find: Callable[[], str]) -> str:
    """What ``find`` returns on the first host, on every host.

    Raises:
      UserError: on every host, if ``find`` raises it on the first one.
    """
    if jax.process_count() == 1:
        return find()
    said, problem = "", ""
    if is_first():
        try:
            said = find()
        except UserError as e:
            problem = str(e)
    sizes = multihost_utils.broadcast_one_to_all(np.array([len(said.encode()), len(problem.encode())], np.int32))
    text = np.frombuffer((said + problem).encode().ljust(int(sizes.sum())), np.uint8)
    told = bytes(multihost_utils.broadcast_one_to_all(text)).decode()
    if sizes[1]:
        raise UserError(told)
    return told
