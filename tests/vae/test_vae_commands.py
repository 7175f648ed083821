"""Decoding in the commands: a latent model and a VAE give pictures."""

import json

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from kind_jax import sampling
from kind_jax.cli import main
from kind_jax.config import MeshConfig
from kind_jax.deploy import artifact
from kind_jax.deploy.bundle import open_bundle
from kind_jax.diffusing import samples
from kind_jax.errors import UserError
from kind_jax.images import grid
from kind_jax.train.run import differences
from kind_jax.train.sharding import make_mesh
from kind_jax.vae import VaeConfig, decode_in_batches, init, load_vae, pictures, save_vae

CONFIG = tiny.change(tiny.CONFIG, model={"channels": 4, "size": 8}, sampler={"steps": 2})
VAE = VaeConfig(block_out_channels=(4, 4), norm_num_groups=2)
NAMES = [str(c) for c in range(10)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A latent model, its VAE, one of other latents, and one that does not give pictures."""
    folder = tmp_path_factory.mktemp("models")
    config = tiny.change(CONFIG, data={"vae": str(folder / "vae")})
    artifact.write(
        folder / "art", config=config, collections=tiny.weights(CONFIG.model), groups=range(10), class_names=NAMES,
        weights="ema", step=4,
    )  # fmt: skip
    for name, vae in (
        ("vae", VAE),
        ("other", VaeConfig(block_out_channels=(4, 4), norm_num_groups=2, latent_channels=3)),
        ("flat", VaeConfig(block_out_channels=(4, 4), norm_num_groups=2, out_channels=2)),
    ):
        save_vae(vae, init(vae, 0), folder / name)
    return folder


def test_a_model_that_is_passed_on_does_not_say_where_the_vae_was(models):
    assert str(models) not in (models / "art" / "kind.json").read_text()
    assert open_bundle(models / "art").config.data.vae is None


def test_sample(models, capsys):
    out = models / "out.png"
    args = ["sample", str(models / "art"), "--classes", "3,7", "--rows", "2", "--out", str(out)]
    assert main([*args, "--vae", str(models / "vae")]) == 0
    vae = load_vae(models / "vae")
    assert f"decoded by the VAE {models / 'vae'} (SHA-256 {vae.fingerprint[:12]}" in capsys.readouterr().out
    latents = open_bundle(models / "art", classes=(3, 7)).sample(np.array([3, 7, 3, 7], np.int32), seed=0)
    wanted = grid(decode_in_batches(vae, latents), 2, scale=3)
    assert wanted.shape == (98, 98, 3)
    found = np.asarray(Image.open(out))
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert found.std() > 0

    assert main(args) == 0
    assert "the grid shows 3 of 4 channels; --vae DIR decodes" in capsys.readouterr().out
    assert np.asarray(Image.open(out)).shape == (98, 98, 3)  # 8 pixels, enlarged 6 times
    assert np.abs(np.asarray(Image.open(out)).astype(int) - found).max() > 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "with latents of 3 channels, but they must be the 4 that the model draws"),
        ("flat", "with images of 2 channels, but pictures have 1 or 3"),
        ("nowhere", "is no folder of a VAE"),
        ("art", "is no folder of a VAE"),
    ],
)
def test_a_vae_that_does_not_fit_is_refused_at_once(models, name, message, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sampling, "draw", None)
    for verb, out in (("sample", "out.png"), ("evaluate", "out")):
        args = [verb, str(models / "art"), "--vae", str(models / name), "--out", str(tmp_path / out)]
        assert main(args) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_evaluate(models, tmp_path, monkeypatch, capsys):
    code = tmp_path / "corner.py"
    code.write_text("def get_extractor():\n    return lambda x: x[:, 3:5, 3:5, 0].reshape(len(x), -1)\n")
    real = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "real.npz", arr_0=real)
    out = tmp_path / "out"
    args = [
        "evaluate",
        str(models / "art"),
        "--count",
        "20",
        "--batch",
        "8",
        "--extractor",
        str(code),
        "--out",
        str(out),
    ]
    with_file = [*args, "--reference", str(tmp_path / "real.npz"), "--vae"]
    assert main([*with_file, str(models / "vae")]) == 0
    record = json.loads((out / "evaluation.json").read_text())
    assert record["samples"]["vae"] == {"sha256": load_vae(models / "vae").fingerprint}
    assert record["metrics"]["corner_frechet"] > 0
    with np.load(out / "samples.npz") as file:
        pixels = file["arr_0"]
    assert pixels.shape == (20, 16, 16, 3)
    assert len(np.unique(pixels.reshape(20, -1), axis=0)) == 20

    monkeypatch.setattr(sampling, "draw", None)
    assert main([*with_file, str(models / "vae")]) == 0  # nothing is left to be drawn
    again = models / "again"
    save_vae(VAE, init(VAE, 1), again)
    capsys.readouterr()
    assert main([*with_file, str(again)]) == 2
    assert "was begun with vae.sha256" in capsys.readouterr().err
    assert main(args) == 2
    assert (
        "the model draws 4 channels, but metrics need images in grey or RGB; of latents, --vae"
        in capsys.readouterr().err
    )
    assert main([*args, "--vae", str(models / "vae")]) == 2
    assert "the model draws images of shape (16, 16, 3), but those of the data set" in capsys.readouterr().err


def test_latents_are_not_taken_for_real_images(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sampling, "draw", None)
    artifact.write(
        models / "latents", config=tiny.change(CONFIG, data={"source": "latents"}),
        collections=tiny.weights(CONFIG.model), groups=range(10), class_names=NAMES, weights="ema", step=4,
    )  # fmt: skip
    code = tmp_path / "mean.py"
    code.write_text("def get_extractor():\n    return lambda x: x.mean(axis=(1, 2))\n")
    args = ["evaluate", str(models / "latents"), "--vae", str(models / "vae"), "--out", str(tmp_path / "out")]
    assert main(args) == 2
    assert "--extractor is judge, which learns from real images, but" in capsys.readouterr().err
    assert main([*args, "--extractor", str(code)]) == 2
    assert "holds latents, but real images are needed; give --data or --reference" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_vae_of_a_run(models):
    config = tiny.change(CONFIG, data={"vae": str(models / "vae")})
    assert pictures.choose(None, CONFIG) is None
    found = pictures.choose(None, config)
    assert found is not None
    assert found.origin == models / "vae"
    pictures.check(config)
    gone = tiny.change(CONFIG, data={"vae": str(models / "gone")})
    assert pictures.choose(None, gone) is None  # a run that was copied from elsewhere is sampled all the same
    with pytest.raises(UserError, match="is no folder of a VAE"):
        pictures.check(gone)
    other = tiny.change(CONFIG, data={"vae": str(models / "other")})
    for refuse in (pictures.check, lambda c: pictures.choose(None, c)):
        with pytest.raises(UserError, match=r"^data\.vae is .* with latents of 3 channels"):
            refuse(other)
    assert differences(CONFIG, config) == []


def test_the_grids_of_a_run(models, tmp_path, capsys):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    weights = tiny.weights(CONFIG.model)
    shapes = {}
    for name in ("vae", "other"):
        path = tmp_path / f"{name}.png"
        samples.save_samples(tiny.change(CONFIG, data={"vae": str(models / name)}), weights, mesh, path)
        shapes[name] = np.asarray(Image.open(path)).shape
    assert shapes["vae"] == (6 * 48 + 10, 10 * 48 + 18, 3)
    assert shapes["other"] == shapes["vae"]
    assert "samples are not decoded: data.vae is" in capsys.readouterr().err
    pair = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("vae", "other")]
    blocks = [a[:48, :48].reshape(8, 6, 8, 6, 3) for a in pair]
    assert not (blocks[0] == blocks[0][:, :1, :, :1]).all()  # 16 pixels, enlarged 3 times
    assert (blocks[1] == blocks[1][:, :1, :, :1]).all()  # 8 pixels, enlarged 6 times
