"""Checkpoints that are damaged, incomplete or foreign: found, named, never loaded, never in the way."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from kind_jax import sealed
from kind_jax.deploy.bundle import open_bundle
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import checkpoint, history, leaves, manifest
from kind_jax.train import state as states
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics

CONFIG = tiny.TWELVE


@pytest.fixture
def copy(twelve_steps, tmp_path):
    return Path(shutil.copytree(twelve_steps, tmp_path / "run"))


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def test_every_flipped_bit_is_found_and_its_file_named(copy):
    folder, rng = copy / "checkpoints" / "12", np.random.default_rng(0)
    shutil.rmtree(copy / "checkpoints" / "4")
    shutil.rmtree(copy / "checkpoints" / "8")
    assert history.latest_good(copy / "checkpoints").step == 12
    for path in files(folder):
        for bit in rng.integers(0, path.stat().st_size * 8, 3):
            flip(path, bit)
            with pytest.raises(UserError, match=f"no good checkpoint: {path} "):
                history.latest_good(copy / "checkpoints")
            flip(path, bit)
    assert history.latest_good(copy / "checkpoints").step == 12


def test_a_damaged_step_is_set_aside_and_the_run_goes_on_from_the_one_before(copy, twelve_steps, capsys):
    damaged = next(p for p in files(copy / "checkpoints" / "12" / "optimizer") if p.parent.name == "d")
    flip(damaged, 77)
    for step in ("11", "13"):
        (copy / "checkpoints" / step).mkdir()  # Orbax would take it for a checkpoint
    assert open_bundle(copy).step == 12  # which does not read the optimizer's state
    assert train(CONFIG, copy).step == 12
    said = capsys.readouterr().out
    assert f"{copy}/checkpoints/13/manifest.json is missing. It is now 13.damaged." in said
    assert f"{damaged} has SHA-256" in said
    assert f"resuming {copy} at step 8" in said
    assert {p.name for p in (copy / "checkpoints").iterdir()} == {
        "4",
        "8",
        "12",
        *(f"{n}.damaged" for n in (11, 12, 13)),
    }
    again, before = (read_metrics(d / "metrics.jsonl") for d in (copy, twelve_steps))
    assert [(m["step"], m["loss"]) for m in again] == [(m["step"], m["loss"]) for m in before]


def test_what_an_interrupted_save_leaves_is_removed_and_does_not_count(copy):
    folder = copy / "checkpoints"
    for name in ("16.saving", "16.saving.orbax-checkpoint-tmp", "3.deleting"):
        (folder / name / "params").mkdir(parents=True)
    (folder / "16.saving-probe-0").write_text("")
    assert history.latest_good(folder).step == 12
    train(CONFIG, copy)
    assert {p.name for p in folder.iterdir()} == {"4", "8", "12"}


def test_without_any_good_checkpoint_nothing_is_begun_or_changed(copy):
    for step in ("4", "8", "12"):
        (copy / "checkpoints" / step / "manifest.json").unlink()
    before = sorted(copy.rglob("*"))
    with pytest.raises(UserError, match=r"has no good checkpoint: .*12/manifest.json is missing. .*4/manifest.json is"):
        train(CONFIG, copy)
    assert sorted(copy.rglob("*")) == before


def test_odd_names_beside_the_steps(copy):
    folder = copy / "checkpoints"
    shutil.copytree(folder / "12", folder / "0099")  # a number, but no name that a checkpoint ever had
    (folder / "12.damaged").write_text("from another time")
    next(p for p in files(folder / "12") if p.name == "commit_success.txt").write_text("wrong")
    train(CONFIG, copy)
    assert {p.name for p in folder.iterdir()} == {"0099", "4", "8", "12", "12.damaged", "12.damaged-2"}
    assert (folder / "12.damaged").read_text() == "from another time"


def test_what_cannot_be_read_now_is_not_taken_for_damaged(copy, monkeypatch):
    def refuse(path):
        error = PermissionError(13, "Permission denied")
        raise UserError(f"{str(path)!r} could not be read: Permission denied.") from error

    monkeypatch.setattr(manifest, "sha256_file", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        train(CONFIG, copy)
    assert {p.name for p in (copy / "checkpoints").iterdir()} == {"4", "8", "12"}


def test_a_run_that_goes_on_removes_the_checkpoint_that_is_being_read(copy, monkeypatch):
    """Its owner prunes while somebody samples: the next one is taken, none is called damaged."""
    folder, read = copy / "checkpoints", checkpoint._read

    def pruned(directory, step, wanted):
        if (folder / "8").is_dir() and step == 8:
            monkeypatch.setattr(checkpoint, "_read", read)
            (copy / "12").rename(folder / "12")
            (folder / "8").rename(folder / "8.deleting")
        return read(directory, step, wanted)

    (folder / "12").rename(copy / "12")
    monkeypatch.setattr(checkpoint, "_read", pruned)
    assert open_bundle(copy).step == 12


def test_files_that_do_not_belong(copy):
    folder = copy / "checkpoints" / "12"
    (folder / ".DS_Store").write_text("left behind by a file manager")
    assert history.latest_good(copy / "checkpoints").step == 12
    (folder / "params" / "extra").write_text("")
    assert "params/extra is not listed" in history.latest_good(copy / "checkpoints").refused[0]
    (folder / "params" / "extra").unlink()
    target = files(folder / "params")[0]
    (copy / "elsewhere").write_bytes(target.read_bytes())
    target.unlink()
    target.symlink_to(copy / "elsewhere")
    assert "is a link" in history.latest_good(copy / "checkpoints").refused[0]


def test_a_checkpoint_under_another_name_is_refused(copy):
    (copy / "checkpoints" / "12").rename(copy / "checkpoints" / "100")
    assert "is of step 12, but its folder is named 100" in history.latest_good(copy / "checkpoints").refused[0]


def edit_meta(run, step, change):
    """Alter what a checkpoint says, as its writer could: with a new manifest."""
    folder = run / "checkpoints" / str(step)
    path = folder / "meta" / "_strings.json"
    texts = json.loads(path.read_bytes())
    meta = json.loads(texts["json"])
    change(meta)
    path.write_text(json.dumps({**texts, "json": json.dumps(meta)}))
    (folder / "manifest.json").unlink()
    manifest.write(folder, step)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["config"]["model"].update(groups=[1, 0, *range(2, 10)]),
            r"another config: model.groups was \(1, 0",
        ),
        (lambda m: m["config"]["model"]["factor"].update(learngenes=7), "model.factor.learngenes was 7, now 6"),
        (lambda m: m["config"]["model"].update(depth=3), "model.depth was 3, now 2"),
        (lambda m: m["config"].pop("diffusion"), "12/meta: sampler.method is 'euler', but it must be"),
        (lambda m: m["sums"].update({k: 1 for k in m["sums"] if "bias" in k}), "bias did not arrive as it was saved"),
        (lambda m: m["sums"].pop("optimizer.step"), "has no checksum of the array optimizer.step"),
        (lambda m: m["fingerprint"].update(batch=9), "another input pipeline: batch was 9, now 8"),
        (lambda m: m.pop("class_names"), "has no record of this version"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(copy, change, message):
    edit_meta(copy, 12, change)
    with pytest.raises(UserError, match=message):
        train(tiny.change(CONFIG, train={"steps": 13}), copy)
    assert (copy / "checkpoints" / "12").is_dir()


def test_a_setting_that_is_newer_than_a_checkpoint_has_its_default(copy):
    edit_meta(copy, 12, lambda m: m["config"]["data"].pop("flip"))
    assert checkpoint.load_collections(copy / "checkpoints", 12, task_of(CONFIG), ["learngenes"])["learngenes"]
    flipping = tiny.change(CONFIG, data={"flip": True})
    with pytest.raises(UserError, match=r"12 was trained with another config: data.flip was False, now True"):
        checkpoint.load_collections(copy / "checkpoints", 12, task_of(flipping), ["learngenes"])


def test_another_dtype_is_refused_and_never_cast(copy):
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, "bfloat16"), states.abstract(task_of(CONFIG)).collections
    )
    with pytest.raises(UserError, match=r"learngenes: 'blocks/.*' has dtype float32, but this model needs bfloat16"):
        checkpoint._load(copy / "checkpoints", 12, CONFIG, wanted)


def test_a_collection_too_many_is_refused(copy):
    folder = copy / "checkpoints" / "12"
    shutil.copytree(folder / "params", folder / "projections")
    (folder / "manifest.json").unlink()
    manifest.write(folder, 12)
    with pytest.raises(UserError, match="holds the collection 'projections'"):
        train(tiny.change(CONFIG, train={"steps": 13}), copy)


def test_a_leaf_that_was_not_read_is_noticed(copy, monkeypatch):
    read = checkpoint._read

    def forgetful(directory, step, wanted):
        found = read(directory, step, wanted)
        if "tailors" in found:
            leaf = found["tailors"]["blocks"]["attention"]["qkv"]["s_t"]
            found["tailors"]["blocks"]["attention"]["qkv"]["s_t"] = leaf * 0
        return found

    monkeypatch.setattr(checkpoint, "_read", forgetful)
    for use in (lambda: open_bundle(copy, weights="raw"), lambda: train(CONFIG, copy)):
        with pytest.raises(UserError, match=r"tailors.blocks.attention.qkv.s_t did not arrive as it was saved"):
            use()


def test_verification_in_the_background(copy, capsys):
    later = tiny.change(CONFIG, train={"steps": 14, "verify": "background"})
    assert train(later, copy, stop_after=13).step == 13
    assert "of step 12 in the background" in capsys.readouterr().out
    flip(copy / "checkpoints" / "13" / "commit_success.txt", 8)  # loading notices damage to arrays by itself
    with pytest.raises(
        UserError, match=r"13/commit_success.txt .*damaged.* nothing was saved since; it is now 13.damaged"
    ):
        train(later, copy)
    assert train(later, copy).step == 14
    assert f"resuming {copy} at step 12" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(), (7,), (16, 3, 5), (8, 1001)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_sums_are_the_same_wherever_they_are_computed(shape, dtype):
    array = jax.numpy.asarray(100 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.PartitionSpec("x") if shape and shape[0] % 8 == 0 else jax.sharding.PartitionSpec()
    expected = leaves.on_host(np.asarray(array), [0] * array.ndim, shape, chunk=100)
    for placed in (array, jax.device_put(array, jax.sharding.NamedSharding(mesh, split))):
        assert leaves.sums({"a": placed}, "") == {"a": expected[0]}
        total = 0
        for shard in placed.addressable_shards:
            if shard.replica_id == 0:
                starts = np.array([part.start or 0 for part in shard.index], np.uint32)
                total += int(leaves.on_device(shard.data, starts, shape)[0])
        assert total % 2**32 == expected[0]
    if array.size > 1 and dtype != "bool":
        swapped = jax.numpy.asarray(np.asarray(array).reshape(-1)[::-1].reshape(shape))
        assert leaves.sums({"a": swapped}, "") != {"a": expected[0]}


def test_a_seal_covers_every_bit(tmp_path):
    data = sealed.seal({"a": 1, "names": ["ü", "sha256"]})
    assert json.loads(sealed.opened(data, tmp_path)) == {"a": 1, "names": ["ü", "sha256"]}
    for bit in range(len(data) * 8):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UserError, match="damaged or was changed by hand"):
            sealed.opened(bytes(wrong), tmp_path)
