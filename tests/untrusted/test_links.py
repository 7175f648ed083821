"""Links: to a whole artifact, and in the cache of huggingface_hub, are followed; others inside an artifact are not."""

import hashlib
import os
import shutil
from pathlib import Path

import chex
import pytest

from kind_jax.cli import main
from kind_jax.deploy.bundle import export, open_bundle
from kind_jax.errors import UserError
from kind_jax.untrusted import hub
from kind_jax.untrusted.regular import open_regular

ART = Path(__file__).parents[1] / "fixtures" / "plain_artifact"


def cached(root: Path, inside: str = "") -> Path:
    """An artifact as huggingface_hub caches it, the model card and git's settings included."""
    repository = root / "models--ann--ants"
    snapshot = repository / "snapshots" / ("f" * 40) / inside
    (repository / "blobs").mkdir(parents=True)
    files = {path.relative_to(ART).as_posix(): path.read_bytes() for path in ART.rglob("*") if path.is_file()}
    for name, data in (files | {".gitattributes": b"* lfs", "README.md": b"# Ants"}).items():
        blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def relink(path: Path, target: Path | str) -> None:
    path.unlink()
    path.symlink_to(target)


def test_a_link_to_an_artifact_opens(tmp_path):
    (tmp_path / "link").symlink_to(ART)
    chex.assert_trees_all_equal(open_bundle(tmp_path / "link").collections, open_bundle(ART).collections)
    out = tmp_path / "picture.png"
    assert main(["sample", str(tmp_path / "link"), "--out", str(out), "--steps", "1", "--classes", "1"]) == 0
    assert out.stat().st_size


@pytest.mark.parametrize("inside", ["", "models/small"])
def test_what_huggingface_hub_downloads_opens(tmp_path, inside):
    snapshot = cached(tmp_path, inside)
    chex.assert_trees_all_equal(open_bundle(snapshot).collections, open_bundle(ART).collections)
    (tmp_path / "link").symlink_to(snapshot)
    assert open_bundle(tmp_path / "link", classes=(1,)).groups == (1,)
    (snapshot / "tailors/0.safetensors").unlink()  # only a part was downloaded
    assert open_bundle(snapshot, classes=(1,)).groups == (1,)


def test_a_download_to_a_folder_opens_but_is_not_replaced(tmp_path):
    folder = Path(shutil.copytree(cached(tmp_path), tmp_path / "plain"))  # copies what the links stand for
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    assert open_bundle(folder).groups == (0, 1)
    with pytest.raises(UserError, match=r"holds '\.cache', which its kind\.json does not list"):
        export(open_bundle(ART), folder, replace=True)


def _other_repository(snapshot: Path) -> Path:
    blobs = snapshot.parents[2] / "models--bob--bees" / "blobs"
    blobs.mkdir(parents=True)
    return Path(shutil.copy(ART / "params.safetensors", blobs / "x"))


def _deeper(snapshot: Path) -> Path:
    folder = snapshot.parents[1] / "blobs" / "deep"
    folder.mkdir()
    return Path(shutil.copy(ART / "params.safetensors", folder / "x"))


def _blob_that_leaves(snapshot: Path) -> Path:
    blob = snapshot.parents[1] / "blobs" / "x"
    blob.symlink_to(ART / "params.safetensors")
    return blob


def _from_another_revision(snapshot: Path) -> Path:
    other = snapshot.parent / ("e" * 40)
    other.mkdir()
    return Path(shutil.copy(ART / "params.safetensors", other / "x"))


@pytest.mark.parametrize(
    "elsewhere",
    [
        lambda s: ART / "params.safetensors", _other_repository, _deeper, _blob_that_leaves, _from_another_revision,
        lambda s: "/dev/zero", lambda s: "params.safetensors", lambda s: "../../blobs/../../../x",
    ],
)  # fmt: skip
def test_links_that_leave_the_repository_s_blobs_are_refused(tmp_path, elsewhere):
    snapshot = cached(tmp_path)
    for name in ("params.safetensors", "README.md", "kind.json"):
        relink(snapshot / name, elsewhere(snapshot) if name == "params.safetensors" else os.readlink(snapshot / name))
    with pytest.raises(UserError, match=r"params\.safetensors is a symbolic link"):
        open_bundle(snapshot)
    with (
        pytest.raises(UserError, match="is a symbolic link"),
        open_regular(snapshot / "params.safetensors", links=False),
    ):
        pass


def test_blobs_that_are_elsewhere_or_gone(tmp_path):
    snapshot = cached(tmp_path)
    blobs = snapshot.parents[1] / "blobs"
    Path(os.path.realpath(snapshot / "params.safetensors")).unlink()
    with pytest.raises(UserError, match=r"params\.safetensors is a link to .*blobs.*no such file; download it again"):
        open_bundle(snapshot)
    shutil.copytree(snapshot.parent, tmp_path / "snapshots" / "models--x", symlinks=True)  # no repository around it
    blobs.rename(tmp_path / "blobs")
    blobs.symlink_to(tmp_path / "blobs")
    with pytest.raises(UserError, match=r"kind\.json is a symbolic link"):
        open_bundle(snapshot)


def test_a_link_that_is_changed_after_the_look_is_not_followed(tmp_path, monkeypatch):
    """Between the check and the opening, a blob, or the folder of all blobs, becomes a link to somewhere else."""
    snapshot = cached(tmp_path)
    blobs, secret = snapshot.parents[1] / "blobs", tmp_path / "secret"
    secret.mkdir()
    look = hub.blob

    def one(path):
        found = look(path)
        assert found is not None
        shutil.copy(found, secret / found.name)
        relink(found, secret / found.name)
        return found

    def whole_folder(path):
        found = look(path)
        shutil.copytree(blobs, secret / "all")
        shutil.rmtree(blobs)
        blobs.symlink_to(secret / "all")
        return found

    for race, reason in ((one, "is a symbolic link"), (whole_folder, "cannot be read")):
        monkeypatch.setattr(hub, "blob", race)
        with pytest.raises(UserError, match=reason), open_regular(snapshot / "README.md", links=False):
            pass
        monkeypatch.setattr(hub, "blob", look)
        shutil.rmtree(secret)
        secret.mkdir()
        blobs.unlink() if blobs.is_symlink() else None
        if race is one:
            shutil.rmtree(snapshot.parents[1])
            cached(tmp_path)
