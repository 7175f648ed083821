"""What an evaluation reads back or is given: shards, records, references, judges."""

import json
import os
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from kind_jax.errors import UserError
from kind_jax.evaluating import adm, judge_file
from kind_jax.evaluating.record import check_record
from kind_jax.evaluating.reference import open_reference_file
from kind_jax.evaluating.shards import Shards, check_folder
from kind_jax.files import sweep

SETTINGS = {"model": {"size": 4, "channels": 1}, "seed": 0}


def open_shards(folder):
    return Shards.open(folder, settings=SETTINGS, labels=np.arange(5, dtype=np.int32), size=3, shape=(4, 4, 1))


def test_settings_that_were_tampered_with(tmp_path):
    open_shards(tmp_path / "out")
    path = tmp_path / "out" / "settings.json"
    for content, message in (
        (b'{"seed": 0, "seed": 1}', "has the key 'seed' twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"seed": NaN}', "it has NaN"),
        (b"\xff", "not UTF-8"),
        (b"[]", r"was begun with  \[\]"),
        (json.dumps(SETTINGS | {"\x1b[2J": 1}).encode(), r"was begun with \\x1b\[2J 1, but it is null"),
        (json.dumps(SETTINGS | {"seed": json.loads("[" * 500 + "]" * 500)}).encode(), r"was begun with seed \[\["),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            open_shards(tmp_path / "out")
        assert str(error.value).isprintable()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"settings\.json is not a file"):
        open_shards(tmp_path / "out")


def test_what_a_killed_evaluation_leaves(tmp_path):
    for name in (".lock", "judge.safetensors", ".settings.json.0123456789ab.tmp"):
        (tmp_path / name).touch()
    check_folder(tmp_path, SETTINGS)
    open_shards(tmp_path)
    (tmp_path / "shards").mkdir()
    for name in (".samples.npz.0123456789ab.tmp", "shards/.00000.npz.0123456789ab.tmp", "notes.tmp", ".x.tmp"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    sweep(tmp_path / "shards")
    left = {p.name for p in tmp_path.rglob("*")}
    assert left == {".lock", "judge.safetensors", "settings.json", "shards", "notes.tmp", ".x.tmp"}
    (tmp_path / "settings.json").unlink()
    with pytest.raises(UserError, match="holds no evaluation"):
        check_folder(tmp_path, SETTINGS)


def test_shards_that_lie(tmp_path):
    shards = open_shards(tmp_path)
    shards.write(0, np.zeros((3, 4, 4, 1), np.uint8))
    np.testing.assert_array_equal(shards.read(0), 0)
    good = {"pixels": np.zeros((3, 4, 4, 1), np.uint8), "labels": np.arange(3, dtype=np.int32)}
    for change, message in (
        ({"pixels": np.zeros((3, 4, 4, 3), np.uint8)}, r"'pixels' is uint8\[3, 4, 4, 3\], but must be"),
        ({"pixels": np.zeros((3, 4, 4, 1), np.float32)}, "must be uint8"),
        ({"labels": np.arange(3)}, r"'labels' is int64\[3\], but must be int32\[3\]"),
        ({"labels": np.ones(3, np.int32)}, "holds other images"),
    ):
        np.savez(shards.path(0), **(good | change))
        with pytest.raises(UserError, match=f"00000.npz .*{message}.*; delete it to draw its images again"):
            shards.read(0)
    os.mkfifo(shards.path(1))
    with pytest.raises(UserError, match=r"00001\.npz is not a file"):
        shards.missing()


@pytest.mark.parametrize("text", ["[1", "[]", "{}", '{"extractor": 3}', '{"extractor": {"name": 1}, "reference": []}'])
def test_records_that_are_none(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        check_record(tmp_path, "judge", None)
    (tmp_path / "evaluation.json").write_text('{"extractor": {"name": "\\u001b[2J"}, "reference": {"path": ["\\n"]}}')
    with pytest.raises(UserError, match=r"was measured by \\x1b\[2J against") as error:
        check_record(tmp_path, "judge", None)
    assert str(error.value).isprintable()


def test_references_that_lie(tmp_path):
    path, eye = tmp_path / "reference.npz", np.eye(3)
    for content, message in (
        ({"mu": np.zeros(3), "sigma": eye.astype(np.complex64)}, "sigma complex64"),
        ({"mu": np.array("text"), "sigma": eye}, "must be"),
        ({"mu": np.zeros(3), "sigma": eye, "extractor": np.array(["a", "b"])}, "not a short text"),
        ({"mu": np.zeros(3), "sigma": eye, "extractor": np.array("x" * 1000)}, "not a short text"),
        ({"arr_0": np.zeros((0, 8, 8, 3), np.uint8)}, r"arr_0 is uint8\[0, 8, 8, 3\]"),
        ({"arr_0": np.zeros((100, 512, 512, 3), np.uint8)}, "with images of 512 x 512 pixels"),
    ):
        np.savez(path, **content)
        tracemalloc.start()
        with pytest.raises(UserError, match=message) as error:
            open_reference_file(path, (8, 8, 3))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # 79 MB of images are not read
        tracemalloc.stop()
        assert str(error.value).startswith("--reference")
    np.savez(path, mu=np.zeros(3), sigma=eye, extractor="\x1b[2J")
    assert adm.read_batch(path).extractor == "\\x1b[2J"


def test_judges_that_lie(tmp_path):
    path = tmp_path / "judge.safetensors"
    for facts, message in (
        ({"shape": [8, 8, 1], "num_classes": 10**12}, "num_classes: Input should be less"),
        ({"shape": [10**12, 8, 1], "num_classes": 3}, "shape.0: Input should be less"),
        ({"shape": [16_384, 16_384, 4096], "num_classes": 10**6}, "lacks the tensor"),
        ({"shape": [16_384, 16_384, 16_384], "num_classes": 10**6}, "judge.*model.channels is 16384"),
        ({"shape": [8, 9, 1], "num_classes": 3}, "must be square"),
        ({"shape": [8, 8, 1], "num_classes": -1}, "num_classes: Input should be greater"),
        ({"shape": [8, 8, 1], "num_classes": 3, "\x1b[2J": 3}, r"x1b\[2J: Extra inputs"),
    ):
        header = {"kind_jax.judge": json.dumps(facts | {"fingerprint": "x"})}
        path.write_bytes(safetensors.numpy.save({"x": np.zeros(1)}, header))
        tracemalloc.start()
        with pytest.raises(UserError, match=message) as error:
            judge_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        tracemalloc.stop()
        assert str(error.value).isprintable()
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(1)}, {"kind_jax.judge": '{"shape": 1, "shape": 2}'}))
    with pytest.raises(UserError, match="has the key 'shape' twice"):
        judge_file.read(path)
