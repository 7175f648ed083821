"""Reading state dicts: arrays by name, in safetensors files, in PyTorch's, and in folders of diffusers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from kind_jax import partition
from kind_jax.errors import UserError
from kind_jax.interchange import torch_file
from kind_jax.interchange.names import StateDict
from kind_jax.untrusted import documents, tensors
from kind_jax.untrusted.text import printable

WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,200}\.safetensors\Z")  # a file beside the index, nothing above or below it
_SHARDS = 10_000
FLOATS = ("float32", "float16", "bfloat16")
"""Dtypes of weights; all become float32."""

COUNTERS = (".num_batches_tracked",)
"""How the names of the whole numbers in a classifier's state dict end: BatchNorm's counters, which nothing needs."""


class Found(NamedTuple):
    """float32 arrays by name, and the text that the file keeps beside them."""

    arrays: StateDict
    metadata: dict[str, str]


def read_file(path: Path, weights: Literal["ema", "raw"] | None = None, *, skip: tuple[str, ...] = ()) -> Found:
    """A state dict in one file, ``.safetensors``, or ``.pt``, ``.pth`` or ``.bin``, which are one format of PyTorch's.

    Args:
      weights: see :func:`kind_jax.interchange.torch_file.read`.
      skip: arrays whose names end in one of these are passed over.

    Raises:
      UserError: the file is missing, damaged, of another kind, or holds other numbers than floats of 16 or 32 bits.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, but a state dict is one file; folders are read with --from diffusers.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, skip)
    if path.suffix in (".pt", ".pth", ".bin"):
        return Found(torch_file.read(path, weights, skip=skip), {})
    raise UserError(
        f"{path} ends in {printable(path.suffix, 20)!r}, but a state dict must be a .safetensors file, or a .pt "
        "file of tensors alone."
    )


def open_state_dict(path: Path, weights: Literal["ema", "raw"] | None = None) -> StateDict:
    """The arrays of a classifier's state dict in one file, without the whole numbers in it: BatchNorm's counters.

    Raises:
      UserError: as :func:`read_file`.
    """
    return read_file(path, weights, skip=COUNTERS).arrays


def read_folder(folder: Path) -> StateDict:
    """The weights in a folder that diffusers has saved, in one file or in shards.

    Raises:
      UserError: as :func:`read_file`, or the index is not in accord with the shards.
    """
    if (folder / INDEX).exists() and not (folder / WEIGHTS).exists():
        return _read_shards(folder)
    if not (folder / WEIGHTS).exists():
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        if pickled:
            raise UserError(
                f"{folder} has {printable(pickled[0])}, a pickle, which is not read; save the model anew as "
                "safetensors: DiTTransformer2DModel.from_pretrained(folder).save_pretrained(other_folder)."
            )
        raise UserError(f"{folder} has neither {WEIGHTS} nor {INDEX}.")
    return _read_safetensors(folder / WEIGHTS).arrays


def check(arrays: StateDict, wanted: Mapping[str, tuple[int, ...]], origin: object) -> None:
    """Refuse arrays that differ from ``wanted`` in names or shapes, or are not finite.

    Raises:
      UserError: naming the first array that is missing, unknown, of another shape, or has NaN or an infinity.
    """
    named = {printable(name): array for name, array in arrays.items()}
    shapes = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in wanted.items()}
    partition.check_like(named, shapes, str(origin))
    for name, array in named.items():
        if not np.isfinite(array).all():
            raise UserError(f"{origin}: '{name}' has numbers that are not finite.")


def _read_safetensors(path: Path, skip: tuple[str, ...] = ()) -> Found:
    metadata: dict[str, str] = {}

    def look(header: tensors.Header) -> None:
        for name, info in header.arrays.items():
            if info.dtype not in FLOATS and not name.endswith(skip):
                raise UserError(
                    f"{path}: '{printable(name)}' has dtype {info.dtype}, but it must be one of {', '.join(FLOATS)}."
                )
        metadata.update(header.metadata)

    arrays = {name: a for name, a in tensors.read(path, look).items() if not name.endswith(skip)}
    return Found({name: a.astype(np.float32, copy=False) for name, a in arrays.items()}, metadata)


def _read_shards(folder: Path) -> StateDict:
    path = folder / INDEX
    index: Any = documents.read(path)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{path} has no weight_map of file names.")
    files = sorted(set(places.values()))
    if len(files) > _SHARDS:
        raise UserError(f"{path} names {len(files)} files, but it must name at most {_SHARDS}.")
    for file in files:
        if not _NAME.match(file):
            raise UserError(f"{path} names {printable(file)!r}, but it must name .safetensors files beside itself.")
    arrays: StateDict = {}
    for file in files:
        for name, array in _read_safetensors(folder / file).arrays.items():
            if places.get(name) != file:
                raise UserError(f"{folder / file} holds '{printable(name)}', against {INDEX}.")
            arrays[name] = array
    for name in places:
        if name not in arrays:
            raise UserError(f"{folder / places[name]} lacks '{printable(name)}', against {INDEX}.")
    return arrays
