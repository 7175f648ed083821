"""kind.json: what the manifest of an artifact says, and whether it may be believed.

A stranger may have written it. So it is compared with its own config and with the sizes of the files before anything of
the size that it speaks of is computed or allocated, and a name in it is never used as a path: the files that may exist
follow from the config.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import math
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Literal, TypeVar

import jax
import pydantic

from kind_jax import model, partition, sealed
from kind_jax.config import RunConfig
from kind_jax.config.check import STRICT, problem
from kind_jax.config.roles import Role, role_of
from kind_jax.deploy.identity import from_metadata
from kind_jax.deploy.record import Composition
from kind_jax.errors import UserError
from kind_jax.kinds import DEFAULT, KINDS, load
from kind_jax.partition import LEARNGENES, PARAMS, STATS, TAILORS
from kind_jax.untrusted import documents, hub, tensors
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.tensors import HEADER_LIMIT
from kind_jax.untrusted.text import check_names, printable

MANIFEST = "kind.json"
FORMAT = 2
# What the Hugging Face hub adds to a repository, and its clients to a folder that they download to; never opened.
_BESIDE = (".cache", ".git", ".gitattributes", "LICENSE")
CARD_FILES = ("README.md", "samples.png")  # the model card
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """Shape and dtype of one array of a file."""

    __pydantic_config__ = STRICT
    shape: tuple[pydantic.NonNegativeInt, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileInfo:
    """Content of one file."""

    __pydantic_config__ = STRICT
    sha256: str
    bytes: pydantic.NonNegativeInt
    arrays: dict[str, ArrayInfo]

    @property
    def elements(self) -> int:
        """Numbers in all arrays."""
        return sum(math.prod(array.shape) for array in self.arrays.values())


C = TypeVar("C", bound=RunConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest(Generic[C]):
    """kind.json.

    Attributes:
      config: of a run of any kind; its JSON names the kind as that of a run's config does.
      groups: the groups that are served, whether their tailors are files or folded into the weights.
      files: every file beside the manifest, by its path relative to it.
      composition: how the model was composed; None for one as it was trained.
    """

    __pydantic_config__ = STRICT
    format: Literal[2]
    kind_jax: str
    config: C
    class_names: tuple[str, ...]
    groups: tuple[int, ...]
    weights: Literal["ema", "raw"]
    step: pydantic.NonNegativeInt
    files: dict[str, FileInfo]
    composition: Composition | None = None


_SHARED = (LEARNGENES, PARAMS, STATS)  # collections with a file of their own, where they hold something


@functools.lru_cache
def _adapter(kind: type[RunConfig]) -> pydantic.TypeAdapter:
    return pydantic.TypeAdapter(Manifest[kind])  # pyright: ignore[reportInvalidTypeForm]


def shared_file(collection: str) -> str:
    return f"{collection}.safetensors"


def group_file(group: int) -> str:
    return f"{TAILORS}/{group}.safetensors"


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values."""
    config = manifest.config
    fields = _adapter(type(config)).dump_python(manifest, mode="json")
    return fields if config.task == DEFAULT else {**fields, "config": {"task": config.task, **fields["config"]}}


def listed(path: Path) -> Manifest:
    """The manifest in a file, of an artifact whose other files may not be here yet.

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    manifest = _parse(path)
    _check_itself(manifest, path)
    _check_names(manifest, path)
    _check_arrays(manifest, path)
    return dataclasses.replace(manifest, config=without_path(manifest.config, whole=True))


def _held(config: RunConfig) -> ModuleType | None:
    where = KINDS[config.task].held
    return None if where is None else importlib.import_module(where)


def shapes_of(config: RunConfig) -> dict[str, Any]:
    """Collections as shapes and dtypes, where ``tailors`` are those of one group."""
    held = _held(config)
    found = model.definition(config.model)[1] if held is None else held.shapes(config)  # pyright: ignore[reportAttributeAccessIssue]
    shapes = dict(found)
    shapes[TAILORS] = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), shapes[TAILORS])
    return shapes


def read_manifest(directory: Path, *, alone: bool = False) -> Manifest:
    """The manifest, checked against itself and against what lies in the folder.

    Tailor files may be absent (a device fetches only what it serves); every other file must be there, and nothing may
    be there that the manifest does not list, but what comes with a download from the Hugging Face hub. No file but the
    manifest is opened, unless one has another size than it should: then its header may say whose it is.

    Args:
      alone: refuse also what comes with a download.

    Raises:
      UserError: naming the file and what is wrong with it.
    """
    path = directory / MANIFEST
    manifest = _parse(path)
    _check_itself(manifest, path)
    _check_names(manifest, path)
    _check_files(manifest, directory, CARD_FILES if alone else (*_BESIDE, *CARD_FILES))
    _check_arrays(manifest, path)
    # A path on somebody else's machine says nothing on this one, where data would be written to it.
    return dataclasses.replace(manifest, config=without_path(manifest.config, whole=True))


def without_path(config: C, *, whole: bool = False) -> C:
    """``config`` without the folders that data sets, the autoencoder and other models were in.

    Args:
      whole: whether the paths of folders of images stay as they are; else their last parts do, since others need not
        know how the folders above are called.
    """
    data = config.data
    kept = {"path": data.path if data.source == "folder" else None, "mix": data.mix}
    if not whole:
        kept = {name: path if path is None else os.path.basename(os.path.abspath(path)) for name, path in kept.items()}
    kept["path"] = kept["path"] or None
    config = _nowhere(dataclasses.replace(config, data=dataclasses.replace(data, mix_ratio=1.0)))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **kept, mix_ratio=data.mix_ratio))


def _nowhere(settings: Any) -> Any:
    """Settings that are nested in each other, without any path."""
    changes = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _nowhere(value)
        elif isinstance(value, str) and role_of(type(settings), field.name) is Role.PLACE:
            changes[field.name] = None
    return dataclasses.replace(settings, **changes)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path} is a symbolic link, but an artifact is plain files; copy the artifact with cp -rL.")


def _parse(path: Path) -> Manifest:
    data = read_small(path, sealed.LIMIT, links=False)
    try:
        text = sealed.opened(data, path)
    except UserError:
        if re.match(rb'\s*\{\s*"format"\s*:\s*1\s*,', data[:100]):
            raise UserError(
                f"{path} was written by an older version of kind-jax (format 1, but this version reads {FORMAT}), so "
                "the model must be exported again."
            ) from None
        raise
    found = documents.parse(text, path)
    if isinstance(found, dict) and found.get("format") != FORMAT:
        known = printable(found.get("format"), 20)
        raise UserError(f"{path} is damaged or of another version: format is {known}, but it must be {FORMAT}.")
    kind = load(KINDS[DEFAULT].config)
    settings = found.get("config") if isinstance(found, dict) else None
    if isinstance(settings, dict) and "task" in settings:
        name = settings.pop("task")
        if not isinstance(name, str) or name not in KINDS:
            known = ", ".join(KINDS)
            raise UserError(f"{path}: task is {printable(repr(name), 200)}, but it must be one of {known}.")
        kind, text = load(KINDS[name].config), json.dumps(found)
    try:
        return _adapter(kind).validate_json(text)
    except pydantic.ValidationError as e:
        raise UserError(f"{path} is damaged or not a manifest: {problem(e)}.") from e


def _check_itself(manifest: Manifest, path: Path) -> None:
    config: Any = manifest.config
    known, named, groups = config.model.num_classes, len(manifest.class_names), manifest.groups
    if named != known:
        raise UserError(f"{path} names {named} classes, but its config has {known}.")
    check_names(manifest.class_names, path)
    if len(set(groups)) != len(groups):
        raise UserError(f"{path} lists a group twice in {printable(list(groups))}.")
    group_of_class = config.model.group_of_class
    number = config.model.num_groups
    for group in groups:
        if not 0 <= group < number:
            raise UserError(f"{path} lists group {group}, but its config has {number} groups.")
    if not groups:
        raise UserError(f"{path} lists no groups, but a model serves at least one.")
    if (composition := manifest.composition) is not None:
        for c in composition.classes:
            if not 0 <= c < known:
                raise UserError(f"{path} was composed for class {c}, but its config has {known} classes.")
        composed = {group_of_class[c] for c in composition.classes}
        if not set(groups) <= composed:
            raise UserError(
                f"{path} lists the groups {printable(list(groups))}, but was composed of {printable(sorted(composed))}."
            )
        for text in (composition.source, *(kept.name for kept in composition.weights)):
            if not (text.isprintable() and len(text) <= 100):
                raise UserError(f"{path} is damaged: its composition has the name '{printable(text, 40)}'.")


def _check_names(manifest: Manifest, path: Path) -> None:
    """The files listed are those that an artifact of this config can have."""
    names = {shared_file(name) for name in _SHARED} | {group_file(g) for g in manifest.groups}
    for name, info in manifest.files.items():
        if name not in names:
            raise UserError(f"{path} lists '{printable(name)}', against its own config.")
        if not _SHA256.match(info.sha256):
            raise UserError(f"{path} is damaged: the sha256 of '{name}' is not one.")


def _check_files(manifest: Manifest, directory: Path, beside: Sequence[str]) -> None:
    """The files are those listed, plain ones, of the sizes listed; files of tailors may be absent."""
    found = _scan(directory)
    for extra in sorted(set(found) - set(manifest.files) - {MANIFEST, *beside}):
        raise UserError(f"{directory} holds '{printable(extra)}', which its {MANIFEST} does not list; remove it.")
    for name, info in manifest.files.items():
        if name in found:
            if found[name] != info.bytes:
                whose = _whose(directory / name) if name.startswith(f"{TAILORS}/") else ""
                raise UserError(f"{directory / name} has {found[name]} bytes, but {MANIFEST} says {info.bytes}{whose}.")
        elif not name.startswith(f"{TAILORS}/"):
            raise UserError(f"{directory / name} is missing; {MANIFEST} lists it.")


def _whose(path: Path) -> str:
    """What a file of tailors says of itself, if it is whole; a damaged one says nothing."""
    try:
        owner = from_metadata(tensors.look(path, links=False).metadata, path)
    except UserError:
        return ""
    return "" if owner is None else f"; it says that it belongs to {owner}"


def _scan(directory: Path) -> dict[str, int]:
    """Sizes of all files by path; folders other than that of the tailors count as files."""
    found: dict[str, int] = {}
    for prefix, folder in (("", directory), (f"{TAILORS}/", directory / TAILORS)):
        if prefix:  # the artifact itself may be a link, as whoever names it chose it
            if not os.path.lexists(folder):
                continue
            _refuse_link(folder)
        try:
            entries = list(os.scandir(folder))
        except OSError as e:
            raise UserError(f"{folder} cannot be read: {e.strerror}.") from e
        for entry in entries:
            name, path = f"{prefix}{entry.name}", folder / entry.name
            if name == TAILORS:
                continue
            if (target := hub.blob(path)) is None:
                _refuse_link(path)
            elif not os.path.lexists(target):
                raise UserError(f"{path} is a link to {target}, but there is no such file; download it again.")
            status = (target or path).lstat()
            if not stat.S_ISREG(status.st_mode) and (name == MANIFEST or name.endswith(".safetensors")):
                raise UserError(f"{path} is not a file.")
            found[name] = status.st_size
    return found


def _check_arrays(manifest: Manifest, path: Path) -> None:
    """The arrays listed are those that the config needs, and the files have room for them and little else."""
    for name, info in manifest.files.items():
        # All dtypes of a model have four bytes, which the comparison with the config makes sure of.
        room = info.bytes - 4 * info.elements
        if not 0 <= room <= HEADER_LIMIT + 8:
            raise UserError(f"{path} is damaged: '{name}' has {info.bytes} bytes for {info.elements} numbers.")
    config: Any = manifest.config
    held = _held(config)
    shared, dense, own = config.model.least_parameters if held is None else held.least_parameters(config)
    for name, least in (
        (shared_file(LEARNGENES), shared),
        (shared_file(PARAMS), dense),
        *((group_file(g), own) for g in manifest.groups),
    ):
        listed = manifest.files[name].elements if name in manifest.files else 0
        if least > listed:
            verb = "lists" if name in manifest.files else "does not list"
            raise UserError(
                f"{path} {verb} '{name}', against its own config, which needs at least {least} numbers in it, not "
                f"{listed}."
            )
    shapes = shapes_of(manifest.config)
    needed = {name: _infos(shapes.get(name, {})) for name in (*_SHARED, TAILORS)}
    files = {shared_file(name): needed[name] for name in _SHARED}
    files |= {group_file(g): needed[TAILORS] for g in manifest.groups}
    for name, arrays in files.items():
        listed = manifest.files[name].arrays if name in manifest.files else {}
        if listed == arrays and (name in manifest.files) == bool(arrays):
            continue
        odd = min((k for k in listed.keys() | arrays.keys() if listed.get(k) != arrays.get(k)), default="")
        raise UserError(
            f"{path} lists other arrays of '{name}' than its own config needs: '{printable(odd, 100)}' is "
            f"{_say(listed.get(odd))}, but must be {_say(arrays.get(odd))}."
        )


def _infos(tree: Any) -> dict[str, ArrayInfo]:
    leaves = partition.flatten(tree).items()
    return {name: ArrayInfo(shape=tuple(leaf.shape), dtype=leaf.dtype.name) for name, leaf in leaves}


def _say(info: ArrayInfo | None) -> str:
    return "absent" if info is None else printable(f"{info.dtype}{list(info.shape)}", 100)
