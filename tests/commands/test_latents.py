"""kind-jax latents: what it writes, that it goes on where it was, and that a run trains on it."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
import vaes
from command_lines import changed
from PIL import Image

from kind_jax import cli
from kind_jax.config import Config, DataConfig, change
from kind_jax.data import latent_files
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.manifest import without_path
from kind_jax.vae import encode, load_vae, save_vae


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return vaes.save(tmp_path_factory.mktemp("vae") / "vae")


@pytest.fixture(scope="module")
def command(vae):
    """Arguments that encode some digits in five shards a split."""
    return ["latents", "--vae", str(vae), "--batch", "4", "--shard-records", "20", "--limit", "90"]


@pytest.fixture(scope="module")
def encoded(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("latents") / "out"
    assert cli.main([*command, "--out", str(out)]) == 0
    return out


def content(root):
    """Every file by its path below root, but for locks."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != ".lock"}


def test_latents_are_those_of_the_autoencoder(encoded, vae, capsys):
    index = latent_files.read_index(encoded)
    assert (index.image_shape, index.shape, index.dtype) == ((8, 8, 1), (4, 4, 4), "float16")
    assert index.class_names == tuple("0123456789")
    loaded = load_vae(vae)
    assert index.vae.fingerprint == loaded.fingerprint
    for split in ("train", "test"):
        assert [shard.records for shard in index.splits[split].shards] == [20, 20, 20, 20, 10]
        pixels = open_dataset(DataConfig(), split).source.gather(range(90))
        latents = open_dataset(DataConfig(source="latents", path=str(encoded)), split)
        assert latents.class_names == index.class_names
        moments, labels, _ = latents.source.moments(np.arange(90))
        np.testing.assert_array_equal(labels, pixels["label"])
        colour = np.repeat(pixels["image"], 3, axis=-1)
        for way, images in enumerate((colour, colour[:, :, ::-1])):
            for number, wanted in enumerate(encode(loaded.config, loaded.params, jnp.asarray(images))):
                np.testing.assert_allclose(moments[:, way, number], wanted, rtol=2e-3, atol=2e-3)
        assert np.abs(moments[:, 0] - moments[:, 1]).max() > 0.1
        mean, logvar = moments[:, :, 0].astype(np.float64), moments[:, :, 1].astype(np.float64)
        found = index.splits[split]
        np.testing.assert_allclose(found.mean, 0.18215 * mean.mean(), rtol=1e-3, atol=1e-6)
        std = 0.18215 * np.sqrt(mean.var() + np.exp(logvar).mean())
        np.testing.assert_allclose(found.std, std, rtol=1e-3)
    assert (encoded / "reconstructions.png").is_file()


# XLA:CPU of jaxlib 0.12 rounds a convolution of another batch on each device differently in the last bit.
DEVICES = "1" if tuple(map(int, jaxlib.__version__.split(".")[:2])) < (0, 12) else "8"


def test_a_killed_run_goes_on_and_writes_the_same_bytes(command, encoded, tmp_path):
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-m", "kind_jax", *command, "--out", str(out)], stdout=subprocess.DEVNULL,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": DEVICES, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # as in tests
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while len(list(out.glob("train/*.json"))) < 2 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = {
        path: path.stat().st_mtime_ns for path in out.glob("t*/*.array_record") if path.with_suffix(".json").is_file()
    }
    assert len(done) >= 2
    (out / "train" / ".00004-of-00005.array_record.0123456789ab.tmp").touch()  # what a kill at the wrong time leaves
    first = min(done)
    os.truncate(first, first.stat().st_size - 1)  # a shard that is not what it was is made anew
    assert cli.main([*command, "--out", str(out)]) == 0
    # One device before, eight now and in the other folder.
    assert content(out) == content(encoded)
    assert {path: path.stat().st_mtime_ns for path in done if path != first} == {
        k: v for k, v in done.items() if k != first
    }


def test_hosts_share_the_work_and_the_last_one_finishes(command, encoded, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert cli.main([*command, "--out", str(out), "--part", "1/2"]) == 0
    said = "whoever finishes last writes latents.json, and shards are missing: 3 of train, 3 of test\n"
    assert said in capsys.readouterr().out
    assert sorted(p.name[:5] for p in out.glob("train/*.array_record")) == ["00001", "00003"]
    assert cli.main(["train", "--config", "configs/digits.py", "--workdir", str(tmp_path / "run"),
                     "--data.source", "latents", "--data.path", str(out)]) == 2  # fmt: skip
    assert "no latents.json" in capsys.readouterr().err
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    assert cli.main([*command, "--out", str(out)]) == 0
    assert content(out) == content(encoded)


def test_another_encoding_is_refused_and_a_split_can_be_added(command, encoded, tmp_path, capsys):
    before = content(encoded)

    def refused(*args):
        assert cli.main(changed([*command, "--out", encoded], *args)) == 2
        assert content(encoded) == before
        return capsys.readouterr().err

    other = vaes.save(tmp_path / "other", seed=1)
    assert "holds latents of something else: vae.fingerprint differs" in refused("--vae", str(other))
    assert "dtype was 'float16', now 'float32'" in refused("--dtype", "float32")
    assert "splits.train.records was 90, now 80" in refused("--split", "train", "--limit", "80")
    assert "class_names" in refused("--data.source", "glyphs")
    assert "shard_records was 20, now 30" in refused("--shard-records", "30")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    assert "not empty and holds no latents" in refused("--out", str(tmp_path / "full"))

    out = tmp_path / "out"
    assert cli.main([*command, "--out", str(out), "--split", "test"]) == 0
    with pytest.raises(ValueError, match=r"which has latents of test only; kind-jax latents --split train adds"):
        open_dataset(DataConfig(source="latents", path=str(out)), "train")
    assert cli.main([*command, "--out", str(out), "--split", "train"]) == 0
    assert list(latent_files.read_index(out).splits) == ["test", "train"]
    for name in ("train/00002-of-00005.array_record", "test/labels.bin"):
        assert (out / name).read_bytes() == before[name]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--vae", "None"], "--vae is missing"),
        (["--out", "None"], "--out is missing"),
        (["--batch", "0"], ": --batch is 0"),
        (["--part", "2/2"], "--part is '2/2'"),
        (["--split", "val"], "--split is 'val'"),
        (["--data.source", "latents"], "data.source is 'latents', but"),
        (["--vae", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(command, tmp_path, capsys, args, message):
    assert cli.main(changed([*command, "--out", tmp_path / "out"], *args)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_images_that_do_not_fit_or_cannot_be_read(command, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(30):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i:02}.png")
    (images / "05.png").write_bytes(b"nothing")
    data = ["--data.source", "folder", "--data.path", str(images), "--out", str(tmp_path / "out")]
    assert cli.main([*command, *data, "--data.size", "13", "--data.skip-bad", "0.1"]) == 2
    assert "images are 13 x 13 pixels (data.size), but the VAE needs multiples of 2" in capsys.readouterr().err
    assert cli.main([*command, *data, "--data.size", "8"]) == 2
    assert "data.skip_bad is 0.01, but 1 of the 30 records (3.33%)" in capsys.readouterr().err
    assert cli.main([*command, *data, "--data.size", "8", "--data.skip-bad", "0.1", "--split", "train"]) == 0
    assert f"skipped: {images / '05.png'}: it is no JPEG" in capsys.readouterr().out
    index = latent_files.read_index(tmp_path / "out")
    assert (index.class_names, index.splits["train"].records) == (("images",), 29)


def test_folders_stay_out_of_artifacts():
    for source, kept in (("latents", None), ("tfds", None), ("digits", None), ("folder", "here")):
        config = change(Config(), data={"source": source, "name": "x", "path": "/mine/here", "vae": "/there"})
        assert without_path(config).data == dataclasses.replace(config.data, path=kept, vae=None)


def test_a_run_trains_on_latents(encoded, vae, tmp_path, capsys):
    workdir = tmp_path / "run"
    args = [
        "train", "--config", "chaos/config.py", "--workdir", str(workdir), "--data.source", "latents",
        "--data.path", str(encoded), "--data.flip", "--train.steps", "4",
    ]  # fmt: skip
    assert cli.main([*args, "--model.size", "8", "--model.channels", "1"]) == 2
    assert "has (4, 4, 4), latents of images (8, 8, 1)" in capsys.readouterr().err
    args += ["--model.size", "4", "--model.channels", "4", "--model.patch", "2"]
    assert cli.main([*args, "--stop-after", "2"]) == 0
    moved = shutil.copytree(encoded, tmp_path / "moved")
    args[args.index(str(encoded))] = str(moved)
    assert cli.main([*args, "--data.vae", str(vae)]) == 0  # the same records elsewhere
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(np.isfinite(row["loss"]) for row in rows)
    wrong = tmp_path / "wrong"
    save_vae(dataclasses.replace(vaes.CONFIG, scaling_factor=0.5), vaes.weights(), wrong)
    message = (
        "scaling_factor 0.5 and shift_factor 0.0, but the model was trained on latents that were made with 0.18215"
    )
    for line in (args, ["sample", str(workdir), "--vae", str(wrong)]):
        given = ["--data.vae", str(wrong)] if line is args else []
        assert cli.main([*line, *given]) == 2
        assert message in capsys.readouterr().err


def test_a_damaged_file_is_made_anew(command, encoded, tmp_path, capsys):
    copy = shutil.copytree(encoded, tmp_path / "copy")
    damaged = copy / "train" / "00002-of-00005.array_record"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:999] + bytes([whole[999] ^ 1]) + whole[1000:])
    assert cli.main([*command, "--out", str(copy)]) == 0
    assert "train: 4 of 5 shards are there already" in capsys.readouterr().out
    assert content(copy) == content(encoded)
