"""The teacher's outputs on disk, so that it sees every image once."""

from __future__ import annotations

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
    assert config.distil.cache is not None
    assert config.distil.network is not None
    named = {"teacher": config.distil.source, "images": dataset.fingerprint}
    text = json.dumps(named, sort_keys=True)
    folder = Path(os.path.expanduser(config.distil.cache))
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    if path.is_file():
        return _read(path, text, config, len(dataset.source))
    features, logits = outputs(config.distil.network, teacher, dataset)
    found = {FEATURES: features, LOGITS: logits}
    if hosts.is_first():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"distil.cache is {str(folder)!r}, which cannot be created: {e.strerror}.") from e
        metadata = {_KEY: text, "sha256": partition.fingerprint(found)}
        atomic_write_bytes(path, safetensors.numpy.save(found, metadata))
    return found


def _read(path: Path, text: str, config: DistilRun, count: int) -> dict[str, np.ndarray]:
    def check(header: tensors.Header) -> None:
        if header.metadata.get(_KEY) != text:
            raise UserError(f"{path} holds the outputs of another teacher or of other images than its name says.")

    assert config.distil.network is not None
    network_of = config.distil.network
    found: dict[str, Any] = tensors.read(path, check)
    wanted: dict[str, Float[np.ndarray, "N D"]] = {
        FEATURES: np.broadcast_to(np.float32(0), (count, network.feature_width(network_of))),
        LOGITS: np.broadcast_to(np.float32(0), (count, network_of.num_classes)),
    }
    partition.check_like(found, wanted, str(path))
    if tensors.look(path).metadata.get("sha256") != partition.fingerprint(found):
        raise UserError(f"{path} is damaged: its arrays have another SHA-256 than it says; remove it.")
    return found
