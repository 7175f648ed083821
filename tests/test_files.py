import errno
import os
import threading

import pytest

from kind_jax import files
from kind_jax.errors import UserError


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_write_creates_parents_replaces_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a" / "b" / "out.txt"
    files.atomic_write_text(target, "first")
    files.atomic_write_text(target, "zweite ✓")
    assert target.read_text(encoding="utf-8") == "zweite ✓"
    assert names(target.parent) == ["out.txt"]


def test_full_disk_keeps_the_old_file_and_names_path_and_reason(tmp_path, monkeypatch):
    target = tmp_path / "out.bin"
    files.atomic_write_bytes(target, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"out\.bin.*No space left on device"):
        files.atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


def test_interrupt_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "out.bin"
    files.atomic_write_bytes(target, b"old")

    def interrupted(source, destination):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


def test_write_errors_are_user_errors(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"could not be written: (Not a directory|File exists)"):
        files.atomic_write_bytes(tmp_path / "file" / "x", b"")
    with pytest.raises(UserError, match="Is a directory"):
        files.atomic_write_bytes(tmp_path, b"")
    assert names(tmp_path) == ["file"]


def test_links_and_pipes_stay_what_they_are(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to("real")
    files.atomic_write_bytes(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    files.atomic_write_bytes(pipe, b"through")
    reader.join(5)
    assert got == [b"through"]
    assert pipe.is_fifo()


def test_directory_appears_only_when_whole(tmp_path):
    target = tmp_path / "deep" / "art"
    with files.atomic_directory(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_text("x")
        assert not target.exists()
    assert (target / "sub" / "x").read_text() == "x"
    assert names(target.parent) == ["art"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, UserError])
@pytest.mark.parametrize("replace", [False, True])
def test_failed_directory_leaves_no_trace(tmp_path, error, replace):
    target = tmp_path / "art"
    if replace:
        target.mkdir()
        (target / "old").touch()

    def fill_and_fail():
        with files.atomic_directory(target, replace=replace) as folder:
            (folder / "half").write_text("half")
            raise error

    with pytest.raises(error):
        fill_and_fail()
    assert names(tmp_path) == (["art"] if replace else [])
    assert not replace or names(target) == ["old"]


def test_existing_directory_is_kept_or_replaced_whole(tmp_path):
    target = tmp_path / "art"
    with files.atomic_directory(target) as folder:
        (folder / "old").touch()
    with pytest.raises(UserError, match=r"art.*exists already"), files.atomic_directory(target):
        pytest.fail("the block must not run")
    with files.atomic_directory(target, replace=True) as folder:
        (folder / "new").touch()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["art"]


def test_file_in_the_place_of_a_directory_is_never_replaced(tmp_path):
    (tmp_path / "art").write_text("precious")
    with pytest.raises(UserError, match="is a file"), files.atomic_directory(tmp_path / "art", replace=True):
        pytest.fail("the block must not run")
    assert (tmp_path / "art").read_text() == "precious"


def test_failed_swap_puts_the_old_directory_back(tmp_path, monkeypatch):
    target = tmp_path / "art"
    target.mkdir()
    (target / "old").touch()
    rename, calls = os.rename, []

    def second_fails(source, destination):
        calls.append(destination)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", second_fails)
    with (
        pytest.raises(UserError, match="Input/output error"),
        files.atomic_directory(target, replace=True) as folder,
    ):
        (folder / "new").touch()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["art"]


def test_os_error_in_the_block_names_target_and_culprit(tmp_path):
    with (
        pytest.raises(UserError, match=r"art.*No such file.*missing\.bin"),
        files.atomic_directory(tmp_path / "art"),
    ):
        (tmp_path / "missing.bin").read_bytes()


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(UserError, match=r"nope.*could not be read"):
        files.sha256_file(tmp_path / "nope")
