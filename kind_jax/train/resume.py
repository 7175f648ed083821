"""Where a run begins: at step 0, or at the newest checkpoint that is whole, undamaged and of this very run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from kind_jax import partition
from kind_jax.data import pipeline
from kind_jax.errors import UserError
from kind_jax.train import history, hosts
from kind_jax.train import state as states
from kind_jax.train.checkpoint import Checkpoints, read_meta
from kind_jax.train.history import Found, Verification
from kind_jax.train.state import TrainState
from kind_jax.train.task import Task

Resume = Literal["auto", "never", "always", "extend"]
"""``auto`` continues a run if there is one, ``never`` refuses to, ``always`` refuses to begin a new one; so does
``extend``, with which the run may become longer, and go on at other rates."""


def choose(directory: Path, resume: Resume, verify: history.Verify) -> Found:
    """The checkpoint to continue from, the same on every host.

    Raises:
      UserError: there are checkpoints but no good one, or ``resume`` does not allow what there is.
    """

    def look() -> str:
        found = history.latest_good(directory / "checkpoints", verify=verify)
        if resume in ("always", "extend") and found.step is None:
            raise UserError(f"--resume is {resume!r}, but {directory} holds no checkpoint to continue from.")
        if resume == "never" and found.step is not None:
            raise UserError(f"--resume is 'never', but {directory} holds a run with a checkpoint of step {found.step}.")
        return json.dumps(dataclasses.asdict(found))

    told = json.loads(hosts.from_first(look))
    return Found(**{**told, "refused": tuple(told["refused"])})


def set_aside_refused(directory: Path, found: Found) -> list[str]:
    """Rename checkpoints newer than the chosen one, which were refused; returns a sentence about each."""
    newer = [n for n in history.steps(directory / "checkpoints") if found.step is not None and n > found.step]
    if not hosts.is_first():
        return []
    moved = [history.set_aside(directory / "checkpoints", n) for n in reversed(newer)]
    return [f"{reason} It is now {path.name}." for reason, path in zip(found.refused, moved, strict=True)]


def verification(directory: Path, found: Found) -> Verification | None:
    """The check of a chosen checkpoint's content where it was put off, on the first host."""
    if found.step is None or found.verified or not hosts.is_first():
        return None
    return Verification(directory / "checkpoints" / str(found.step))


def begun(task: Task, weights: partition.Collections, shardings: TrainState) -> TrainState:
    """The state of step 0."""
    # From the host, where every process has the same: arrays of one device cannot go to others' devices.
    placed = jax.device_put(jax.tree.map(np.asarray, weights), shardings.collections)
    return jax.jit(states.start, static_argnums=0, out_shardings=shardings)(task, placed)


def restore(
    checkpoints: Checkpoints, found: Found, placed: TrainState, data: Any, fingerprint: dict[str, Any]
) -> tuple[TrainState, Found, list[str]]:
    """The state of the chosen checkpoint, which one that is, and remarks; ``data`` continues from there.

    A checkpoint that was to be verified later may turn out to be so damaged that it cannot be loaded: then it is
    verified now, and the one before it taken.

    Args:
      placed: shapes and shardings of the state.

    Raises:
      UserError: the checkpoint does not fit, or belongs to another input pipeline.
    """
    assert found.step is not None
    try:
        state, remarks = _restore(checkpoints, found.step, placed, data, fingerprint)
        return state, found, remarks
    except UserError:
        if found.verified or jax.process_count() > 1:  # of several hosts, the others may have loaded their parts
            raise
    found = choose(checkpoints.directory.parent, "auto", "before")
    assert found.step is not None
    state, remarks = _restore(checkpoints, found.step, placed, data, fingerprint)
    return state, found, remarks


def _restore(
    checkpoints: Checkpoints, step: int, placed: TrainState, data: Any, fingerprint: dict[str, Any]
) -> tuple[TrainState, list[str]]:
    saved = read_meta(checkpoints.directory, step)["fingerprint"]
    if (before := saved.get("fixed")) != (now := fingerprint.get("fixed")):
        raise UserError(
            f"{checkpoints.directory / str(step)} was trained beside fixed weights with SHA-256 {str(before)[:12]}…, "
            f"but those of this run have {str(now)[:12]}…."
        )
    was, found = (((tree.get("dataset") or {}).get("mix") or {}).get("content") for tree in (saved, fingerprint))
    if was and found and was != found:
        raise UserError(
            f"data.mix holds other images than {checkpoints.directory / str(step)} was trained on: their SHA-256 is "
            f"{found['sha256'][:12]}…, but it was {was['sha256'][:12]}…."
        )
    remarks, dealt = [], (saved.get("dealt"), fingerprint.get("dealt"))
    if None not in dealt and dealt[0] != dealt[1]:
        remarks.append(
            f"up to step {step} class-grouped batches were dealt to {_dealing(dealt[0])}; from there on they are dealt "
            f"anew, to {_dealing(dealt[1])}"
        )
        saved = {**saved, "dealt": dealt[1]}
    difference = pipeline.describe_difference(saved, fingerprint)
    if difference:
        raise UserError(f"{checkpoints.directory / str(step)} was trained on another input pipeline: {difference}.")
    return checkpoints.restore(step, placed, data), remarks


def _dealing(dealt: Any) -> str:
    return f"{dealt['shards']} shards of the tailors, {dealt['replicas']} devices each"
