"""Orbax checkpoints with one checkpointable for each collection, so that any of them loads alone.

A step folder holds ``learngenes``, ``tailors``, ``params``, the moving average of each collection that trains
(``ema_…``), ``optimizer``, ``data`` (the position of the input pipeline) and ``meta``; and ``average`` where rows of
the averaged tailors are brought up to date only when they are used (see :mod:`kind_jax.train.rows`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from kind_jax import partition
from kind_jax.config import Config
from kind_jax.errors import UserError
from kind_jax.partition import TAILORS
from kind_jax.train import state as states
from kind_jax.train.state import TrainState

Weights = Literal["ema", "raw"]


def _flat(tree: Any) -> dict[str, Any]:
    """Leaves of any tree by their printed path; optimizer states are tuples of tuples, which Orbax would number."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _items(state: TrainState) -> dict[str, Any]:
    """The arrays of a state as checkpointables; a model without tailors has no item for them."""
    items = dict(state.collections)
    items |= {f"ema_{name}": tree for name, tree in state.ema.items()}
    items |= {"optimizer": _flat({"opt": state.opt, "step": state.step})}
    if state.averaged is not None:
        items["average"] = {"updated": state.averaged}
    return {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}


class Checkpoints:
    """The ``checkpoints`` folder of a run."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"cannot create {directory}: {e.strerror}.") from e
        self._checkpointer = ocp.training.Checkpointer(
            str(directory.absolute()),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),  # pyright: ignore[reportArgumentType]
            cleanup_tmp_directories=True,
        )

    def save(self, state: TrainState, data: Any, meta: Mapping[str, Any]) -> None:
        """Write a checkpoint in the background; arrays are copied before this returns."""
        step = int(state.step)
        # The position of the input as plain data, not as Grain's own checkpoint, which is one for each process: a run
        # may go on with another number of hosts.
        position = {"json": json.dumps(data.get_state())}
        items = _items(state) | {"data": position, "meta": {"json": json.dumps(meta)}}
        self._checkpointer.save_checkpointables_async(step, items, force=True, overwrite=True)

    def restore(self, step: int, abstract: TrainState, data: Any) -> TrainState:
        """The state of a step, placed as ``abstract``'s shardings say; the input pipeline continues from there.

        Raises:
          UserError: an array is missing, extra, or has another shape or dtype than ``abstract``.
        """
        wanted = _items(abstract)
        loaded = _load(self.directory, step, wanted)
        data.set_state(json.loads(_read(self.directory, step, {"data": None})["data"]["json"]))
        tree = {"opt": abstract.opt, "step": abstract.step}
        optimizer = jax.tree.unflatten(jax.tree.structure(tree), [loaded["optimizer"][path] for path in _flat(tree)])
        return TrainState(
            collections={name: loaded.get(name, {}) for name in abstract.collections},
            ema={name: loaded.get(f"ema_{name}", {}) for name in abstract.ema},
            opt=optimizer["opt"],
            step=optimizer["step"],
            averaged=None if abstract.averaged is None else loaded["average"]["updated"],
        )

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._checkpointer.close()


def steps(directory: Path) -> list[int]:
    """Steps with a checkpoint, in order; saves that were interrupted have temporary names and do not count.

    Raises:
      UserError: the folder of a step is not whole: going on without it could lose work unnoticed.
    """
    if not directory.is_dir():
        return []
    folders = [p for p in directory.iterdir() if p.name.isdigit()]
    for folder in folders:
        for item in ("params", "meta"):
            if not (folder / item).is_dir():
                raise UserError(
                    f"{folder} is not a whole checkpoint (it lacks '{item}'); remove it to go on without it."
                )
    return sorted(int(p.name) for p in folders)


def latest(directory: Path) -> int:
    """The newest step.

    Raises:
      UserError: there is none.
    """
    found = steps(directory)
    if not found:
        raise UserError(f"{directory} holds no checkpoint; train the run first.")
    return found[-1]


def read_meta(directory: Path, step: int) -> dict[str, Any]:
    """What the run recorded beside its arrays."""
    return json.loads(_read(directory, step, {"meta": None})["meta"]["json"])


def load_collections(
    directory: Path, step: int, config: Config, names: Sequence[str] | None = None, weights: Weights = "ema"
) -> partition.Collections:
    """Some collections of a checkpoint, and nothing else of it.

    Args:
      config: of the run.
      names: the collections to read; None is all.
      weights: the moving average, or the weights as last trained; a frozen collection has only one of them.

    Raises:
      UserError: a collection is absent, or one of its arrays is missing, extra or differs in shape or dtype.
    """
    state = states.abstract(config)
    names = tuple(state.collections) if names is None else names
    averaged = state.ema if weights == "ema" else {}
    wanted = {f"ema_{name}": averaged[name] for name in names if name in averaged}
    for name in names:  # of a collection that is averaged as a whole, the weights themselves are not needed
        if len(jax.tree.leaves(averaged.get(name, {}))) < len(jax.tree.leaves(state.collections[name])):
            wanted[name] = state.collections[name]
    late = state.averaged is not None and f"ema_{TAILORS}" in wanted
    if late:  # rows of the average that are behind are brought up to date from the weights
        wanted |= {"average": {"updated": state.averaged}, TAILORS: state.collections[TAILORS]}
    loaded = _load(directory, step, wanted)
    if late:
        loaded[f"ema_{TAILORS}"] = states.up_to_date(
            config, loaded[f"ema_{TAILORS}"], loaded, loaded["average"]["updated"], jnp.int32(step)
        )
    return {name: partition.overlay(loaded.get(name, {}), loaded.get(f"ema_{name}", {})) for name in names}


def _load(directory: Path, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """Read items after comparing every leaf with what the checkpoint says it holds: Orbax itself would cast a wrong
    dtype silently and answers a wrong shape with a riddle."""
    where = directory / str(step)
    present = _read_metadata(where)
    for item, tree in wanted.items():
        if item not in present:
            raise UserError(f"{where} lacks the collection '{item}'; it holds {sorted(present)}.")
        if not isinstance(present[item], Mapping):
            raise UserError(f"{where}/{item} cannot be read, it may be damaged.")
        partition.check_like(present[item], tree, f"{where}/{item}")
    return _read(directory, step, jax.tree.map(_placed, wanted))


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Leaves without a sharding go to one device; Orbax would ask for the topology that saved them."""
    where = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def _read_metadata(where: Path) -> dict[str, Any]:
    logger = logging.getLogger("absl")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it warns that the input's position has no shapes
        return ocp.checkpointables_metadata(str(where.absolute())).metadata
    except Exception as e:  # Orbax raises whatever its storage layers raise
        raise UserError(f"{where} is not a readable checkpoint: {_first_line(e)}.") from e
    finally:
        logger.setLevel(level)


def _read(directory: Path, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
    where = directory / str(step)
    try:
        return ocp.load_checkpointables(str(where.absolute()), wanted)
    except Exception as e:
        raise UserError(f"{where} cannot be read, it may be damaged: {_first_line(e)}.") from e


def _first_line(e: BaseException) -> str:
    while (cause := e.__cause__ or e.__context__) is not None:  # Orbax buries what happened under what it tried
        e = cause
    return f"{type(e).__name__}: {str(e).strip()[:300]}".splitlines()[0].rstrip(".")
