"""Runs of several kinds on one command line: settings of a kind, and verbs that a kind does in its own way."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from kind_jax import sealed
from kind_jax.config import RunConfig
from kind_jax.config.run import LIMIT
from kind_jax.deploy import hub
from kind_jax.kinds import DEFAULT, KINDS
from kind_jax.untrusted import documents
from kind_jax.untrusted.regular import read_small


def own(verb: str, args: Sequence[str]) -> types.ModuleType | None:
    """The module that does a verb for the kind of the model that ``args`` name; None for the usual one."""
    if not any(verb in kind.verbs for kind in KINDS.values()):
        return None
    task = task_of_model(source_among(args) or "") or DEFAULT
    module = KINDS[task].verbs.get(verb) if task in KINDS else None
    return None if module is None else importlib.import_module(module)


def source_among(args: Sequence[str]) -> str | None:
    """The run or artifact that a verb is about: the first that is no option's value, or else the first of all."""
    models = [i for i, arg in enumerate(args) if task_of_model(arg) is not None]
    free = [i for i in models if i == 0 or not args[i - 1].startswith("--") or "=" in args[i - 1]]
    return next((args[i] for i in (*free, *models)), None)


def task_of_model(path: str) -> str | None:
    """The kind of a run, an artifact, or a folder of modules; None for anything else, and for what whoever opens it
    will refuse."""
    folder = Path(path)
    if hub.is_address(path):
        folder = hub.manifest_file(path).parent
    with contextlib.suppress(OSError, ValueError):
        if not any((folder / name).is_file() for name in ("kind.json", "config.json")):
            inside = [p.parent for name in ("kind.json", "config.json") for p in folder.glob(f"module-*/{name}")]
            folder = min(inside, default=folder)
    try:
        if (folder / "kind.json").is_file():
            text = sealed.opened(read_small(folder / "kind.json", sealed.LIMIT, links=False), folder / "kind.json")
            found = documents.parse(text, path)
            settings = found.get("config") if isinstance(found, dict) else None
        elif (folder / "config.json").is_file():
            settings = documents.parse(read_small(folder / "config.json", LIMIT), path)
        else:
            return None
    except Exception:  # who opens it says what is wrong with it
        return None
    task = settings.get("task", DEFAULT) if isinstance(settings, dict) else None
    return task if isinstance(task, str) else None


def for_settings(arguments: type, kind: type[RunConfig]) -> Any:
    """``arguments``, whose ``settings`` are those of any kind of run, for one kind."""
    hint = Annotated[kind, tyro.conf.arg(name="")]
    made = dataclasses.make_dataclass(
        arguments.__name__, [("settings", hint)], bases=(arguments,), frozen=True, kw_only=True
    )
    made.__doc__ = arguments.__doc__
    return made


PLAIN = (tyro.conf.AvoidSubcommands,)
"""How settings are parsed: a network that a file has chosen is not chosen again."""
