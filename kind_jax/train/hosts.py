"""Several hosts as one run: joining them, and agreeing on what only one of them can know.

Every host runs the same command. The first one alone takes the lock of the run's folder and writes its metrics, its
samples and its config; all of them read their share of the data and write their share of a checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from kind_jax.errors import UserError
from kind_jax.train import cluster, watch
from kind_jax.train.cluster import Place
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

    SLURM, Open MPI, GKE and Cloud TPU say who they are; by hand, three variables do (:mod:`kind_jax.train.cluster`). On
    a single host there is nothing to say; but where several are announced that are runs of their own (an indexed
    Kubernetes job, say, whose pods each train another model), KIND_JAX_SINGLE_HOST=1 says so.

    From here on the hosts have one fate (:mod:`kind_jax.train.watch`): when one is lost, the others end within
    ``watch.SILENCE`` and a few seconds more, with a sentence and exit code 75. Hosts that do not come at all are waited
    for as long as JAX does by default, which ends in the same way.

    Raises:
      UserError: the environment is contradictory, or names others that cannot be joined.
    """
    if jax.distributed.is_initialized():
        return
    try:
        place = cluster.find(os.environ)
        if place is not None or cluster.is_kubernetes_job(os.environ):
            _initialize(place)
    except UserError:
        raise
    except (RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"the other hosts of this run could not be joined: {reason}; if this process is a run of its own, set "
            "KIND_JAX_SINGLE_HOST=1."
        ) from e


def _initialize(place: Place | None) -> None:
    """Join the others at ``place``; None leaves it to JAX to find them, and then no relay stands in between."""
    began: list[watch.Watch] = []
    whom = f"; the first one was expected at {place.address}" if place and place.index else ""
    # JAX ends the process with a stack trace if the others do not come; this is a little earlier.
    late = threading.Timer(_JOIN, die, [f"the other hosts of this run did not come within {_JOIN} s{whom}."])
    late.daemon = True
    late.start()
    where: dict[str, Any] = {}
    if place is not None:
        address = relay(place.address, lambda: bool(began) and began[0].cut()) if place.index else place.address
        where = {
            "coordinator_address": address, "num_processes": place.count, "process_id": place.index,
            "local_device_ids": place.device, "cluster_detection_method": "deactivate",
        }  # fmt: skip
    try:
        jax.distributed.initialize(
            **where, initialization_timeout=_JOIN + 60, heartbeat_timeout_seconds=_JAX_SILENCE,
            shutdown_timeout_seconds=_SHUTDOWN,
        )  # fmt: skip
    finally:
        late.cancel()
    index, count = (place.index, place.count) if place else (jax.process_index(), jax.process_count())
    if count > 1 and (client := _client()) is not None:
        began.append(watch.Watch(client, index, count))
        watch.begin(began[0])


def _client() -> Any:
    """The connection to the coordinator and its key-value store; None, with a word to the user, where there is none.

    The one place that uses what JAX does not publish: there is no public way to the store; Orbax takes the same.
    """
    try:
        client = importlib.import_module("jax._src.distributed").global_state.client
        missing = [name for name in watch.CLIENT if not hasattr(client, name)]
    except (ImportError, AttributeError):
        client, missing = None, ["client"]
    if not missing:
        return client
    print(
        f"JAX {jax.__version__} does not give access to its coordinator ({', '.join(missing)}): if a host is lost, the "
        "others end as JAX has it, later and with a stack trace.",
        file=sys.stderr,
    )
    return None


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


def whole(leaf: Any) -> np.ndarray:
    """An array on this host, of which others may hold parts; all of them call it."""
    if jax.process_count() > 1 and not leaf.is_fully_replicated:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(jax.device_get(leaf))
