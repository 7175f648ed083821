"""A training set from a model: the same bit for bit after a kill, on any number of devices, and when it grows."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
import vaes
from PIL import Image

import kind_jax
from kind_jax import partition
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import DataConfig
from kind_jax.config.networks import ViTConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.data.mix import RECIPE, STATE
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.evaluating.pixels import quantise
from kind_jax.synthesis import store as stores
from kind_jax.synthesis.blocks import ROWS, Block, Drawer
from kind_jax.synthesis.make import synthesize
from kind_jax.vae import load_vae

CONFIG = tiny.change(tiny.CONFIG, sampler={"steps": 2, "guidance": 1.5})
NAMES = tuple("abcdefghij")
BUNDLE = Bundle(
    config=CONFIG, collections=tiny.weights(CONFIG.model, 0.05), groups=tuple(range(10)), class_names=NAMES,
    weights="ema", step=7, origin=Path("somewhere/model"),
)  # fmt: skip
CLASSES = (7, 1)
COUNT = ROWS + 8  # a block, and a part of one


def draw(folder, **changes):
    wanted = {"bundle": BUNDLE, "per_class": COUNT, "classes": CLASSES, "seed": 3}
    return synthesize(directory=folder, **(wanted | changes))


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "train").rglob("*")) if p.is_file()}


def recipe(folder):
    found = json.loads((folder / RECIPE).read_text())
    return {k: v for k, v in found.items() if k not in ("seconds", "sha256")}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthesis") / "out"
    draw(folder)
    return folder


def test_the_folder_is_a_data_set_and_says_how_it_was_made(straight, monkeypatch):
    assert sorted(p.name for p in straight.iterdir() if not p.name.startswith(".")) == ["samples.png", RECIPE, "train"]
    data = open_dataset(DataConfig(source="folder", path=str(straight), size=8, channels=1), "train")
    assert (data.class_names, data.counts, data.image_shape) == (("b", "h"), (COUNT, COUNT), (8, 8, 1))
    found = recipe(straight)
    assert found["weights"] == {
        "which": "ema", "ema_rate": CONFIG.train.ema, "step": 7, "sha256": partition.fingerprint(BUNDLE.collections),
    }  # fmt: skip
    assert found["sampler"] == dataclasses.asdict(CONFIG.sampler)
    assert (found["model_name"], found["seed"], found["per_class"], found["images"]) == ("model", 3, COUNT, 2 * COUNT)
    assert found["classes"]["h"] == {"number": 7, "images": COUNT, "drawn": COUNT, "share": 1.0}
    assert str(straight.parent) not in (straight / RECIPE).read_text()
    # Who else is drawn does not matter: a class alone has the same images, and no two images are the same.
    pixels = quantise(data.source.gather(range(2 * COUNT))["image"])
    assert len(np.unique(pixels.reshape(2 * COUNT, -1), axis=0)) == 2 * COUNT
    (_, own), *_ = Drawer(drawing(BUNDLE), jax.devices()[:1])([Block(7, 0)])
    np.testing.assert_array_equal(own, pixels[COUNT : COUNT + ROWS])
    # A complete folder is left as it is.
    before = {p: p.stat().st_mtime_ns for p in straight.rglob("*") if p.is_file()}
    monkeypatch.setattr(Drawer, "__init__", None)
    assert draw(straight)["images"] == 2 * COUNT
    assert {p: p.stat().st_mtime_ns for p in straight.rglob("*") if p.is_file()} == before


def drawing(bundle, **changes):
    from kind_jax.evaluating.generate import Drawing

    return Drawing(bundle=bundle, sampler=CONFIG.sampler, classes=CLASSES, seed=3, **changes)


def test_a_kill_at_any_moment_changes_nothing(straight, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    real, written = stores.atomic_write_bytes, []
    for moment in (1, 10, ROWS + 3, COUNT + 1):

        def kill(path, data, moment=moment):
            written.append(path)
            if len(written) >= moment:
                raise KilledError
            real(path, data)

        with monkeypatch.context() as patch:
            written.clear()
            patch.setattr(stores, "atomic_write_bytes", kill)
            with pytest.raises(KilledError):
                draw(tmp_path / "out")
        assert not (tmp_path / "out" / RECIPE).exists()
    draw(tmp_path / "out", devices=jax.devices()[:3])  # goes on elsewhere
    assert files(tmp_path / "out") == files(straight)
    assert recipe(tmp_path / "out") == recipe(straight)


def test_neither_devices_nor_number_nor_other_classes_change_an_image(straight, tmp_path):
    assert jax.device_count() == 8
    draw(tmp_path / "few", per_class=10, classes=("h",), devices=jax.devices()[:1])
    wanted = files(straight)
    few = files(tmp_path / "few")
    assert len(few) == 10
    assert few.items() <= wanted.items()
    # It grows where it lies: the first ten stay.
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "few" / "train").rglob("*.png")}
    found = draw(tmp_path / "few", per_class=COUNT, classes=("h",), devices=jax.devices()[:2])
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items())
    assert files(tmp_path / "few") == {name: data for name, data in wanted.items() if name.startswith("train/h/")}
    assert (found["per_class"], found["classes"]["h"]["images"]) == (COUNT, COUNT)
    # An image that has got lost is drawn again.
    (tmp_path / "few" / "train" / "h" / "00000003.png").unlink()
    draw(tmp_path / "few", per_class=COUNT, classes=("h",))
    assert files(tmp_path / "few").items() <= wanted.items()
    assert len(files(tmp_path / "few")) == COUNT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "was begun with seed 3, but it is 4 now"),
        ({"sampler": dataclasses.replace(CONFIG.sampler, guidance=2.0)}, r"sampler.guidance 1\.5, but it is 2\.0"),
        ({"sampler": dataclasses.replace(CONFIG.sampler, steps=3)}, "sampler.steps 2, but it is 3"),
        ({"bundle": dataclasses.replace(BUNDLE, collections=tiny.weights(CONFIG.model, 0.06))}, "weights.sha256"),
        ({"classes": (1,)}, r"classes \[7, 1\], but it is \[1\]"),
        ({"per_class": 5}, f"per_class {COUNT}, but it is 5 now, which must not be less"),
    ],
)
def test_a_folder_that_was_begun_otherwise_is_refused(straight, changes, message):
    before = files(straight)
    with pytest.raises(UserError, match=f"{message}.* use another --out"):
        draw(straight, **changes)
    assert files(straight) == before


def test_impossible_requests_are_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    bundles = {
        name: dataclasses.replace(BUNDLE, class_names=(*NAMES[:7], name, *NAMES[8:]))
        for name in ("a/b", ".", ".hidden", "ä" * 150, "b")
    }
    some = dataclasses.replace(
        BUNDLE,
        groups=(1, 2),
        collections={**BUNDLE.collections, "tailors": partition.select(BUNDLE.collections["tailors"], (1, 2))},
    )
    inside = dataclasses.replace(
        BUNDLE, config=tiny.change(CONFIG, data={"source": "folder", "path": str(tmp_path), "size": 8})
    )
    huge = dataclasses.replace(BUNDLE, collections=jax.tree.map(lambda a: a * 1e30, BUNDLE.collections))
    for changes, message in (
        ({"directory": tmp_path / "thesis"}, "exists, but kind-jax synthesize did not begin it; use another --out"),
        ({"per_class": 0}, "per_class is 0, but it must be a whole number, 1 or more"),
        ({"attempts": 3}, "attempts is 3, but it must be None without a classifier"),
        ({"seed": -1}, "seed is -1"),
        ({"classes": (11,)}, "class is 11"),
        ({"bundle": some}, "class is 7, but its tailors are not loaded"),
        ({"sampler": dataclasses.replace(CONFIG.sampler, method="ddim")}, "'euler' or 'heun' for the flow process"),
        ({"bundle": bundles["a/b"]}, "the class 'a/b', but to be the name of a folder it must have no slash"),
        ({"bundle": bundles["."]}, "no dot in front"),
        ({"bundle": bundles[".hidden"]}, "no dot in front"),
        ({"bundle": bundles["ä" * 150]}, "at most 255 bytes"),
        ({"bundle": bundles["b"]}, "has 2 classes named 'b', whose images would go to one folder"),
        ({"bundle": inside}, "inside data.path of the model, .*: what is drawn would become real images"),
    ):
        with pytest.raises(UserError, match=message):
            synthesize(
                **({"bundle": BUNDLE, "directory": tmp_path / "out", "per_class": 2, "classes": CLASSES} | changes)
            )
    assert [p.name for p in tmp_path.rglob("*")] == ["thesis", "thesis.tex"]
    with pytest.raises(UserError, match="NaN or infinite"):
        draw(tmp_path / "out", bundle=huge)
    assert not list(tmp_path.rglob("*.png"))


def classifier(names, seed=0):
    """An untrained one, whose opinion is still the same every time."""
    model = ViTConfig(size=8, channels=1, patch=4, width=16, depth=1, heads=2, num_classes=len(names))
    return Bundle(
        config=ClassifyRun(model=model, data=DataConfig(source="digits")), weights="raw", step=1,
        collections=jax.tree.map(np.asarray, tiny.weights(model, 0.5, seed)), groups=(), class_names=names,
        origin=Path("nets/judge"),
    )  # fmt: skip


def test_only_images_are_kept_on_which_a_classifier_agrees(straight, tmp_path):
    names = ("x", "h", "b")  # in an order of its own
    judge = classifier(names)
    wanted = files(straight)
    pixels = {name: np.stack([np.asarray(Image.open(straight / path)) for path in wanted if f"/{name}/" in path])
              for name in "bh"}  # fmt: skip
    seen = {
        name: np.flatnonzero(
            np.concatenate([
                kind_jax.classify(judge, own[part, ..., None].astype(np.float32) / np.float32(127.5) - np.float32(1))
                for part in (slice(0, ROWS), slice(ROWS, COUNT))
            ]).argmax(-1) == names.index(name)
        )
        for name, own in pixels.items()
    }  # fmt: skip
    often = max(seen, key=lambda name: len(seen[name]))
    rare = min(seen, key=lambda name: len(seen[name]))
    count = len(seen[often]) // 2
    assert count > 2
    found = draw(tmp_path / "out", classes=(often,), per_class=count, agree=judge, attempts=20)
    kept = [f"train/{often}/{number:08}.png" for number in seen[often][:count]]
    assert files(tmp_path / "out") == {name: wanted[name] for name in kept}
    drawn = int(seen[often][count - 1]) + 1
    assert found["classes"][often] == {
        "number": NAMES.index(often), "images": count, "drawn": drawn, "share": count / drawn
    }  # fmt: skip
    sha256 = partition.fingerprint(judge.collections)
    assert found["agree"] == {
        "classifier": "judge", "weights": "raw", "step": 1, "sha256": sha256, "share": count / drawn
    }  # fmt: skip
    more = draw(tmp_path / "out", classes=(often,), per_class=count + 2, agree=judge, attempts=20)
    assert more["images"] == count + 2
    assert {name: wanted[name] for name in kept}.items() <= files(tmp_path / "out").items()
    with pytest.raises(UserError, match=r"was begun with agree\.sha256"):
        draw(tmp_path / "out", classes=(often,), per_class=count + 2, agree=classifier(names, 1), attempts=20)
    # One that seldom agrees: the class and the rate are named, and what was drawn stays for more attempts.
    few = len(seen[rare][seen[rare] < 20])
    with pytest.raises(
        UserError, match=rf"of 20 images that were drawn of '{rare}', .* in {few} \({few / 20:.1%}\), but"
    ):
        draw(tmp_path / "rare", classes=(rare,), per_class=20, agree=judge, attempts=1)
    assert not (tmp_path / "rare" / RECIPE).exists()
    assert (tmp_path / "rare" / STATE).is_dir()


def test_a_classifier_that_does_not_fit_is_refused(tmp_path):
    large = classifier(("b", "h"))
    large = dataclasses.replace(large, config=tiny.change(large.config, model={"size": 16}))
    for judge, message in (
        (BUNDLE, "agree is of the kind 'diffusion'"),
        (classifier(("b", "c")), "one class of each name that is drawn, but of 'h' it has 0"),
        (classifier(("b", "h", "h")), "of 'h' it has 2"),
        (large, r"the classifier 'judge' is for images \(16, 16, 1\), but those that are drawn are \(8, 8, 1\)"),
    ):
        with pytest.raises(UserError, match=message):
            draw(tmp_path / "out", agree=judge)
    with pytest.raises(UserError, match="bundle is of the kind 'classification'"):
        draw(tmp_path / "out", bundle=classifier(("b", "h")))
    assert not list(tmp_path.iterdir())


def test_latents_are_decoded_to_pictures(tmp_path):
    vae = load_vae(vaes.save(tmp_path / "vae"))
    channels = vae.config.latent_channels
    config = tiny.change(CONFIG, model={"channels": channels}, sampler={"guidance": 1.0})
    latent = dataclasses.replace(BUNDLE, config=config, collections=tiny.weights(config.model))
    with pytest.raises(UserError, match=rf"draws {channels} channels, .* the autoencoder that made them"):
        draw(tmp_path / "out", bundle=latent)
    found = draw(tmp_path / "out", bundle=latent, vae=vae, per_class=3, classes=(1,))
    side = 8 * vae.config.factor
    assert found["image_shape"] == [side, side, 3]
    assert found["vae"] == {"sha256": vae.fingerprint}
    with Image.open(tmp_path / "out" / "train" / "b" / "00000002.png") as image:
        assert (image.size, image.mode) == ((side, side), "RGB")
