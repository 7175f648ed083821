"""Several hosts as one run: joining them, and agreeing on what only one of them can know.

Every host runs the same command. The first one alone takes the lock of the run's folder and writes its metrics, its
samples and its config; all of them read their share of the data and write their share of a checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from kind_jax.errors import UserError
from kind_jax.host import computes_on_cpu
from kind_jax.train.lock import run_lock

_MESSAGE = 1000  # bytes of a sentence that is sent to the other hosts


def join() -> None:
    """Find the other hosts of this run, if there are any; call it before anything asks for a device.

    Set up by hand, three variables name them: JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. SLURM, Open MPI, GKE and Cloud TPU say it themselves. On a single host there is nothing to say.

    Raises:
      UserError: the environment is contradictory, or the others did not answer.
    """
    if jax.distributed.is_initialized():
        return
    by_hand = _by_hand()
    try:
        if by_hand is not None:
            jax.distributed.initialize(*by_hand)
        elif _many_are_announced():
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise UserError(f"the other hosts of this run could not be joined: {reason}.") from e


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
