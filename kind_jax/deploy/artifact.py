"""Artifacts: a model as a folder of safetensors files that can be shared, and fetched in parts.

    kind.json                      config, class names, groups; shapes, dtypes and SHA-256 of every file, and its own
    learngenes.safetensors         components that every class shares
    README.md, samples.png         the model card, and what the model draws; nothing reads them
    params.safetensors             everything dense
    stats.safetensors              statistics of norms, where the model has some
    tailors/<group>.safetensors    one file a group, so that a device fetches only what it serves; none where the model
                                   has no gated tailors (dense, or composed for one group). Its metadata says whose
                                   they are: group, names of its classes, fingerprint of the learngenes

Nothing here unpickles, and only plain files are opened; :mod:`kind_jax.deploy.manifest` says what is believed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import safetensors.numpy

from kind_jax import __version__, partition, sealed
from kind_jax.config import RunConfig
from kind_jax.deploy import card
from kind_jax.deploy.identity import Owner, from_metadata, owners, to_metadata
from kind_jax.deploy.manifest import FORMAT as FORMAT
from kind_jax.deploy.manifest import MANIFEST as MANIFEST
from kind_jax.deploy.manifest import (
    ArrayInfo,
    FileInfo,
    Manifest,
    group_file,
    shapes_of,
    shared_file,
    to_json,
    without_path,
)
from kind_jax.deploy.manifest import read_manifest as read_manifest
from kind_jax.deploy.record import Composition
from kind_jax.errors import UserError
from kind_jax.files import atomic_directory
from kind_jax.partition import LEARNGENES, TAILORS
from kind_jax.untrusted import tensors
from kind_jax.untrusted.regular import open_regular, read_exactly
from kind_jax.untrusted.text import check_names


def write(
    directory: Path, *, config: RunConfig, collections: partition.Collections, groups: Sequence[int],
    class_names: Sequence[str], weights: Literal["ema", "raw"], step: int, composition: Composition | None = None,
    replace: bool = False, beside: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write an artifact, all of it or nothing.

    Args:
      collections: learngenes, params, and tailors whose bank rows are ``groups``.
      composition: how the model was composed, if it was.
      beside: a model card and its picture, by the names of their files. A card that its owner has written stays.

    Raises:
      UserError: the folder exists and is not an artifact to be replaced, or cannot be written, or a class has a name
        that does not print.
    """
    assert groups, "a model serves at least one group"
    check_names(class_names, "The model")
    for parent in directory.absolute().parents:
        if (parent / MANIFEST).is_file():
            raise UserError(f"{str(directory)!r} lies inside the artifact {str(parent)!r}; choose another folder.")
    if replace and directory.exists():
        read_manifest(directory, alone=True)  # refuses to delete what is not an artifact, or holds other files too
        beside = {**(beside or {}), **card.kept(directory)}
    trees = {shared_file(name): tree for name, tree in collections.items() if name != TAILORS and tree}
    metadata: dict[str, dict[str, str]] = {}
    if collections[TAILORS]:
        owner = owners(class_names, _groups(config), collections[LEARNGENES])
        for row, group in enumerate(groups):
            metadata[group_file(group)] = to_metadata(owner[group])
            trees[group_file(group)] = jax.tree.map(lambda a, row=row: a[row], collections[TAILORS])
    with atomic_directory(directory, replace=replace) as folder:
        files = {}
        for name, tree in trees.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            arrays = {k: np.asarray(a, order="C") for k, a in partition.flatten(tree).items()}
            data = safetensors.numpy.save(arrays, metadata.get(name))
            path.write_bytes(data)
            files[name] = FileInfo(
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
                arrays={k: ArrayInfo(shape=a.shape, dtype=a.dtype.name) for k, a in arrays.items()},
            )
        manifest = Manifest(
            format=FORMAT, kind_jax=__version__, config=without_path(config), class_names=tuple(class_names),
            groups=tuple(groups), weights=weights, step=step, files=files, composition=composition,
        )  # fmt: skip
        for name, content in (beside or {}).items():
            (folder / name).write_bytes(content)
        fields = to_json(manifest)
        sealed.write(folder / MANIFEST, fields)
    return fields


def read(directory: Path, manifest: Manifest, groups: Sequence[int]) -> partition.Collections:
    """The collections with the tailors of ``groups``; no other tailor file is opened.

    Raises:
      UserError: a group is not served, or a file is missing or its hash, arrays, shapes or dtypes are not the
        manifest's and the config's, or says that it belongs to another group or other learngenes.
    """
    for group in groups:
        if group not in manifest.groups:
            raise UserError(f"{directory} has no tailors of group {group}; it serves groups {list(manifest.groups)}.")
    shapes = shapes_of(manifest.config)
    collections: partition.Collections = {name: {} for name in shapes}
    for name in shapes:
        if shapes[name] and name != TAILORS:
            collections[name] = _read_file(directory, shared_file(name), manifest, shapes[name])
    if shapes[TAILORS]:
        owner = owners(manifest.class_names, _groups(manifest.config), collections[LEARNGENES])
        rows = [_read_file(directory, group_file(g), manifest, shapes[TAILORS], owner[g]) for g in groups]
        collections[TAILORS] = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return collections


def _groups(config: RunConfig) -> tuple[int, ...]:
    return config.model.group_of_class  # pyright: ignore[reportAttributeAccessIssue]


def _read_file(
    directory: Path, name: str, manifest: Manifest, wanted: dict[str, Any], owner: Owner | None = None
) -> dict[str, Any]:
    path, info = directory / name, manifest.files[name]
    if not os.path.lexists(path):
        raise UserError(f"{path} is missing; {MANIFEST} lists it (--classes takes the classes that are here).")
    with open_regular(path, links=False) as (file, size):
        # The size comes first: a wrong file is refused before it is read into memory.
        if size != info.bytes:
            raise UserError(f"{path} has {size} bytes, but {MANIFEST} says {info.bytes}.")
        data = read_exactly(file, size, path)
    found = hashlib.sha256(data).hexdigest()
    if found != info.sha256:
        known = owner is not None and _check_owner(data, path, owner)
        why = "damaged, or from another training of the same classes" if known else "damaged"
        raise UserError(f"{path} has SHA-256 {found[:12]}…, but {MANIFEST} says {info.sha256[:12]}…: it is {why}.")

    def check(header: tensors.Header) -> None:
        if owner is not None:
            _refuse_stranger(header, path, owner)
        leaves = {k: jax.ShapeDtypeStruct(a.shape, np.dtype(a.dtype)) for k, a in header.arrays.items()}
        partition.check_like(leaves, wanted, str(path))

    return partition.unflatten(tensors.load(data, path, check))


def _check_owner(data: bytes, path: Path, owner: Owner) -> bool:
    """Whether a file that is not the one in the manifest says that it is ``owner``'s; one that cannot be read, or was
    written without an owner, says nothing.

    Raises:
      UserError: it says that it is another's.
    """
    try:
        header = tensors.header(data, path)
        said = from_metadata(header.metadata, path)
    except UserError:
        return False
    _refuse_stranger(header, path, owner)
    return said is not None


def _refuse_stranger(header: tensors.Header, path: Path, owner: Owner) -> None:
    said = from_metadata(header.metadata, path)
    if said is not None and said != owner:
        raise UserError(f"{path} says that it belongs to {said}, but here it must belong to {owner}.")
