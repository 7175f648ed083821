"""Safetensors headers that lie."""

import json
import os
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from kind_jax.errors import UserError
from kind_jax.untrusted import tensors
from kind_jax.untrusted.info import Info

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 4), np.int64), "c": np.array(True)}


def header(**entries) -> bytes:
    found = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}} | entries
    return json.dumps({name: entry for name, entry in found.items() if entry is not None}).encode()


def data(text: bytes, content: bytes = bytes(8), count: int | None = None) -> bytes:
    return (len(text) if count is None else count).to_bytes(8, "little") + text + content


def entry(**changes) -> bytes:
    return header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes)


HOSTILE = {
    "empty": (b"", "it has 0 bytes"),
    "no header": (b"\x01", "it has 1 bytes"),
    "header beyond the end": (data(header(), count=10**6), "which its header does not fit in"),
    "header of exabytes": (data(header(), count=2**63), "which its header does not fit in"),
    "header above the limit": (data(b" " * 100_000_001), "which its header does not fit in"),
    "not JSON": (data(b"{"), "it is not JSON"),
    "a list": (data(b"[]"), "its header is no object"),
    "deep": (data(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "it is nested too deeply"),
    "UTF-16": (data(header().decode().encode("utf-16")), "it is not UTF-8"),
    "an array twice": (data(header()[:-1] + b',"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'), "key 'a' twi"),
    "a field twice": (data(header().replace(b'"shape"', b'"dtype": "F32", "shape"')), "has the key 'dtype' twice"),
    "a huge integer": (data(header().replace(b"[2]", b"[" + b"9" * 5000 + b"]")), "an integer of 5000 digits"),
    "unknown dtype": (data(entry(dtype="F31")), "its array 'a' has the dtype F31"),
    "no text as dtype": (data(entry(dtype=["F32"])), "its array 'a' has the dtype"),
    "negative": (data(entry(shape=[-2])), r"its array 'a' has the shape \[-2\]"),
    "both negative": (data(entry(shape=[-2, -1])), "its array 'a' has the shape"),
    "true": (data(entry(shape=[True, 2])), "its array 'a' has the shape"),
    "too many dimensions": (data(entry(shape=[1] * 70 + [2])), "its array 'a' has the shape"),
    "larger than it is": (data(entry(shape=[10**12])), r"is float32\[1000000000000\], but lies at \[0, 8\]"),
    "larger than the file": (data(entry(shape=[10**12], data_offsets=[0, 4 * 10**12])), "take 4000000000000 bytes"),
    "beyond all": (data(entry(shape=[2**40, 2**40], data_offsets=[0, 2**61])), "but lies at"),
    "backwards": (data(entry(data_offsets=[8, 0])), "but lies at"),
    "before the beginning": (data(entry(data_offsets=[-8, 0])), "but lies at"),
    "three offsets": (data(entry(data_offsets=[0, 8, 8])), "but lies at"),
    "overlap": (data(header(b={"dtype": "F32", "shape": [1], "data_offsets": [4, 8]})), "overlap, or leave gaps"),
    "the same place": (data(header(b={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})), "overlap"),
    "a gap": (data(header(b={"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}), bytes(16)), "overlap, or leave"),
    "more at the end": (data(header(), bytes(12)), "its arrays take 8 bytes, but it has 12 for them"),
    "less": (data(header(), bytes(4)), "its arrays take 8 bytes, but it has 4 for them"),
    "surplus field": (data(entry(strides=[1])), "its array 'a' has other fields"),
    "no object": (data(header(b=3)), "its array 'b' has other fields"),
    "metadata": (data(header(__metadata__={"x": 1})), "its __metadata__ is not text by name"),
    "a name that commands": (data(header(**{"\x1b[2J\n": 3})), r"its array '\\x1b\[2J\\n' has other fields"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_headers_that_lie_are_refused_for_nothing(kind, tmp_path):
    content, message = HOSTILE[kind]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    for use in (lambda: tensors.load(content, path), lambda: tensors.read(path), lambda: tensors.look(path)):
        with pytest.raises(UserError, match=message) as error:
            use()
        assert str(path) in str(error.value)
        assert str(error.value).isprintable()
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


def test_what_the_library_writes_is_read_by_the_library(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(ARRAYS, path, {"kind": "of"})
    assert tensors.look(path) == (
        {"kind": "of"},
        {"a": Info((2, 3), "float32"), "b": Info((0, 4), "int64"), "c": Info((), "bool")},
    )
    for found in (tensors.read(path), tensors.load(path.read_bytes(), path)):
        assert set(found) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
    safetensors.numpy.save_file({}, path)
    assert tensors.read(path) == {}


def test_an_array_of_another_shape_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    text = entry(shape=[10**11], data_offsets=[0, 4 * 10**11])
    path.write_bytes(data(text, b""))
    os.truncate(path, 8 + len(text) + 4 * 10**11)  # a file with a hole: 400 GB, and none on the disk

    def check(found):
        if found.arrays["a"] != Info((2,), "float32"):
            raise UserError(f"a is {found.arrays['a']}.")

    tracemalloc.start()
    with pytest.raises(UserError, match=r"a is float32\[100000000000\]"):
        tensors.read(path, check)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
