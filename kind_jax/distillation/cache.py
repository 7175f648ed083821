"""The teacher's outputs on disk, so that it sees every image once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from jaxtyping import Float

from kind_jax import partition
from kind_jax.classifying import network
from kind_jax.classifying.outputs import outputs
from kind_jax.data.sets import Dataset
from kind_jax.distillation.config import DistilRun
from kind_jax.errors import UserError
from kind_jax.files import atomic_write_bytes
from kind_jax.train import hosts
from kind_jax.untrusted import tensors

FEATURES, LOGITS = "teacher_features", "teacher_logits"
_KEY = "kind_jax.teacher"


def columns(config: DistilRun, dataset: Dataset, teacher: partition.Collections) -> dict[str, np.ndarray]:
    """The teacher's features and logits of every image, read from ``distil.cache`` or computed and written there.

    Raises:
      UserError: the file is damaged, or of another teacher or other images than its name says; or it cannot be written.
    """
    path, text = _place(config, dataset)
    if path.exists():
        return _read(path, text, config, len(dataset.source))
    assert config.distil.network is not None
    features, logits = outputs(config.distil.network, teacher, dataset)
    found = {FEATURES: features, LOGITS: logits}
    if hosts.is_first():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"distil.cache is {str(path.parent)!r}, which cannot be created: {e.strerror}.") from e
        metadata = {_KEY: text, "sha256": partition.fingerprint(found)}
        atomic_write_bytes(path, safetensors.numpy.save(found, metadata))
    return found


def check(config: DistilRun, dataset: Dataset) -> None:
    """Refuse a cache that could not be used later on; nothing is written.

    Raises:
      UserError: no folder can be there, or what lies in it for this teacher and these images is damaged.
    """
    path, text = _place(config, dataset)
    there = next(folder for folder in (path.parent, *path.parent.parents) if os.path.lexists(folder))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "is a file" if not there.is_dir() else "cannot be written to"
        raise UserError(
            f"distil.cache is {str(path.parent)!r}, but it must be a folder, there already or to be made: "
            f"{str(there)!r} {what}."
        )
    if path.exists():
        _read(path, text, config, len(dataset.source))


def _place(config: DistilRun, dataset: Dataset) -> tuple[Path, str]:
    """The file for a teacher and images, and what it says that it is of."""
    assert config.distil.cache is not None
    assert config.distil.network is not None
    # The same weights are another teacher where the network sees images otherwise.
    network = dataclasses.asdict(config.distil.network)
    named = {"teacher": config.distil.source, "network": network, "images": dataset.fingerprint}
    text = json.dumps(named, sort_keys=True)
    folder = Path(os.path.abspath(os.path.expanduser(config.distil.cache)))
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors", text


def _read(path: Path, text: str, config: DistilRun, count: int) -> dict[str, np.ndarray]:
    def refused(reason: str) -> UserError:
        return UserError(
            f"distil.cache has the file {str(path)!r}, which {reason}: remove it, and the teacher's outputs are "
            "computed anew."
        )

    def belongs(header: tensors.Header) -> None:
        if header.metadata.get(_KEY) != text:
            raise refused("holds the outputs of another teacher or of other images than its name says")

    assert config.distil.network is not None
    settings = config.distil.network
    wanted: dict[str, Float[np.ndarray, "N D"]] = {
        FEATURES: np.broadcast_to(np.float32(0), (count, network.feature_width(settings))),
        LOGITS: np.broadcast_to(np.float32(0), (count, settings.num_classes)),
    }
    if not path.is_file():
        raise refused("is no file")
    try:
        said = tensors.look(path).metadata.get("sha256")
        found: dict[str, Any] = tensors.read(path)
        partition.check_like(found, wanted, str(path))
    except UserError as e:
        raise refused("is damaged") from e
    belongs(tensors.look(path))
    if said != partition.fingerprint(found):
        raise refused("is damaged")
    return found
