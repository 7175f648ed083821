"""Training from Python: one's own records, and listeners."""

import sys
import types

import numpy as np
import pytest
import tiny

import kind_jax as kj
from kind_jax.data import own
from kind_jax.data.own import records
from kind_jax.train.metrics import read_metrics
from kind_jax.train.run import load_config


class Pairs:
    """A map-style data set, as PyTorch has them; counts what is read."""

    def __init__(self, n=24, size=4, dtype=np.uint8):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (n, size, size, 1), dtype=np.uint8).astype(dtype)
        self.read = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read += 1
        return self.images[index], index % 2


def _config(**train):
    steps = {"steps": 4, "log_every": 1, "checkpoint_every": 2, "sample_every": 0}
    model = {"size": 4, "channels": 1, "num_classes": 2, "groups": None}
    return kj.change(tiny.TWELVE, model=model, train={**steps, **train})


def test_a_run_of_own_records_logs_to_callbacks_and_goes_on(tmp_path, monkeypatch):
    told, pairs = [], Pairs()
    data = kj.records(pairs, ["even", "odd"])
    summary = kj.fit(
        _config(), tmp_path / "run", data=data, callbacks=[lambda step, m: told.append((step, m))], stop_after=2
    )
    assert summary.step == 2
    kj.fit(_config(), tmp_path / "run", data=data, callbacks=[lambda step, m: told.append((step, m))])
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [step for step, _ in told] == [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [m["loss"] for _, m in told] == [row["loss"] for row in rows]
    assert pairs.read == len(pairs) + 1  # into memory, once

    bundle = kj.open_bundle(tmp_path / "run")
    assert bundle.class_names == ("even", "odd")
    assert bundle.sample(["odd"], seed=0).shape == (1, 4, 4, 1)
    with pytest.raises(kj.UserError, match=r"data.source is 'own': the images came from a Python program"):
        kj.fit(bundle.config, tmp_path / "run")
    others = kj.records(Pairs(n=25), ["even", "odd"])
    with pytest.raises(kj.UserError, match="content"):
        kj.fit(_config(), tmp_path / "run", data=others)

    # Read when they are needed, the same steps come out.
    monkeypatch.setattr("kind_jax.data.own.MEMORY_LIMIT", 0)
    late = Pairs()
    data = kj.records(late, ["even", "odd"])
    assert late.read == 1
    kj.fit(_config(), tmp_path / "late", data=data)
    assert [row["loss"] for row in read_metrics(tmp_path / "late" / "metrics.jsonl")] == [r["loss"] for r in rows]


def test_what_a_callback_raises_ends_the_run_which_goes_on_afterwards(tmp_path):
    def stop(step, _):
        if step == 3:
            raise RuntimeError("enough")

    data = kj.records(Pairs(), ["even", "odd"])
    with pytest.raises(RuntimeError, match="enough"):
        kj.fit(_config(), tmp_path, data=data, callbacks=[stop])
    assert kj.fit(_config(), tmp_path, data=data).step == 4
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_weights_and_biases_gets_the_curves_of_a_run_that_goes_on(tmp_path, monkeypatch):
    begun, logged = [], []

    class Run:
        def log(self, values, step):
            logged.append((step, values["loss"]))

        def finish(self):
            begun.append("finished")

    def init(**settings):
        begun.append(settings)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    data = kj.records(Pairs(), ["even", "odd"])
    kj.fit(_config(wandb="mine"), tmp_path / "run", data=data, stop_after=2)
    kj.fit(_config(wandb="mine"), tmp_path / "run", data=data)
    first, _, second, _ = begun
    assert first["project"] == "mine"
    assert first["name"] == "run"
    assert first["id"] == second["id"]
    assert first["config"]["train"]["steps"] == 4
    assert logged == [(row["step"], row["loss"]) for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]


def test_a_missing_library_of_curves_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # what an import of nothing finds
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    data = kj.records(Pairs(), ["even", "odd"])
    for settings, extra in (({"wandb": "mine"}, "wandb"), ({"tensorboard": True}, "tensorboard")):
        with pytest.raises(kj.UserError, match=rf"pip install 'kind-jax\[{extra}\]'"):
            kj.fit(_config(**settings), tmp_path / "run", data=data)
        assert not (tmp_path / "run").exists()


def test_transfer_to_own_records(tmp_path):
    data = kj.records(Pairs(), ["even", "odd"])
    kj.fit(_config(), tmp_path / "base", data=data)
    target = kj.records(Pairs(n=20), ["a", "b"])
    config = kj.transfer_config(tmp_path / "base", target, steps=2)
    assert config.transfer.method == "kind"
    kj.transfer(str(tmp_path / "base"), config, str(tmp_path / "moved"), data=target)
    base, moved = kj.open_bundle(tmp_path / "base"), kj.open_bundle(tmp_path / "moved", weights="raw")
    assert moved.class_names == ("a", "b")
    for path, leaf in kj.partition.flatten(moved.collections["learngenes"]).items():
        np.testing.assert_array_equal(leaf, kj.partition.flatten(base.collections["learngenes"])[path])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], r"len\(train\) is 0, but it must be 1 or more"),
        ([(np.zeros((4, 4), np.int32), 0)], "dtype of the image of train record 0 is 'int32'"),
        ([(np.zeros((4, 4), np.uint8), 0), (np.zeros((5, 4), np.uint8), 0)], r"record 1 has the shape \(5, 4, 1\)"),
        ([(np.zeros((4, 4), np.uint8), 2)], "label of train record 0 is 2, but it must be a whole number from 0 to 1"),
        ([(np.full((4, 4), 255.0), 0)], "image of train record 0 is '255 to 255', but it must be from -1 to 1"),
        ([np.zeros((4, 4), np.uint8)], "train record 0 is 'ndarray', but it must be an image and the number"),
        ([{"pixels": 1}], r"train record 0 is .'pixels'., but it must be with image and label"),
        ([(np.full((4, 4), np.nan), 0)], "but it must be from -1 to 1"),
    ],
)  # fmt: skip
def test_wrong_records_are_refused_by_number(given, sentence):
    with pytest.raises(kj.UserError, match=sentence):
        records(given, ["a", "b"])


def test_other_arguments_are_refused(tmp_path):
    with pytest.raises(kj.UserError, match="class_names is 'ab', but it must be a list of names"):
        kj.records(Pairs(), "ab")
    with pytest.raises(kj.UserError, match=r"shape of the images is .*, but it must be square"):
        kj.fit(_config(), tmp_path / "a", data=kj.records([(np.zeros((4, 5), np.uint8), 0)], ["a"]))
    assert not (tmp_path / "a").exists()


def test_what_the_config_says_of_reading_stays(tmp_path, monkeypatch):
    data = kj.records(Pairs(), ["even", "odd"])
    config = kj.change(_config(), data={"validation": 0.25, "flip": True, "only": ("odd",), "seed": 3})
    kj.fit(config, tmp_path / "run", data=data)
    saved = load_config(tmp_path / "run").data
    assert (saved.source, saved.validation, saved.flip, saved.only, saved.seed) == ("own", 0.25, True, ("odd",), 3)
    with own.given(data):
        train, held_out = (kj.open_dataset(saved, split) for split in ("train", "validation"))
    assert (len(train.source), len(held_out.source), train.flip) == (9, 6, True)
    assert set(train.source.labels) == {1}
    monkeypatch.setattr("kind_jax.data.own.MEMORY_LIMIT", 0)
    late = kj.records(Pairs(), ["even", "odd"])
    for name, value in (("validation", 0.25), ("only", ("odd",)), ("fraction", 0.5)):
        with pytest.raises(kj.UserError, match=rf"data.{name}.* this source's records cannot be divided"):
            kj.fit(kj.change(_config(), data={name: value}), tmp_path / "late", data=late)
