"""Presets: by name in Python and on the command line, from a checkout and from an installed wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kind_jax as kj
from kind_jax.cli import main
from kind_jax.config import presets

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def test_every_file_of_configs_is_a_preset():
    found = kj.presets()
    assert list(found) == [file.stem for file in CONFIGS]
    assert all(found.values()), "the first line of a config says what it is"
    assert kj.preset("digits") == kj.load_file(ROOT / "configs" / "digits.py")
    with pytest.raises(kj.UserError, match=r"the preset is 'digit', but it must be one of animals, "):
        kj.preset("digit")


def test_a_name_and_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = "import kind_jax as kj\ndef get_config(): return kj.Config(model=kj.ModelConfig(size=64))\n"
    for name in ("digits", "digits.py"):
        (tmp_path / name).write_text(mine)
    assert presets.load("digits") == kj.preset("digits"), "a preset comes before a file without .py"
    assert presets.load("digits.py").model.size == presets.load(tmp_path / "digits.py").model.size == 64
    with pytest.raises(kj.UserError, match=r"--config is 'configs/digits.py', but .*; --config digits is a preset\."):
        presets.load("configs/digits.py")


@pytest.mark.parametrize(
    "arguments",
    [["train"], ["plan", "--mesh", "1"], ["transfer", "run", "--workdir", "new"], ["latents"]],
    ids=str,
)
def test_an_unknown_name_is_answered_with_the_known_ones(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--config", "digit"]) == 2
    said = capsys.readouterr().err
    assert "--config is 'digit', but it must be a Python file ending in .py or a preset: animals, " in said
    assert list(tmp_path.iterdir()) == []


def test_help_has_the_names(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = capsys.readouterr().out
    assert all(file.stem in said for file in CONFIGS)


def python(*arguments, folder, path):
    """Run this Python in ``folder`` with the package under ``path`` and not that of the checkout."""
    environment = os.environ | {
        "PYTHONPATH": str(path), "JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax-tests"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(source, out, target):
    out.mkdir()
    # hatchling itself, which is what pip calls: pip would make an environment for it, from the network.
    python("-m", "hatchling", "build", "-t", target, "-d", out, folder=source, path="")
    (found,) = out.iterdir()
    return found


SEE = """
import kind_jax as kj
print(kj.__file__)
print(*kj.presets())
kj.preset("digits_transfer")
"""
SMALL = [
    "--model.width", "16", "--model.depth", "1", "--model.heads", "2", "--model.factor.learngenes", "4",
    "--model.factor.tailors", "1", "--train.steps", "2", "--train.batch", "4", "--train.sample-every", "0",
]  # fmt: skip


def test_an_installed_wheel_trains(tmp_path):
    """What a checkout has and what a source archive has make the same wheel; outside both, it has its presets."""
    wheel = build(ROOT, tmp_path / "wheel", "wheel")
    archive = build(ROOT, tmp_path / "archive", "sdist")
    python("-m", "tarfile", "-e", archive, tmp_path / "unpacked", folder=tmp_path, path="")
    (source,) = (tmp_path / "unpacked").iterdir()
    second = build(source, tmp_path / "second", "wheel")
    assert zipfile.ZipFile(wheel).namelist() == zipfile.ZipFile(second).namelist()

    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    where, names = python("-c", SEE, folder=empty, path=site).splitlines()
    assert where == str(site / "kind_jax" / "__init__.py")
    assert names.split() == [file.stem for file in CONFIGS]
    said = python("-m", "kind_jax", "train", "--config", "digits", *SMALL, folder=empty, path=site)
    assert "finished at step 2 of 2" in said
    assert (empty / "runs" / "digits" / "metrics.jsonl").is_file()
