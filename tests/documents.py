"""The commands that README.md and docs/ show, as lists of words."""

import dataclasses
import importlib
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tyro

from kind_jax.classifying.commands import transfer as classifier_transfer
from kind_jax.commands import train
from kind_jax.config import presets
from kind_jax.kinds import KINDS
from kind_jax.transferring import whole

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^    (?:kind-jax|make|python) .*\n(?:^     +.*\n)*)+", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a document's code blocks, joined where it goes on with a backslash, without its comment."""

    document: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    @property
    def commands(self) -> list[list[str]]:
        """The line taken apart at ``&&``; of ``make demo`` its recipe, without installing."""
        parts, words = [[]], self.words
        for word in words:
            if word == "&&":
                parts.append([])
            else:
                parts[-1].append(word)
        return [command for part in parts for command in (_recipe(part) if part[0] == "make" else [part])]


def _recipe(words: list[str]) -> list[list[str]]:
    """What make would do; nothing is done, but a target that is not there fails."""
    outside = {"PATH": os.environ["PATH"]}  # not what a make that runs the tests was told
    done = subprocess.run([*words, "-n"], cwd=ROOT, env=outside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if not re.search(r"-m (venv|pip)|^touch|version_info", line)]


def lines(path: Path) -> list[Line]:
    """All lines of ``sh`` blocks, and of indented ones that begin with a program of ours, in order."""
    text = path.read_text()
    found = sorted([*_BLOCK.finditer(text), *_INDENTED.finditer(text)], key=lambda match: match.start())
    blocks = "\n".join(match[1] if match.re is _BLOCK else match[0] for match in found)
    return [
        Line(path.name, line.strip())
        for line in blocks.replace("\\\n", " ").splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]


_OF_KIND = {
    "classification": re.compile(r"runs/(\w*(vit|resnet)_animals|animals_probe)$"),
    "captioning": re.compile(r"runs/emoji$"),
}
"""Runs that are not here, by what they would say of themselves."""


class _ParsedError(Exception):
    """The command line was read; nothing more is to be done."""


def parse(words: list[str], monkeypatch) -> Any:
    """What a verb makes of its arguments, through the command's own parser and config; nothing runs."""
    real = tyro.cli

    def stop(*given, **settings):
        raise _ParsedError(real(*given, **settings))

    def settings_of(source):  # of a run that is not here: those of the preset that it is named after
        return presets.preset(source.name if source.name in presets.presets() else "digits")

    with monkeypatch.context() as patch:
        patch.setattr(tyro, "cli", stop)
        patch.setattr(whole, "settings_of", lambda source, *kind: settings_of(source))
        patch.setattr(train, "_start", lambda *given: None)
        patch.setattr(classifier_transfer, "_source", lambda args: (Path(args[0]), settings_of(Path(args[0]))))
        module = f"kind_jax.commands.{words[0]}"
        for kind, pattern in _OF_KIND.items():
            if any(map(pattern.match, words)):
                module = KINDS[kind].verbs.get(words[0], module)
        with pytest.raises(_ParsedError) as caught:
            importlib.import_module(module).run(words[1:])
    return caught.value.args[0]


def arguments(command: list[str]) -> list[str] | None:
    """What ``kind_jax.cli.main`` takes, for a command that is kind-jax or train.py; None for any other."""
    if Path(command[0]).name == "kind-jax":
        return command[1:]
    if Path(command[0]).name == "python" and command[1:2] == ["train.py"]:
        return ["train", *command[2:]]
    return None


def inner(line: Line) -> list[list[str]]:
    """Arguments of every kind-jax in a line, also within a command for another machine (``--command="..."``)."""
    remote = [shlex.split(word.partition("=")[2]) for word in line.words if word.startswith("--command=")]
    found = []
    for part in remote or line.commands:
        for start in (i for i, word in enumerate(part) if word == "kind-jax" or word == "train.py"):
            end = next((i for i, word in enumerate(part) if i > start and word in ("&&", ";", "|")), len(part))
            found.append([*(["train"] if part[start] == "train.py" else []), *part[start + 1 : end]])
    return found
