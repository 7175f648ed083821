"""A config as the Python file that one would write by hand: only what differs from the defaults, with remarks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from kind_jax.config.run import RunConfig
from kind_jax.errors import UserError

_WIDTH = 120


def as_python(config: RunConfig, headline: str, remarks: Mapping[str, str] | None = None) -> str:
    """Source of a file whose ``get_config()`` gives ``config``, for :func:`kind_jax.config.load_file`.

    Args:
      headline: first line of its docstring.
      remarks: comments, by the dotted names of settings, which are then there even if they are at their defaults.
    """
    remarks = remarks or {}
    used: dict[str, set[str]] = {}
    body = _call(config, "", dict(remarks), used, indent=1)
    imports = "\n".join(_import(module, sorted(names)) for module, names in sorted(used.items()))
    text = headline.replace("\\", "\\\\").replace('"', '\\"')
    return f'"""{text}"""\n\n{imports}\n\n\ndef get_config() -> {type(config).__name__}:\n    return {body}\n'


def _call(value: Any, prefix: str, remarks: dict[str, str], used: dict[str, set[str]], indent: int) -> str:
    """The expression that makes a dataclass, over several lines."""
    used.setdefault(_home(type(value)), set()).add(type(value).__name__)
    pad, lines = "    " * (indent + 1), []
    for field in dataclasses.fields(value):
        name, own = f"{prefix}{field.name}", getattr(value, field.name)
        remarked = any(key == name or key.startswith(f"{name}.") for key in remarks)
        if own == _default(field) and not remarked:
            continue
        settings = dataclasses.is_dataclass(own)
        text = _call(own, f"{name}.", remarks, used, indent + 1) if settings else _literal(name, own, used)
        line = f"{pad}{field.name}={text},"
        remark = remarks.get(name)
        if remark and len(line) + len(remark) + 4 > _WIDTH:
            lines.append(f"{pad}# {remark}")
            remark = None
        lines.append(f"{line}  # {remark}" if remark else line)
    if not lines:
        return f"{type(value).__name__}()"
    return "\n".join([f"{type(value).__name__}(", *lines, "    " * indent + ")"])


def _literal(name: str, value: Any, used: dict[str, set[str]]) -> str:
    """The expression that makes a value, in one line."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, tuple):
        each = [_literal(name, part, used) for part in value]
        return f"({each[0]},)" if len(each) == 1 else f"({', '.join(each)})"
    if dataclasses.is_dataclass(value):
        used.setdefault(_home(type(value)), set()).add(type(value).__name__)
        fields = [
            (f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if getattr(value, f.name) != _default(f)
        ]
        return f"{type(value).__name__}({', '.join(f'{key}={_literal(name, own, used)}' for key, own in fields)})"
    raise UserError(f"{name} is {value!r:.200}, which cannot be written into a config file.")


def _import(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else dataclasses.MISSING


def _home(kind: type) -> str:
    """Where a class is imported from."""
    import kind_jax.config as public

    return "kind_jax.config" if getattr(public, kind.__name__, None) is kind else kind.__module__
