"""The settings that come with the package, by name: the files of ``configs/``.

A checkout has them in ``configs/``, next to the package; a wheel has the same files in ``kind_jax/configs/`` (see
pyproject.toml). A file that is added is a preset: its name without ``.py``, described by the first line in it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kind_jax.config.check import require
from kind_jax.config.run import RunConfig, load_file
from kind_jax.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def presets() -> dict[str, str]:
    """Names of all presets, in order, and a line about each."""
    return {file.stem: _first_line(file) for file in _files()}


def preset(name: str, given: Mapping[str, Any] | None = None) -> Any:
    """The settings of this name, one of :func:`presets`: a :class:`kind_jax.config.RunConfig` of its kind.

    Args:
      name: of the preset.
      given: settings that are decided, by dotted names: ``preset("images", {"data.path": "photos"})``. They win, and
        what depends on them follows.

    Raises:
      UserError: there is none, or it does not go with what is given.
    """
    found = {file.stem: file for file in _files()}
    require(isinstance(name, str) and name in found, "the preset", name, f"one of {_names(found)}")
    return load_file(found[name], given)


def load(config: str | Path, given: Mapping[str, Any] | None = None) -> RunConfig:
    """What ``--config`` takes: the name of a preset, or a Python file with ``get_config()``, which ends in ``.py``.

    Raises:
      UserError: neither, or a file that :func:`kind_jax.config.load_file` refuses.
    """
    path, found = Path(config), {file.stem: file for file in _files()}
    if path.suffix == ".py" or path.name != str(config):
        if path.stem in found and not path.exists():  # what the documents of a checkout name, say, from elsewhere
            raise UserError(f"--config is {str(config)!r}, but no such file exists; --config {path.stem} is a preset.")
        return load_file(path, given)
    # A file without an ending could not be loaded anyway, so that names and files never compete.
    if path.name not in found:
        raise UserError(
            f"--config is {path.name!r:.200}, but it must be a Python file ending in .py or a preset: {_names(found)}."
        )
    return load_file(found[path.name], given)


def _files() -> list[Path]:
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return [] if folder is None else sorted(folder.glob("*.py"))


def _names(found: Iterable[str]) -> str:
    return ", ".join(found) or "none, since the package was installed without its files"


def _first_line(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_bytes())) or ""
    return text.partition("\n")[0].rstrip(".")


HELP = (
    f"One of {_names(file.stem for file in _files())}, or a Python file with get_config(). Every setting below can "
    "override it."
)
