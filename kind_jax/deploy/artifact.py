"""Artifacts: a model as a folder of safetensors files that can be shared, and fetched in parts.

    kind.json                      config, class names, groups; shapes, dtypes and SHA-256 of every file
    learngenes.safetensors         components that every class shares
    params.safetensors             everything dense
    tailors/<group>.safetensors    one file a group, so that a device fetches only what it serves; none where the model
                                   has no gated tailors (dense, or composed for one group)

Nothing here unpickles, and a name in the manifest is never used as a path: the files that may exist follow from the
config.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pydantic
import safetensors
import safetensors.numpy

from kind_jax import __version__, model, partition
from kind_jax.config import Config
from kind_jax.deploy.record import Composition
from kind_jax.errors import UserError
from kind_jax.files import atomic_directory
from kind_jax.partition import LEARNGENES, PARAMS, TAILORS

MANIFEST = "kind.json"
FORMAT = 1
_STRICT = pydantic.ConfigDict(extra="forbid", strict=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """Shape and dtype of one array of a file."""

    __pydantic_config__ = _STRICT
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileInfo:
    """Content of one file."""

    __pydantic_config__ = _STRICT
    sha256: str
    bytes: int
    arrays: dict[str, ArrayInfo]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """kind.json.

    Attributes:
      groups: the groups that are served, whether their tailors are files or folded into the weights.
      files: every file beside the manifest, by its path relative to it.
      composition: how the model was composed; None for one as it was trained.
    """

    __pydantic_config__ = _STRICT
    format: Literal[1]
    kind_jax: str
    config: Config
    class_names: tuple[str, ...]
    groups: tuple[int, ...]
    weights: Literal["ema", "raw"]
    step: int
    files: dict[str, FileInfo]
    composition: Composition | None = None


_ADAPTER = pydantic.TypeAdapter(Manifest)


def group_file(group: int) -> str:
    return f"{TAILORS}/{group}.safetensors"


def write(
    directory: Path, *, config: Config, collections: partition.Collections, groups: Sequence[int],
    class_names: Sequence[str], weights: Literal["ema", "raw"], step: int, composition: Composition | None = None,
    replace: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write an artifact, all of it or nothing.

    Args:
      collections: learngenes, params, and tailors whose bank rows are ``groups``.
      composition: how the model was composed, if it was.

    Raises:
      UserError: the folder exists and is not an artifact to be replaced, or cannot be written.
    """
    for parent in directory.absolute().parents:
        if (parent / MANIFEST).is_file():
            raise UserError(f"{str(directory)!r} lies inside the artifact {str(parent)!r}; choose another folder.")
    if replace and directory.exists():
        read_manifest(directory)  # refuses to delete what is not an artifact, or holds other files too
    trees = {f"{name}.safetensors": collections[name] for name in (LEARNGENES, PARAMS) if collections[name]}
    if collections[TAILORS]:
        for row, group in enumerate(groups):
            trees[group_file(group)] = jax.tree.map(lambda a, row=row: a[row], collections[TAILORS])
    with atomic_directory(directory, replace=replace) as folder:
        files = {}
        for name, tree in trees.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            arrays = {k: np.ascontiguousarray(a) for k, a in partition.flatten(tree).items()}
            data = safetensors.numpy.save(arrays)
            path.write_bytes(data)
            files[name] = FileInfo(
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
                arrays={k: ArrayInfo(shape=a.shape, dtype=a.dtype.name) for k, a in arrays.items()},
            )
        manifest = Manifest(
            format=FORMAT, kind_jax=__version__, config=config, class_names=tuple(class_names),
            groups=tuple(groups), weights=weights, step=step, files=files, composition=composition,
        )  # fmt: skip
        text = json.dumps(_ADAPTER.dump_python(manifest, mode="json"), indent=1)
        (folder / MANIFEST).write_text(text)
    return json.loads(text)


def read_manifest(directory: Path) -> Manifest:
    """The manifest, checked against itself and against what lies in the folder.

    Tailor files may be absent (a device fetches only what it serves); every other file must be there, and no file may
    be there that the manifest does not list.

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    path = directory / MANIFEST
    try:
        manifest = _ADAPTER.validate_json(path.read_bytes())
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}.") from e
    except pydantic.ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = first.get("ctx", {}).get("error", first["msg"])
        raise UserError(f"{path} is damaged or not a manifest: {field}: {str(reason).rstrip('.')}.") from e
    if len(manifest.class_names) != manifest.config.model.num_classes:
        known, named = manifest.config.model.num_classes, len(manifest.class_names)
        raise UserError(f"{path} names {named} classes, but its config has {known}.")
    if len(set(manifest.groups)) != len(manifest.groups):
        raise UserError(f"{path} lists a group twice in {list(manifest.groups)}.")
    for group in manifest.groups:
        if not 0 <= group < manifest.config.model.num_groups:
            raise UserError(
                f"{path} lists group {group}, but its config has {manifest.config.model.num_groups} groups."
            )
    if manifest.composition is not None:
        composed = {manifest.config.model.group_of_class[c] for c in manifest.composition.classes}
        if not set(manifest.groups) <= composed:
            raise UserError(f"{path} lists the groups {list(manifest.groups)}, but was composed of {sorted(composed)}.")
    shapes = model.definition(manifest.config.model)[1]
    expected = {f"{name}.safetensors" for name in (LEARNGENES, PARAMS) if shapes[name]}
    if shapes[TAILORS]:
        expected |= {group_file(g) for g in manifest.groups}
    elif not manifest.groups:  # dense models were once written without the groups that they serve, which are all
        manifest = dataclasses.replace(manifest, groups=tuple(range(manifest.config.model.num_groups)))
    if set(manifest.files) != expected:
        odd = sorted(set(manifest.files) ^ expected)[0]
        raise UserError(
            f"{path} {'lists' if odd in manifest.files else 'does not list'} '{odd}', against its own config."
        )
    found = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file() or p.is_symlink()}
    for extra in sorted(found - expected - {MANIFEST}):
        raise UserError(f"{directory} holds '{extra}', which its {MANIFEST} does not list; remove it.")
    return manifest


def read(directory: Path, manifest: Manifest, groups: Sequence[int]) -> partition.Collections:
    """The collections with the tailors of ``groups``; no other tailor file is opened.

    Raises:
      UserError: a group is not served, or a file is missing or its hash, arrays, shapes or dtypes are not the
        manifest's and the config's.
    """
    for group in groups:
        if group not in manifest.groups:
            raise UserError(f"{directory} has no tailors of group {group}; it serves groups {list(manifest.groups)}.")
    shapes = model.definition(manifest.config.model)[1]
    collections: partition.Collections = {LEARNGENES: {}, TAILORS: {}, PARAMS: {}}
    for name in (LEARNGENES, PARAMS):
        if shapes[name]:
            collections[name] = _read_file(directory, f"{name}.safetensors", manifest, shapes[name])
    if shapes[TAILORS]:
        one = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), shapes[TAILORS])
        rows = [_read_file(directory, group_file(g), manifest, one) for g in groups]
        collections[TAILORS] = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return collections


def _read_file(directory: Path, name: str, manifest: Manifest, wanted: dict[str, Any]) -> dict[str, Any]:
    path, info = directory / name, manifest.files[name]
    try:
        # The size comes first: a wrong file is refused before it is read into memory.
        size = path.stat().st_size
        data = path.read_bytes() if size == info.bytes else b""
    except FileNotFoundError as e:
        raise UserError(f"{path} is missing; {MANIFEST} lists it (--classes takes the classes that are here).") from e
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}.") from e
    if size != info.bytes:
        raise UserError(f"{path} has {size} bytes, but {MANIFEST} says {info.bytes}.")
    found = hashlib.sha256(data).hexdigest()
    if found != info.sha256:
        raise UserError(f"{path} has SHA-256 {found[:12]}…, but {MANIFEST} says {info.sha256[:12]}…: it is damaged.")
    try:
        leaves = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as e:
        raise UserError(f"{path} is not a safetensors file: {e}.") from e
    tree = partition.unflatten(leaves)
    partition.check_like(tree, wanted, str(path))
    if {name: ArrayInfo(shape=a.shape, dtype=a.dtype.name) for name, a in leaves.items()} != info.arrays:
        raise UserError(f"{path} holds other arrays than {MANIFEST} lists.")
    return tree
