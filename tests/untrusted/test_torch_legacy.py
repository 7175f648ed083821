"""PyTorch's old files, put together by hand: read without PyTorch, and what lies in them."""

import struct

import ml_dtypes
import numpy as np
import pytest

from kind_jax.errors import UserError
from kind_jax.interchange import torch_file
from kind_jax.untrusted import torch_legacy

START, DICTIONARY = b"\x80\x02", b"ccollections\nOrderedDict\n)R"
MAGIC = START + b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
NUMBERS = np.arange(6, dtype=np.float32)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(values):
    return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in values) + b"t"


def tensor(name, shape, strides, *, offset=0, key="0", elements=6, kind="FloatStorage"):
    storage = text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    storage = b"(" + storage + b"J" + struct.pack("<i", elements) + b"NtQ"
    rest = b"J" + struct.pack("<i", offset) + numbers(shape) + numbers(strides) + b"\x89" + DICTIONARY
    return text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def content(*tensors, storages=None, found=None, order=b"\x88", version=1001):
    """A file of these tensors over these storages by key."""
    storages = {"0": NUMBERS} if storages is None else storages
    machine = START + b"}" + text("little_endian") + order + b"s."
    found = START + DICTIONARY + b"(" + b"".join(tensors) + b"u." if found is None else found
    keys = START + b"](" + b"".join(map(text, storages)) + b"e."
    head = MAGIC + START + b"M" + struct.pack("<H", version) + b"." + machine + found + keys
    return head + b"".join(struct.pack("<q", a.size) + a.tobytes() for a in storages.values())


@pytest.fixture
def at(tmp_path):
    def write(data):
        path = tmp_path / "x.pth"
        path.write_bytes(data)
        return path

    return write


def test_tensors_are_views_of_storages(at):
    half = np.asarray([1.5, -2], np.float16)
    short = np.asarray([1.5, 3], ml_dtypes.bfloat16)
    path = at(content(
        tensor("whole", (2, 3), (3, 1)), tensor("turned", (3, 2), (1, 3)), tensor("last", (2,), (1,), offset=4),
        tensor("one", (), (), offset=2), tensor("none", (0, 7), (7, 1)),
        tensor("half", (2,), (1,), key="h", elements=2, kind="HalfStorage"),
        tensor("short", (2,), (1,), key="b", elements=2, kind="BFloat16Storage"),
        tensor("a.num_batches_tracked", (1,), (1,), key="i", elements=1, kind="LongStorage"),
        storages={"0": NUMBERS, "h": half, "b": short, "i": np.asarray([7])},
    ))  # fmt: skip
    assert torch_legacy.is_legacy(path)
    found = torch_legacy.read(path)
    wanted = {
        "whole": NUMBERS.reshape(2, 3), "turned": NUMBERS.reshape(2, 3).T, "last": NUMBERS[4:], "one": NUMBERS[2],
        "none": np.zeros((0, 7), np.float32), "half": half, "short": short, "a.num_batches_tracked": np.asarray([7]),
    }  # fmt: skip
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_state_dict_needs_no_torch(at, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    path = at(content(tensor("w", (2, 3), (3, 1)), tensor("n", (1,), (1,), key="i", elements=1, kind="LongStorage"),
                      storages={"0": NUMBERS, "i": np.asarray([7])}))  # fmt: skip
    np.testing.assert_array_equal(torch_file.read(path, skip=("n",))["w"], NUMBERS.reshape(2, 3))
    with pytest.raises(UserError, match="'n' has dtype int64, but it must be float32, float16 or bfloat16"):
        torch_file.read(path)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is read by PyTorch, which is not installed"):
        torch_file.read(path)


W = tensor("w", (2, 3), (3, 1))
HOSTILE = {
    "code": (content(found=START + b"cos\nsystem\n(" + text("touch y") + b"tR."), "for the Python object 'os.system'"),
    "a class": (content(found=START + b"cos\nsystem\n)\x81."), "has the instruction NEWOBJ, which no tensor needs"),
    "other keys": (content(found=START + DICTIONARY + b"(K\x01K\x02u."), "is damaged: ValueError"),
    "no tensors": (content(text("w") + b"K\x01"), "holds something else than a state dict"),
    "a checkpoint": (content(text("model") + DICTIONARY + b"(" + W + b"u"), "holds something else than a state dict"),
    "a view of one number": (content(tensor("w", (2**30, 2**30), (0, 0))), "'w' has a shape, but too few numbers"),
    "beyond the end": (content(tensor("w", (2,), (1,), offset=5)), "'w' has a shape, but too few numbers"),
    "backwards": (content(tensor("w", (2,), (-1,), offset=5)), "'w' has a shape, but too few numbers"),
    "fewer strides": (content(tensor("w", (2, 3), (1,))), "'w' has a shape, but too few numbers"),
    "two sizes": (content(tensor("w", (2,), (1,), elements=7)), "it ends within its tensors, or tells two sizes"),
    "an end within": (content(W)[:-1], "it ends within its tensors"),
    "no storage": (content(W, storages={}), "is damaged: KeyError"),
    "strange storage": (content(tensor("w", (2,), (1,), kind="QInt8Storage")), "is damaged: KeyError"),
    "big-endian": (content(W, order=b"\x89"), "before version 1.6 on today's machines"),
    "another version": (content(W, version=1002), "before version 1.6 on today's machines"),
    "only a beginning": (MAGIC, "is damaged"),
    "no mark": (content(found=START + b"t."), "is damaged: ValueError"),
    "an empty stack": (content(found=START + b"."), "is damaged: IndexError"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_damaged_is_refused(name, at, tmp_path):
    data, message = HOSTILE[name]
    with pytest.raises(UserError, match=message):
        torch_legacy.read(at(data))
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_every_cut_and_every_flipped_byte_is_refused_or_read(at):
    whole = content(W)
    for i in range(len(whole)):
        for data in (whole[:i], whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :]):
            try:
                found = torch_legacy.read(at(data))
            except UserError:
                continue
            assert all(a.size <= 6 for a in found.values())
