"""Command lines and the files that they name: valid ones, and what becomes of them under a careless hand."""

from __future__ import annotations

import dataclasses
import shutil
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from chaos import mutate
from kind_jax.config import Config, to_json
from kind_jax.train.run import load_config

CONFIG = """from pathlib import Path

from kind_jax.config.run import LIMIT, from_json
from kind_jax.untrusted.regular import read_small


def get_config():
    return from_json(read_small(Path(__file__).with_name("settings.json"), LIMIT), "settings.json")
"""

# Nothing of this is a config file.
NO_CONFIGS = (
    b"def get_config(:", b"1 / 0", b"def get_config():\n    raise ValueError('two\\nlines')", b"import no_such_module",
    b"def get_config():\n    return None", b"def get_config():\n    return {}", b"", b"x = 1", b"get_config = 3",
    b"import sys\nsys.exit(0)", b"import sys\nsys.exit('text')", b"def get_config():\n    raise SystemExit(75)",
    b"# \xff\xfe\x80\ndef get_config(): pass", b"\0" * 100, b"def get_config():\n    raise KeyError", b"(" * 5000,
    b"def get_config():\n    return get_config()", b"def get_config(x):\n    return x", b"raise Exception('\\x1b[2J')",
    b"from kind_jax.config import Config\ndef get_config():\n    return Config(sampler=print)",
    b"from kind_jax.config import Config\ndef get_config():\n    return Config(model=None)",
)  # fmt: skip

NO_CLASSES = (
    "3-", "-3", "9-2", "0-99999999999", "3,,4", ",", "", "x", "1,1", "0-3,2", "1.5", "nan", "١٢٣٤٥", "²", "99",
    "9" * 5000, "0-" + "9" * 5000, "\x1b[2J", "0-999999", "1\n2", "1;2", "0-9-9",
)  # fmt: skip

# Names that a careless parser would take for something else.
CLASS_NAMES = (
    "two words", "big, red", "a-b", "big", "red", "3-4", "ünïcödé", "--classes", "None", "10",
)  # fmt: skip

NUMBERS = (
    "0", "1", "2", "3", "7", "64", "-1", "0.5", "1e-9", "-0.0", "nan", "inf", "-inf", "1e999", "1e30", "-1e30",
    "1e-320", "100000", "2147483648", "4294967295", "9223372036854775808", "-9223372036854775809", "9" * 30, "9" * 5000,
    "0x10", "1_000", "1k", "1e5G", "1x2", "0x0", "999999x999999",
)  # fmt: skip
TEXTS = (
    "", " ", "x", "None", "True", "[]", "{}", "'", '"', "-", "--", "-x", "--=", "=", "ünïcödé", "数字", "🙂", "a\nb",
    "\x1b[2J", "\x07", "\udcff", "x" * 300, "%s%n", "os:getcwd", "nothing.at:all", "3-", "9-2", "0-99999999999",
    "0-2", "1,2", "euler", "raw", "loss", "big, red", "3-4",
)  # fmt: skip
PATHS = (
    "../../x", "..", ".", "", "/", "~", "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "/no/such/folder",
    "x" * 300, "x/" * 3000, "\x1b[2J", "\udcff", "x.png", "x.npz", "x.safetensors", "/dev/null/x", "a\nb.png",
    "x" * 250 + ".png", "{place}/run", "{place}/art", "{place}/locked", "{place}/config.py", "{place}/a",
    "{place}/loop", "{place}/run/config.json", "{place}/no", "{place}/art/x", "{place}/run/x.png",
    "{place}/art/kind.json/x.png", "{place}/locked/x.png", "{place}/folder.png",
)  # fmt: skip

DENSE = "dit.safetensors"

# Options of one value: two different ones are a contradiction.
_SINGLE = ("--out", "--workdir", "--seed", "--rows", "--steps", "--weights", "--count", "--max-params", "--judge-steps")

# These start processes or need packages that may not be here.
_LEFT_OUT = ("data.workers", "train.tensorboard", "train.wandb")


def _settings(kind: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting by its option, with its type."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        inner = dataclasses.is_dataclass(hint)
        found |= _settings(hint, f"{prefix}{name}.") if inner else {f"{prefix}{name}": hint}
    return {name: hint for name, hint in found.items() if name not in _LEFT_OUT}


SETTINGS = _settings(Config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Arguments of ``kind-jax`` in a folder of their own.

    Attributes:
      doomed: whether they must be refused.
      damage: what was done to files.
    """

    args: tuple[str, ...]
    doomed: bool = False
    damage: str = ""


def valid(place: Path) -> dict[str, list[list[str]]]:
    """Lines that need seconds, of every verb but ``play``, which serves until it is stopped; ``place`` is laid out by
    :func:`lay_out`."""
    run, art, named = (str(place / name) for name in ("run", "art", "named"))
    config, dense, new = (str(place / name) for name in ("config.py", DENSE, "new"))
    stop = ["--stop-after", "1"]
    sampler = ["--steps", "1", "--seed", "1"]
    judge = ["--judge-steps", "1", "--judge-bound", "0"]
    return {
        "train": [
            ["--config", config, "--workdir", new, *stop],
            ["--config", config, "--workdir", new, "--train.batch", "16", *stop],
            ["--config", config, "--workdir", run, "--resume", "always"],
        ],
        "transfer": [
            [run, "--workdir", new, "--data.classes", "1", "--data.classes=2", *stop],
            [art, "--workdir", new, "--transfer.tailors", "mean", "--weights", "ema", *stop],
        ],
        "sample": [
            [art, "--classes", "0-2", "--rows", "1", "--out", f"{new}.png", "--guidance", "1.5", *sampler],
            [run, "--rows", "1", "--method", "heun", "--weights", "raw", *sampler],
            [named, "--classes", "big, red", "--classes", "0", "None", "--rows", "1", "--out", f"{new}.png", *sampler],
        ],
        "inspect": [[named, "--classes", "big,red", "a-b", "--out", f"{new}.png"], [run, "--weights", "ema"]],
        "export": [
            [run, "--out", new, "--classes", "1,2", "--weights", "raw"],
            [art, "--out", new, "--replace"],
            [named, "--out", new, "--classes=--classes", "--classes", "9"],
            [art, "--to", "stablehlo", "--out", new, "--classes", "1"],
        ],
        "convert": [
            [dense, "--from", "dit", "--heads", "2", "--out", new],
            [dense, "--from", "dit", "--heads", "2", "--out", new, "--learngenes", "4", "--tailors", "2"],
        ],
        "compose": [
            [art, "--classes", "1", "--out", new, "--max-params", "12k", "--plot", f"{new}.png"],
            [run, "--classes", "1,2", "--out", new, "--rank", "3", "--form", "factored", "--criterion", "energy"],
            [named, "--classes", "big", "--classes=red", "--out", new],
        ],
        "grow": [
            [art, "--fresh", "cat,dog", "--fresh", "cow", "--out", new, "--seed", "1"],
            [run, "--add", named, "--out", new],
            [named, "--add", run, "--out", new, "--weights", "ema", "--weights=ema"],
        ],
        "shrink": [
            [art, "--drop", "0-3", "--out", new],
            [run, "--drop", "5", "--drop", "7", "--out", art, "--replace"],
            [named, "--drop", "two words,3", "--drop", "ünïcödé", "--out", new],
        ],
        "evaluate": [
            [art, "--count", "50", "--out", new, *judge, "--batch", "50", *sampler],
            [run, "--count", "50", "--classes", "0-2", *judge, "--reference", f"{new}.npz", *sampler],
        ],
        "report": [[run, "--count", "100", "--out", f"{new}.html", *judge]],
        "new": [[str(place / "a"), "--out", new, "--minutes", "1", "--size", "8"]],  # no images are there
        "synthesize": [[art, "--per-class", "2", "--classes", "1", "--out", new, *sampler]],
        "merge": [[run, named, "--out", new], [run, art, "--out", new, "--weights", "ema"]],
        "distil": [[run, "--into", art, "--workdir", new, *stop]],
        "divide": [[art, "--out", new, "--modules", "2"]],
        # Of models that are not here, or of none.
        "zip": [[run, art, "--out", new]],
        "modules": [[run]],
        "assemble": [[run, "--out", new]],
        "caption": [[run, "--out", f"{new}.png"]],
        "latents": [["--data.source", "digits", "--vae", str(place / "a"), "--out", new]],
        "push": [[art, "nobody", "--private"]],
        "plan": [["--config", config, "--mesh", "1x1", "--chip", "v5e", "--out", f"{new}.json", "--mfu", "0.3"]],
    }


def lay_out(place: Path, run: Path, artifact: Path, named: Path, dense: Path) -> None:
    """A run, two artifacts, others' model and a config file, strange things among them, and a folder to work in."""
    shutil.copytree(run, place / "run")
    shutil.copytree(artifact, place / "art")
    shutil.copytree(named, place / "named")
    shutil.copy(dense, place / DENSE)
    (place / "a" / "b").mkdir(parents=True)
    (place / "config.py").write_text(CONFIG)
    (place / "settings.json").write_text(to_json(load_config(run)))
    (place / "locked").write_text("x")
    (place / "locked").chmod(0)
    (place / "loop").symlink_to(place / "loop")
    (place / "folder.png").mkdir()


def draw(rng: np.random.Generator, place: Path) -> Line:
    """A line of any verb with something wrong with it, or with what it names."""
    lines = valid(place)
    verb = _pick(rng, list(lines))
    args = [verb, *_pick(rng, lines[verb])]
    what = rng.random()
    if what < 0.15:
        return _doomed(rng, args, place)
    if what < 0.35:
        return Line(args=tuple(args), damage=_damage(rng, args, place))
    if verb in ("train", "transfer", "plan") and what < 0.65:
        _setting(rng, args, place)
        return Line(args=tuple(args))
    for _ in range(_pick(rng, (1, 1, 1, 2, 3))):
        _pick(rng, _WAYS)(rng, args, place)
    return Line(args=tuple(args))


def _pick(rng: np.random.Generator, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def _doomed(rng: np.random.Generator, args: list[str], place: Path) -> Line:
    """A line with one thing wrong that no other reading could make right."""
    listed = [i for i, a in enumerate(args) if a in ("--classes", "--drop")]
    if listed and rng.random() < 0.7:
        args[listed[0] + 1] = _pick(rng, NO_CLASSES)
        return Line(args=tuple(args), doomed=True)
    once = [i for i, a in enumerate(args) if a in _SINGLE]
    if once and rng.random() < 0.4:
        again = _respelt(rng, [args[_pick(rng, once)], "other"])
        at = _pick(rng, [i for i, a in enumerate(args) if i and a.startswith("--")])  # no value is cut off its option
        return Line(args=(*args[:at], *again, *args[at:]), doomed=True)
    if "--config" in args and rng.random() < 0.8:
        text = _pick(rng, NO_CONFIGS)
        (place / "config.py").write_bytes(text)
        return Line(args=tuple(args), doomed=True, damage=f"(config.py is {text[:60]!r})")
    return Line(args=(*args, "--no-such-setting", "1"), doomed=True)


def _damage(rng: np.random.Generator, args: list[str], place: Path) -> str:
    """Change a file that the line reads."""
    files = {"run": ("run/config.json", "run/metrics.jsonl"), "art": ("art",), "named": ("named",)}
    files |= {"config.py": ("settings.json",), DENSE: (DENSE,)}
    named = [name for name in files if str(place / name) in args[1:]]
    if not named:
        return "(nothing to damage)"
    name = _pick(rng, files[_pick(rng, named)])
    path = place / name
    if name in ("art", "named"):
        mutate.artifact(rng, path)
    elif rng.random() < 0.1:
        path.unlink()
        _pick(rng, (path.mkdir, lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(path), lambda: None))()
    elif name == "run/metrics.jsonl" and rng.random() < 0.6:
        rows = path.read_bytes().splitlines()
        at = int(rng.integers(len(rows)))
        rows[at] = mutate.document(rng, rows[at])
        path.write_bytes(b"\n".join(rows) + b"\n")
    else:
        change = mutate.raw if name.endswith(("jsonl", DENSE)) or rng.random() < 0.3 else mutate.document
        path.write_bytes(change(rng, path.read_bytes()))
    return f"({name} is damaged)"


def _absurd(rng: np.random.Generator, place: Path, old: str = "") -> str:
    """A value that does not make sense, mostly of the kind of ``old``."""
    values = PATHS if "/" in old else NUMBERS if old[:1].isdecimal() else TEXTS
    if rng.random() < 0.3:
        values = _pick(rng, (PATHS, NUMBERS, TEXTS))
    return _pick(rng, values).replace("{place}", str(place))


def _value(rng: np.random.Generator, args: list[str], place: Path) -> None:
    """Another value of something."""
    spots = [i for i, a in enumerate(args) if i and not a.startswith("--")]
    if spots:
        at = _pick(rng, spots)
        args[at] = _absurd(rng, place, args[at])


def _setting(rng: np.random.Generator, args: list[str], place: Path) -> None:
    """One more setting; for verbs that have none, an unknown option."""
    name = _pick(rng, list(SETTINGS))
    hint = SETTINGS[name]
    choices = [c for part in (hint, *typing.get_args(hint)) for c in typing.get_args(part)]
    likely = [c for c in choices if isinstance(c, str)] if rng.random() < 0.5 else []
    count = int(rng.integers(0, 4)) if "tuple" in str(hint) else 1
    old = "1" if "int" in str(hint) or "float" in str(hint) else "/" if name.endswith("path") else "x"
    values = [_pick(rng, likely) if likely else _absurd(rng, place, old) for _ in range(count)]
    args += [f"--{name.replace('_', '-')}", *([] if hint is bool and rng.random() < 0.7 else values)]


def _drop(rng: np.random.Generator, args: list[str], place: Path) -> None:
    if args:
        del args[int(rng.integers(len(args)))]


def _twice(rng: np.random.Generator, args: list[str], place: Path) -> None:
    if args:
        at = int(rng.integers(len(args)))
        args[at:at] = args[at : at + int(rng.integers(1, 3))]


def _again(rng: np.random.Generator, args: list[str], place: Path) -> None:
    """An option once more, spelt in another way, with the same values or others."""
    spots = [i for i, a in enumerate(args) if a.startswith("--")]
    if not spots:
        return
    start = _pick(rng, spots)
    stop = next((i for i in range(start + 1, len(args)) if args[i].startswith("--")), len(args))
    values = args[start + 1 : stop]
    if rng.random() < 0.6:
        values = [_pick(rng, CLASS_NAMES) if rng.random() < 0.4 else _absurd(rng, place, v) for v in values]
    at = _pick(rng, [*spots, len(args)])
    args[at:at] = _respelt(rng, [args[start], *values])


def _respelt(rng: np.random.Generator, option: list[str]) -> list[str]:
    """An option and its values, written as the parser takes it too."""
    name, values = option[0], option[1:]
    if rng.random() < 0.5:
        name = f"--{name[2:].replace('-', '_')}"
    return [f"{name}={values[0]}", *values[1:]] if values and rng.random() < 0.5 else [name, *values]


def _swap(rng: np.random.Generator, args: list[str], place: Path) -> None:
    if args:
        i, j = rng.integers(len(args), size=2)
        args[i], args[j] = args[j], args[i]


def _insert(rng: np.random.Generator, args: list[str], place: Path) -> None:
    args.insert(int(rng.integers(len(args) + 1)), _absurd(rng, place))


def _cut(rng: np.random.Generator, args: list[str], place: Path) -> None:
    del args[int(rng.integers(len(args) + 1)) :]


_WAYS: tuple[Callable[[np.random.Generator, list[str], Path], None], ...] = (
    _value, _value, _value, _value, _value, _value, _setting, _drop, _twice, _again, _again, _swap, _insert, _cut,
)  # fmt: skip
