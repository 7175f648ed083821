"""Orbax checkpoints with one checkpointable for each collection, so that any of them loads alone.

A step folder holds ``learngenes``, ``tailors``, ``params``, the moving average of each collection that trains
(``ema_…``), ``optimizer``, ``data`` (the position of the input pipeline) and ``meta``; and ``average`` where rows of
the averaged tailors are brought up to date only when they are used (see :mod:`kind_jax.train.rows`). Beside them lies a
manifest of all files (:mod:`kind_jax.train.manifest`), and ``meta`` has a sum of every array
(:mod:`kind_jax.train.leaves`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from kind_jax import config as configs
from kind_jax import partition
from kind_jax.config import RunConfig
from kind_jax.errors import UserError
from kind_jax.partition import TAILORS
from kind_jax.train import history, leaves, manifest
from kind_jax.train import state as states
from kind_jax.train.lock import check_present
from kind_jax.train.run import differences
from kind_jax.train.state import TrainState
from kind_jax.train.task import Task
from kind_jax.untrusted.text import check_names

Weights = Literal["ema", "raw"]

_BESIDE = ("data", "meta")  # items that are text

# What is less than a megabyte for each replica is written by one of them: to divide it, a program would be compiled for
# every shape and place.
_ARRAYS = ocp.options.ArrayOptions(saving=ocp.options.ArrayOptions.Saving(min_slice_bytes_for_replica_parallel=1 << 20))


def _items(state: TrainState) -> dict[str, Any]:
    """The arrays of a state as checkpointables; a model without tailors has no item for them."""
    items = dict(state.collections)
    items |= {f"ema_{name}": tree for name, tree in state.ema.items()}
    items |= {"optimizer": leaves.paths(_counted(state))}
    if state.averaged is not None:
        items["average"] = {"updated": state.averaged}
    return {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}


def _counted(state: TrainState) -> dict[str, Any]:
    return {"opt": state.opt, "step": state.step, "health": state.health}


class _GoneError(UserError):
    """The run's folder is not where it was."""


class Checkpoints:
    """The ``checkpoints`` folder of a run, for the process that owns the run."""

    def __init__(self, directory: Path, config: RunConfig) -> None:
        self.directory, self._config = directory, config
        self._first = jax.process_index() == 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if self._first:
                history.remove_leftovers(directory)
        except OSError as e:
            raise UserError(f"cannot create {directory}: {e.strerror}.") from e
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[None] | None = None

    def save(self, state: TrainState, data: Any, meta: Mapping[str, Any]) -> None:
        """Write a checkpoint in the background; arrays are copied before this returns.

        Raises:
          UserError: an array is not finite, the folder cannot be written to, or the save before this one failed.
        """
        self.wait()
        step, items = int(state.step), _items(state)
        sums = leaves.sums(items, f"step {step} was not saved: it")
        self._check_writable(step)
        meta = {**meta, "config": json.loads(configs.to_json(self._config)), "sums": sums}
        # The position of the input as plain data, not as Grain's own checkpoint, which is one for each process: a run
        # may go on with another number of hosts.
        position = {"json": json.dumps(data.get_state())}
        saving = self.directory / f"{step}.saving"
        try:
            with ocp.Context(array_options=_ARRAYS):
                response = ocp.save_checkpointables_async(
                    str(saving.absolute()),
                    items | {"data": position, "meta": {"json": json.dumps(meta)}},
                    overwrite=True,
                )
        except Exception as e:  # Orbax raises whatever its storage layers raise
            raise self._failed(step, e) from e
        self._saving = self._pool.submit(self._commit, step, saving, response)

    def _commit(self, step: int, saving: Path, response: Any) -> None:
        """Under its temporary name a save is hashed and pushed to the disk; then one rename makes it a checkpoint."""
        try:
            response.result()
            check_present(self.directory.parent)  # Orbax makes folders anew that have been moved meanwhile
            if self._first:
                manifest.write(saving, step)
                history.commit(self.directory, step, saving)
                history.prune(self.directory, self._config.train.keep)
        except Exception as e:
            problem = self._failed(step, e)
            for leftover in self.directory.glob(f"{step}.saving*"):  # gives a full disk its space back
                shutil.rmtree(leftover, ignore_errors=True)
            if isinstance(problem, _GoneError):
                with contextlib.suppress(OSError):  # Orbax made the folders anew
                    self.directory.rmdir()
                    self.directory.parent.rmdir()
            raise problem from e

    def _check_writable(self, step: int) -> None:
        """Before Orbax begins: where it cannot even make a folder, its threads wait for one for ten minutes."""
        probe = self.directory / f"{step}.saving-probe-{jax.process_index()}"
        try:
            probe.write_bytes(b"0" * 4096)
        except OSError as e:
            raise self._failed(step, e) from e
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()

    def _failed(self, step: int, e: BaseException) -> UserError:
        try:
            check_present(self.directory.parent)
        except UserError as e:
            return _GoneError(str(e))
        good = history.steps(self.directory)
        rest = f"the last good one is step {good[-1]}" if good else "there is no earlier one"
        where = f"the checkpoint of step {step} could not be written to {self.directory}"
        return UserError(f"{where}: {_cause(e)}; {rest}.")

    def check(self) -> None:
        """Raise what a save in the background met, as soon as it has met it; costs nothing."""
        if self._saving is not None and self._saving.done():
            self._saving.result()

    def wait(self) -> None:
        """Until the save under way is a checkpoint.

        Raises:
          UserError: it failed.
        """
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def close(self) -> None:
        """Wait until everything is on disk."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def restore(self, step: int, abstract: TrainState, data: Any) -> TrainState:
        """The state of a step, placed as ``abstract``'s shardings say; the input pipeline continues from there.

        Raises:
          UserError: an array is missing, extra, or has another shape, dtype or content than it should have, or the
            checkpoint was made with another config.
        """
        wanted = _items(abstract)
        loaded = _load(self.directory, step, self._config, wanted, whole=True)
        data.set_state(json.loads(_read(self.directory, step, {"data": None})["data"]["json"]))
        tree = _counted(abstract)
        counted = [loaded["optimizer"][path] for path in leaves.paths(tree)]
        counted = jax.tree.unflatten(jax.tree.structure(tree), counted)
        return TrainState(
            collections={name: loaded.get(name, {}) for name in abstract.collections},
            ema={name: loaded.get(f"ema_{name}", {}) for name in abstract.ema},
            averaged=None if abstract.averaged is None else loaded["average"]["updated"],
            **counted,
        )


def latest(directory: Path, without: Collection[str] = ()) -> int:
    """The newest good step, with a warning about each newer one.

    Args:
      without: parts that may be damaged, since they will not be read.

    Raises:
      UserError: there is none.
    """
    found = history.latest_good(directory, without)
    if found.step is None:
        raise UserError(f"{directory} holds no checkpoint; train the run first.")
    for reason in found.refused:
        logging.getLogger("kind_jax").warning("%s Going back to step %d.", reason, found.step)
    return found.step


def read_meta(directory: Path, step: int) -> dict[str, Any]:
    """What the run recorded beside its arrays: ``config``, ``fingerprint`` of the input, ``class_names``, ``sums``."""
    meta = json.loads(_read(directory, step, {"meta": None})["meta"]["json"])
    wanted = {"config": dict, "fingerprint": dict, "class_names": list, "sums": dict}
    if not isinstance(meta, dict) or any(not isinstance(meta.get(name), kind) for name, kind in wanted.items()):
        raise UserError(f"{directory / str(step)} has no record of this version; it must hold {', '.join(wanted)}.")
    check_names(list(map(str, meta["class_names"])), directory / str(step))
    return meta


def load_collections(
    directory: Path, step: int, task: Task, names: Sequence[str] | None = None, weights: Weights = "ema"
) -> partition.Collections:
    """Some collections of a checkpoint, and nothing else of it.

    Args:
      task: of the run.
      names: the collections to read; None is all.
      weights: the moving average, or the weights as last trained; a frozen collection has only one of them.

    Raises:
      UserError: a collection is absent, or one of its arrays is missing, extra or differs in shape or dtype.
    """
    state, config = states.abstract(task), task.config
    names = tuple(state.collections) if names is None else names
    if weights == "ema" and config.train.ema is None:
        raise UserError(f"{directory.parent} keeps no average (train.ema is None), so the weights must be 'raw'.")
    averaged = state.ema if weights == "ema" else {}
    wanted = {f"ema_{name}": averaged[name] for name in names if name in averaged}
    for name in names:  # of a collection that is averaged as a whole, the weights themselves are not needed
        if len(jax.tree.leaves(averaged.get(name, {}))) < len(jax.tree.leaves(state.collections[name])):
            wanted[name] = state.collections[name]
    late = state.averaged is not None and f"ema_{TAILORS}" in wanted
    if late:  # rows of the average that are behind are brought up to date from the weights
        wanted |= {"average": {"updated": state.averaged}, TAILORS: state.collections[TAILORS]}
    loaded = _load(directory, step, config, wanted)
    if late:
        loaded[f"ema_{TAILORS}"] = states.up_to_date(
            config, loaded[f"ema_{TAILORS}"], loaded, loaded["average"]["updated"], jnp.int32(step)
        )
    return {name: partition.overlay(loaded.get(name, {}), loaded.get(f"ema_{name}", {})) for name in names}


def _load(
    directory: Path, step: int, config: RunConfig, wanted: dict[str, Any], *, whole: bool = False
) -> dict[str, Any]:
    """Read items after comparing every leaf with what the checkpoint says it holds: Orbax itself would cast a wrong
    dtype silently and answers a wrong shape with a riddle. ``whole``: an item that is not wanted is refused too."""
    where = directory / str(step)
    present = {p.name for p in where.iterdir() if p.is_dir()}
    for item, tree in wanted.items():
        if item not in present:
            raise UserError(f"{where} lacks the collection '{item}'; it holds {sorted(present - set(_BESIDE))}.")
        partition.check_like(_read_metadata(where, item), tree, f"{where}/{item}")
    unknown = sorted(present - set(wanted) - set(_BESIDE))
    if whole and unknown:
        raise UserError(f"{where} holds the collection '{unknown[0]}', which this model does not have.")
    meta = read_meta(directory, step)
    # Shapes alone would let another order of the groups pass.
    saved = configs.from_json(json.dumps(meta["config"]), f"{where}/meta")
    if changed := differences(saved, config, extend=True):  # the run may have been extended since
        raise UserError(f"{where} was trained with another config: {'; '.join(changed)}.")
    loaded = _read(directory, step, jax.tree.map(_placed, wanted))
    leaves.check(loaded, meta["sums"], str(where))
    return loaded


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Leaves without a sharding go to one device; Orbax would ask for the topology that saved them."""
    where = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def _read_metadata(where: Path, item: str) -> Mapping[str, Any]:
    try:
        found = ocp.metadata(str(where.absolute()), item).metadata
    except Exception as e:  # Orbax raises whatever its storage layers raise
        raise UserError(f"{where}/{item} is not readable, it may be damaged: {_first_line(e)}.") from e
    if not isinstance(found, Mapping):
        raise UserError(f"{where}/{item} cannot be read, it may be damaged.")
    return found


def _read(directory: Path, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
    where = directory / str(step)
    try:
        return ocp.load_checkpointables(str(where.absolute()), wanted)
    except Exception as e:
        raise UserError(f"{where} cannot be read, it may be damaged: {_first_line(e)}.") from e


def _innermost(e: BaseException) -> BaseException:
    while (cause := e.__cause__ or e.__context__) is not None:  # Orbax buries what happened under what it tried
        e = cause
    return e


def _first_line(e: BaseException) -> str:
    e = _innermost(e)
    return f"{type(e).__name__}: {str(e).strip()[:300]}".splitlines()[0].rstrip(".")


def _cause(e: BaseException) -> str:
    """Why the operating system refused, where it did."""
    e = _innermost(e)
    if isinstance(e, UserError):
        return str(e).rstrip(".")
    number = e.errno if isinstance(e, OSError) else None
    if number is None and (found := re.search(r"os_error_code='(\d+)'", str(e))):  # TensorStore's errors
        number = int(found[1])
    return _first_line(e) if number is None else os.strerror(number)
