"""Zip files and array headers that lie."""

import io
import os
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from kind_jax.errors import UserError
from kind_jax.untrusted import arrays
from kind_jax.untrusted.info import Info


def npy(descr="'<f4'", shape="(2,)", content=bytes(8), text=None, version=b"\x01\x00", count=None) -> bytes:
    if text is None:
        text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    body = text.encode() + b"\n"
    width = 2 if version[0] == 1 else 4
    return b"\x93NUMPY" + version + (len(body) if count is None else count).to_bytes(width, "little") + body + content


def packed(*members, how=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=how)
    return buffer.getvalue()


def one(**settings) -> bytes:
    return packed(("a.npy", npy(**settings)))


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([{}], dtype=object))
    return packed(("a.npy", buffer.getvalue()))


def encrypted() -> bytes:
    content = bytearray(one())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    return bytes(content)


def patched(old: bytes, new: bytes) -> bytes:
    content = one()
    assert old in content
    return content.replace(old, new)


HOSTILE = {
    "empty": (b"", "is not a zip file"),
    "text": (b"PK\x03\x04 and nothing", "is not a zip file"),
    "cut": (one()[:-30], "is not a zip file"),
    "a lone array": (npy(), "is not a zip file"),
    "pickled objects": (pickled(), "its 'a' is of object, not of plain numbers"),
    "a structure": (one(descr="[('x', '<f4'), ('y', '<f4')]", shape="(1,)"), "not of plain numbers"),
    "objects in a structure": (one(descr="[('x', '|O')]", shape="(1,)"), "not of plain numbers"),
    "void": (one(descr="'|V4'"), "not of plain numbers"),
    "dates": (one(descr="'<M8[ns]'", shape="(1,)"), "not of plain numbers"),
    "an array in an array": (one(descr="('<f4', (1000000, 1000000))", shape="(1,)"), "damaged header|plain numbers"),
    "terabytes": (one(shape="(1000000000000,)"), r"its 'a' is float32\[1000000000000\], but has 8 bytes"),
    "beyond all": (one(shape="(4611686018427387903, 4611686018427387903)"), "but has 8 bytes"),
    "nothing of something": (one(shape="(0, 4611686018427387903)"), "but has 8 bytes"),
    "negative": (one(shape="(-2,)"), "has the shape"),
    "both negative": (one(shape="(-2, -1)"), "has the shape"),
    "true": (one(shape="(True, 2)"), "has the shape"),
    "many dimensions": (one(shape=f"({'1, ' * 65}2)"), "has the shape|damaged header"),
    "code": (one(text="__import__('os').mkdir('owned')"), "has a damaged header"),
    "deep": (one(text="(" * 4000 + ")" * 4000), "has a damaged header"),
    "more fields": (one(text="{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}"), "a damaged header"),
    "a long header": (one(text="{" + " " * 20_000 + "}"), "has a header of 20002 bytes|header of 20003 bytes"),
    "a header of gigabytes": (one(version=b"\x02\x00", count=2**32 - 1), "has a header of 4294967295 bytes"),
    "a header beyond the end": (one(count=9000), "damaged header"),
    "another version": (one(version=b"\x09\x00"), "its 'a' is no array"),
    "no array": (packed(("a.npy", b"import os")), "its 'a' is no array"),
    "too short": (one(content=bytes(4)), "but has 4 bytes"),
    "too long": (one(content=bytes(12)), "but has 12 bytes"),
    "an array twice": (packed(("a.npy", npy()), ("b.npy", npy()), ("a.npy", npy())), "it has 'a' twice"),
    "an array twice, one without ending": (packed(("a.npy", npy()), ("a", npy())), "it has 'a' twice"),
    "a bomb": (
        packed(("a.npy", npy(shape="(10000000,)", content=bytes(40_000_000))), how=zipfile.ZIP_DEFLATED),
        r"its 'a' grows from \d+ to 400000\d\d bytes",
    ),
    "encrypted": (encrypted(), "its 'a' is encrypted"),
    "LZMA": (packed(("a.npy", npy()), how=zipfile.ZIP_LZMA), "compressed in a way that NumPy does not use"),
    "another content than its checksum": (patched(bytes(8), bytes(7) + b"\x01"), "Bad CRC-32"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_files_that_lie_are_refused_for_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = HOSTILE[kind]
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match=f"(?i){message}") as error:
        arrays.read(path, ["a"])
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert str(path) in str(error.value)
    assert str(error.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_a_zip_directory_that_lies(tmp_path):
    """Sizes in the directory that the file does not have: zip's own checks, or the comparison with the header."""
    path = tmp_path / "x.npz"
    content, mark = one(shape="(10000000000,)"), b"PK\x01\x02"
    place, size = content.index(mark), (10**10 * 4 + 100) % 2**32
    path.write_bytes(content[: place + 24] + size.to_bytes(4, "little") + content[place + 28 :])
    tracemalloc.start()
    with pytest.raises(UserError, match=r"x\.npz"):
        arrays.read(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_what_numpy_writes_is_read(tmp_path):
    wanted = {
        "a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "e": np.zeros((0, 3)), "s": np.array("héllo"), "b": np.arange(3, dtype=">i4"), "z": np.array(True),
    }  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **wanted)
        found = arrays.read(tmp_path / "x.npz")
        assert set(found) == set(wanted)
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
    assert arrays.look(tmp_path / "x.npz", ["s", "absent"]) == {"s": Info((), "<U5")}
    assert set(arrays.read(tmp_path / "x.npz", ["a", "absent"])) == {"a"}


def test_what_is_not_as_expected_is_not_read(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(packed(("a.npy", npy(shape="(1000, 1000)", content=bytes(4_000_000)))))
    assert arrays.read(path, expect={"a": ((None, 1000), "float32")})["a"].shape == (1000, 1000)
    tracemalloc.start()
    for expect, message in (
        ({"a": ((None, 8), "float32")}, r"its 'a' is float32\[1000, 1000\], but must be float32\[\*, 8\]"),
        ({"a": ((1000, 1000), "uint8")}, r"must be uint8\[1000, 1000\]"),
        ({"b": ((2,), "uint8")}, r"it lacks 'b', which must be uint8\[2\]"),
    ):
        with pytest.raises(UserError, match=message):
            arrays.read(path, expect=expect)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"x\.npz is not a file"):
        arrays.read(tmp_path / "x.npz")
