"""A file of tailors says whose it is, so that one in the wrong place is named; files of older artifacts say nothing."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import tiny

from kind_jax import model, sealed
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.deploy.groups import drop
from kind_jax.deploy.identity import Owner, from_metadata, to_metadata
from kind_jax.errors import UserError
from kind_jax.partition import fingerprint

CONFIG = tiny.change(tiny.CONFIG, model={"num_classes": 3, "groups": (0, 1, 0), "depth": 1})
NAMES = ("ant", "bee", "cow")
OLDER = Path(__file__).parents[1] / "fixtures" / "plain_artifact"


def bundle_of(seed=0, names=NAMES, config=CONFIG) -> Bundle:
    return Bundle(
        config=config, collections=jax.tree.map(np.asarray, model.init(config.model, seed)), groups=(0, 1),
        class_names=names, weights="ema", step=7, origin=Path("nowhere"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Artifacts: one, one with other learngenes, one with the same learngenes and other names."""
    folder = tmp_path_factory.mktemp("owners")
    export(bundle_of(), folder / "one")
    export(bundle_of(seed=1), folder / "other")
    export(bundle_of(names=("dog", "elk", "fox")), folder / "named")
    return folder


@pytest.fixture
def one(models, tmp_path):
    return Path(shutil.copytree(models / "one", tmp_path / "one"))


def owner_in(path: Path) -> Owner | None:
    with safetensors.safe_open(path, framework="numpy") as file:
        return from_metadata(file.metadata() or {}, path)


def learngenes(directory: Path) -> str:
    return fingerprint(open_bundle(directory).collections["learngenes"])


def test_tailors_name_their_group_classes_and_learngenes(models, tmp_path):
    for name in ("one", "other"):
        wanted = learngenes(models / name)
        found = [owner_in(models / name / f"tailors/{g}.safetensors") for g in (0, 1)]
        assert found == [
            Owner(group=0, classes=("ant", "cow"), learngenes=wanted),
            Owner(group=1, classes=("bee",), learngenes=wanted),
        ]
    assert learngenes(models / "one") != learngenes(models / "other")
    export(bundle_of(), tmp_path / "again")
    for path in models.glob("one/**/*.safetensors"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(models / "one")).read_bytes()
    export(drop(open_bundle(models / "one"), (1,)), tmp_path / "part")
    part = tmp_path / "part" / "tailors/0.safetensors"
    assert part.read_bytes() == (models / "one" / "tailors/0.safetensors").read_bytes()


def test_a_file_in_the_wrong_place_is_named(models, one):
    here, there = (learngenes(models / name)[:12] for name in ("one", "other"))
    place = one / "tailors/1.safetensors"
    for source, said in [
        ("other/tailors/1", rf"group 1 \('bee'\) of a model whose learngenes have SHA-256 {there}…"),
        ("named/tailors/1", rf"group 1 \('elk'\) of a model whose learngenes have SHA-256 {here}…"),
    ]:
        shutil.copy(models / f"{source}.safetensors", place)
        message = (
            rf"1\.safetensors says that it belongs to {said}, but here it must belong to group 1 \('bee'\) .*{here}"
        )
        with pytest.raises(UserError, match=message):
            open_bundle(one)
        open_bundle(one, classes=(0,))  # whose tailors are in order
    # Two names take more bytes than one, which is noticed before anything else, and the owner is named all the same.
    shutil.copy(models / "other/tailors/0.safetensors", place)
    with pytest.raises(UserError, match=rf"bytes, but .*it says that it belongs to group 0 \('ant', 'cow'\) .*{there}"):
        open_bundle(one, classes=(0,))


def test_a_damaged_file_is_not_taken_for_another_s(one):
    path = one / "tailors/1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"1\.safetensors has SHA-256 .*: it is damaged, or from another training"):
        open_bundle(one)
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match=r"1\.safetensors has \d+ bytes, but kind\.json says \d+\.$"):
        open_bundle(one)


def forge(directory: Path, metadata: dict[str, str] | None) -> None:
    """Give tailors other metadata, and the manifest their new sum."""
    path = directory / "tailors/1.safetensors"
    data = safetensors.numpy.save(safetensors.numpy.load_file(path), metadata)
    path.write_bytes(data)
    manifest = json.loads(sealed.read(directory / "kind.json"))
    manifest["files"]["tailors/1.safetensors"].update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    sealed.write(directory / "kind.json", manifest)


def test_metadata_is_checked_even_where_the_sum_is_right(one):
    wanted = owner_in(one / "tailors/1.safetensors")
    assert wanted is not None
    for change in ({"group": 0}, {"classes": ("bee", "\x1b[2J")}, {"learngenes": "0" * 64}):
        forge(one, to_metadata(dataclasses.replace(wanted, **change)))
        with pytest.raises(UserError, match=r"says that it belongs to group .* but here it must") as error:
            open_bundle(one)
        assert str(error.value).isprintable()
    for text, message in [
        ("{", "is damaged: it is not JSON"),
        ('{"group": 1, "group": 1}', "the key 'group' twice"),
        ('{"group": "1", "classes": [], "learngenes": ""}', "is damaged: group"),
        ("[]", "is damaged"),
    ]:
        forge(one, {"kind_jax": text})
        with pytest.raises(UserError, match=f"The metadata of .*{message}"):
            open_bundle(one)
    forge(one, {"format": "np"})
    assert open_bundle(one).groups == (0, 1)


def test_an_artifact_from_before_files_named_their_owner_opens():
    assert [owner_in(OLDER / f"tailors/{g}.safetensors") for g in (0, 1)] == [None, None]
    found = open_bundle(OLDER)
    assert found.class_names == NAMES
    assert {name: fingerprint(tree)[:16] for name, tree in found.collections.items()} == {
        "learngenes": "4a90136b2ee661be",
        "tailors": "10c3cce6ab5f937d",
        "params": "df95bd325f0dea76",
    }


def test_an_older_artifact_is_written_anew_with_owners(tmp_path):
    export(open_bundle(OLDER), tmp_path / "new")
    owner = owner_in(tmp_path / "new" / "tailors/0.safetensors")
    assert owner is not None
    assert (owner.group, owner.classes, owner.learngenes[:16]) == (0, ("ant", "cow"), "4a90136b2ee661be")
    chex.assert_trees_all_equal(open_bundle(tmp_path / "new").collections, open_bundle(OLDER).collections)
