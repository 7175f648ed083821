"""Image classifiers of timm and torchvision from the command line, and back."""

import dataclasses
import json
import pickle
import sys
from pathlib import Path

import chex
import numpy as np
import pytest
import safetensors.numpy
from classifier_states import filled, resnet, timm_vit, torchvision_vit
from classifying import tiny_classifier as tiny

from kind_jax import model
from kind_jax.classifying.config import ClassifyRun
from kind_jax.classifying.predict import classify
from kind_jax.cli import main
from kind_jax.config.networks import ResNetConfig
from kind_jax.config.networks import resnet as resnet_config
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.errors import UserError
from kind_jax.interchange.incoming import load_diffusers
from kind_jax.interchange.incoming_classifier import load_classifier
from kind_jax.interchange.outgoing import save_classifier
from kind_jax.untrusted import tensors

VIT = timm_vit(channels=1)
NETWORKS = {"timm": timm_vit(), "torchvision": torchvision_vit(), "resnet": resnet(18, first=2)}


def write(path, names=VIT, metadata=None, **changes):
    """A state dict as a file, with arrays replaced, or left out where the value is None."""
    arrays = {k: np.ascontiguousarray(a) for k, a in (filled(names) | changes).items() if a is not None}
    safetensors.numpy.save_file(arrays, path, metadata)
    return str(path)


def arrays(path):
    return safetensors.numpy.load_file(path)


def bundle(config, names=None):
    """An untrained classifier."""
    return Bundle(
        config=ClassifyRun(model=config), collections=model.init(config, 0), groups=(0,), weights="raw", step=0,
        class_names=names or tuple(f"class {i}" for i in range(config.num_classes)), origin=Path("here"),
    )  # fmt: skip


def refused(line, message, folder, capsys):
    """Exit code 2, one sentence, and nothing new in the folder."""
    before = sorted(p.name for p in folder.rglob("*"))
    assert main(line) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)
    assert sorted(p.name for p in folder.rglob("*")) == before


@pytest.mark.parametrize("program", ["timm", "torchvision"])
@pytest.mark.parametrize("network", NETWORKS)
def test_round_trips_are_exact(program, network, tmp_path, capsys):
    """Into an artifact, out with either program's names, and in again: the same model, and at last the same file."""
    own = "timm" if network == "timm" else "torchvision"
    source, first, state, last, back = (
        str(tmp_path / n) for n in ("a.safetensors", "a", "b.safetensors", "b", "c.safetensors")
    )
    write(source, NETWORKS[network])
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    moments = ["--mean", "0.1", "0.2", "0.3", "--std", "0.4", "0.5", "0.6"]
    size = ["--size", "32"] if network == "resnet" else []
    line = [source, "--from", own, "--out", first, "--class-names", str(tmp_path / "names.txt"), *moments, *size]
    assert main(["convert", *line]) == 0
    out = capsys.readouterr().out
    assert "ResNet-18, 2 channels at first, 5" in out if size else "vision transformer, 2 blocks, width 64, 1" in out
    assert "mean 0.1 0.2 0.3, std 0.4 0.5 0.6" in out
    assert f"{sum(a.size for name, a in arrays(source).items() if 'running' not in name):,}" in out
    assert main(["export", first, "--to", program, "--out", state]) == 0
    assert f"{program} has to be told what no array tells" in capsys.readouterr().out
    assert main(["convert", state, "--from", program, "--out", last]) == 0
    a, b = open_bundle(first, kind=ClassifyRun), open_bundle(last)
    assert (a.config, a.class_names, a.weights, a.step) == (b.config, b.class_names, b.weights, b.step)
    assert a.class_names == ("ant", "bee", "cat", "dog", "eel")
    assert (a.config.data.source, a.config.data.size, a.config.data.channels) == ("folder", a.config.model.size, 3)
    assert (a.config.holdout, a.weights, a.step, a.config.model.mean) == ("test", "raw", 0, (0.1, 0.2, 0.3))
    chex.assert_trees_all_equal(a.collections, b.collections)
    assert main(["export", last, "--to", own, "--out", back]) == 0
    chex.assert_trees_all_equal(arrays(back), arrays(source))


def test_classify_evaluate_and_train_further(tmp_path, capsys):
    art, run = str(tmp_path / "art"), str(tmp_path / "run")
    (tmp_path / "names.txt").write_text("\n".join("0123456789"))
    source = write(tmp_path / "a.safetensors", timm_vit(channels=1, classes=10))
    assert main(["convert", source, "--from", "timm", "--out", art]) == 0
    found = open_bundle(art)
    assert found.class_names == tuple("0123456789")
    probabilities = classify(found, np.zeros((2, 8, 8, 1), np.float32))
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert main(["evaluate", art, "--data", "digits", "--batch", "64"]) == 0
    assert json.loads((tmp_path / "art_evaluation/evaluation.json").read_text())["images"] == 500
    assert main([
        "train", "--config", "vit_animals", "--init", art, "--head", "fresh", "--workdir", run, "--data.source",
        "digits", "--data.classes", "0", "1", "--model.num-classes", "2", "--train.steps", "1", "--train.batch", "8",
        "--train.sample-every", "1", "--optimizer.warmup", "0", "--optimizer.learning-rate", "1e-30",
    ]) == 0  # fmt: skip
    assert main(["export", run, "--weights", "best", "--to", "torchvision", "--out", f"{run}.safetensors"]) == 0
    capsys.readouterr()
    state, tuned = arrays(f"{run}.safetensors"), open_bundle(run, weights="best")
    assert state["heads.head.bias"].shape == (2,)
    blocks = [state[f"encoder.layers.encoder_layer_{i}.mlp.0.weight"] for i in range(2)]
    np.testing.assert_allclose(blocks, [filled(VIT)[f"blocks.{i}.mlp.fc1.weight"] for i in range(2)], atol=1e-6)
    again = load_classifier(f"{run}.safetensors", "torchvision")
    assert (again.config.model, again.class_names) == (tuned.config.model, ("0", "1"))
    chex.assert_trees_all_equal(again.collections, tuned.collections)


def test_what_no_array_tells_comes_back(tmp_path):
    """Heads, moments, settings of training and of precision, a ratio that was rounded; the size of a ResNet."""
    vit = dataclasses.replace(tiny.VIT, mlp_ratio=2.7, drop_path=0.1, dtype="bfloat16", remat=True)
    small = resnet_config(18, size=40, channels=4, num_classes=3, width=1 / 32, momentum=0.3)
    shown = {"size": 5, "channels": 1, "colour": True, "mean": (0.1,) * 3, "std": (0.2,) * 3}
    viewed = dataclasses.replace(vit, resolution=8, **shown), dataclasses.replace(small, resolution=40, **shown)
    for config in (*viewed, vit, small, dataclasses.replace(small, mean=(0.1,) * 4, std=(0.2,) * 4)):
        for program in ("timm", "torchvision"):
            save_classifier(whole := bundle(config), tmp_path / f"{program}.safetensors", program, replace=True)
            again = load_classifier(tmp_path / f"{program}.safetensors", program)
            assert (again.config.model, again.class_names) == (config, whole.class_names)
            chex.assert_trees_all_equal(again.collections, whole.collections)
    # What is given is for the user to decide.
    told = load_classifier(tmp_path / "timm.safetensors", "timm", size=64, mean=(0.0,) * 4, std=(1.0,) * 4)
    assert told.config.model == dataclasses.replace(config, size=64, mean=(0.0,) * 4, std=(1.0,) * 4)
    export(told, tmp_path / "art")  # the four channels are no picture's, but the artifact can be read
    assert open_bundle(tmp_path / "art").config == told.config
    save_classifier(bundle(tiny.VIT), tmp_path / "b.safetensors", "timm")
    names = tuple("abcdefghij")
    told = load_classifier(tmp_path / "b.safetensors", "timm", size=12, heads=4, interpolate=True, class_names=names)
    assert told.config.model == dataclasses.replace(tiny.VIT, size=12, heads=4)
    assert told.class_names == names


def test_another_image_size(tmp_path, capsys):
    source, art = write(tmp_path / "a.safetensors"), str(tmp_path / "art")
    line = ["convert", source, "--from", "timm", "--out", art, "--size", "12"]
    refused(line, "'pos_embed' is for images of 8 pixels, but --size is 12: --interpolate", tmp_path, capsys)
    assert main([*line, "--interpolate"]) == 0
    assert "inputs 12 x 12 x 1" in capsys.readouterr().out
    found = open_bundle(art)
    assert found.config.data.size == 12
    assert found.collections["params"]["position"].shape == (10, 64)
    refused([*line, "--interpolate"], "exists already, but --out must be", tmp_path, capsys)
    assert main([*line[:-2], "--replace"]) == 0
    assert open_bundle(art).config.model.size == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.bias": None}, "lacks the array 'head.bias'"),
        ({"norm.weight": None}, "lacks the array 'norm.weight'"),
        ({"more": np.zeros(1, np.float32)}, "holds the array 'more', which this model does not have"),
        ({"head.weight": np.zeros((64, 5), np.float32)}, "'head.weight' has shape (64, 5), but this model needs (5,"),
        ({"norm.bias": np.full(64, np.nan, np.float32)}, "'norm.bias' has numbers that are not finite"),
        ({"norm.bias": np.zeros(64)}, "'norm.bias' has dtype float64, but it must be one of"),
    ],
)  # fmt: skip
def test_bad_state_dicts(changes, message, tmp_path, capsys):
    source = write(tmp_path / "a.safetensors", **changes)
    refused(["convert", source, "--from", "timm", "--out", str(tmp_path / "art")], message, tmp_path, capsys)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("vit --from torchvision", "must be torchvision's state dict of a vision transformer"),
        ("none.safetensors --from timm", "none.safetensors is missing"),
        ("folder --from timm", "folder is a folder, but a state dict of timm is one file"),
        ("vit --from timm --heads 3", "model.heads is 3, but it must be a divisor of model.width, which is 64"),
        ("vit --from timm --size 0 --interpolate", "model.size is 0, but it must be 1 or more"),
        ("vit --from timm --size 10 --interpolate", "model.patch is 4, but it must be a divisor of model.size"),
        ("vit --from timm --interpolate", "--interpolate is given, but --size is not"),
        ("vit --from timm --mean 0.5", "--mean is given, but --std is not"),
        ("vit --from timm --std 0.5", "--std is given, but --mean is not"),
        ("vit --from timm --mean 0.5 0.5 --std 1 1", "one finite number for each of 1 channels"),
        ("vit --from timm --mean nan --std 1", "model.mean is (nan,), but it must be one finite number"),
        ("vit --from timm --mean 0 --std 0", "those of std positive"),
        ("resnet --from timm --heads 2", "--heads is 2, but resnet.safetensors is a ResNet, which has neither"),
        ("resnet --from timm --size 64 --interpolate", "--interpolate is True, but resnet.safetensors is a ResNet"),
        ("resnet --from timm --size 8", "model.size is 8, but it must be 32 or more"),
        ("vit --from timm --learngenes 4 --tailors 2", "--learngenes is '4', but it belongs to --from dit, diffusers"),
        ("vit --from timm --tailors 2", "--tailors is 2, but it belongs to --from dit, diffusers or kind"),
        ("vit --from torchvision --groups 0,1", "--groups is '0,1', but it belongs to --from dit"),
        ("vit --from timm --residual spectrum", "--residual is 'spectrum', but it belongs to --from dit"),
        ("vit --from timm --projections qkv", "--projections is ('qkv',), but it belongs to --from dit"),
        ("vit --from timm --seed 1", "--seed is 1, but it belongs to --from dit"),
        ("vit --from timm --plot x.png", "--plot is 'x.png', but it belongs to --from dit"),
        ("vit --from timm --weights ema", "--weights is 'ema', but it belongs to --from dit or kind"),
        ("vit --from timm --time-frequencies dit", "--time-frequencies is 'dit', but it belongs to --from dit"),
        ("vit --from dit --size 8", "--size is 8, but it belongs to --from timm, torchvision or efficientnet-lite0"),
        ("vit --from diffusers --mean 0.5 --std 1", "--mean is (0.5,), but it belongs to --from timm, t"),
        ("vit --from kind --interpolate", "--interpolate is True, but it belongs to --from timm or torchvision"),
        ("vit --from timm --class-names none.txt", "none.txt is missing"),
        ("vit --from timm --class-names four.txt", "--class-names has 4 class names, but vit.safetensors has 5"),
        ("vit --from timm --class-names twice.txt", "--class-names has the class name 'b' twice"),
        ("vit --from timm --class-names bell.txt", "--class-names has the class name 'a\\\\x07', but a name"),
        ("vit --from timm --class-names gap.txt", "--class-names has the class name '', but a name must be 1"),
        ("vit --from timm --class-names empty.txt", "--class-names has 0 class names"),
        ("vit --from timm --class-names latin.txt", "latin.txt is not UTF-8 text"),
    ],
)
def test_mistakes(more, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, *more = more.split()
    (tmp_path / "folder").mkdir()
    for name, text in (("four", b"a\nb\nc\nd\n"), ("twice", b"a\nb\nc\nb\nd\n"), ("bell", b"a\x07\nb\nc\nd\ne\n"),
                       ("gap", b"a\n\nc\nd\ne\n"), ("empty", b"\n"), ("latin", b"\xe4\n")):  # fmt: skip
        (tmp_path / f"{name}.txt").write_bytes(text)
    if source in ("vit", "resnet"):
        source = f"{source}.safetensors"
        write(source, VIT if source.startswith("vit") else resnet(18, first=1))
    refused(["convert", source, "--out", "art", *more], message, tmp_path, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: "[", "The metadata of a.safetensors is damaged: it is not JSON"),
        (lambda found: found.replace('"heads":', '"heads":1,"heads":'), "it has the key 'heads' twice"),
        (lambda found: found.replace('"heads"', '"necks"'), "is damaged: model.vit.necks: "),
        (lambda found: found.replace('"heads":2', '"heads":"2"'), "is damaged: model.vit.heads: "),
        (lambda found: found.replace('"heads":2', '"heads":3'), "model.heads is 3, but it must be a divisor"),
        (lambda found: found.replace('"depth":2', '"depth":1000000000'), "model.depth is 1000000000, but it must be"),
        (lambda found: found.replace('"vit"', '"cnn"'), "is damaged: model: "),
        (lambda found: found.replace('"class 1"', '"class 0"'), "has the class name 'class 0' twice"),
        (lambda found: found.replace('"class 1",', ""), "has 9 class names, but a.safetensors has 10 classes"),
        (lambda found: found.replace("class 1", "\\u001b[2J"), "has the class name '\\\\x1b[2J', but a name must be"),
        (lambda found: found.replace('"mean":null', '"mean":[1e999]'), "which is not finite"),
        (lambda found: found.replace('"mean":null', '"mean":[0.5]'), "model.std is None, but it must be given where"),
        (lambda found: json.dumps({"model": dataclasses.asdict(ResNetConfig()), "class_names": []}),
         "is damaged: model.network is 'resnet', against the arrays"),
    ],
)  # fmt: skip
def test_metadata_are_not_believed(change, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_classifier(bundle(tiny.VIT), "a.safetensors", "timm")
    found = tensors.look(tmp_path / "a.safetensors").metadata["kind_jax"]
    changed = change(found)
    assert changed != found
    safetensors.numpy.save_file(arrays("a.safetensors"), "a.safetensors", {"kind_jax": changed})
    refused(["convert", "a.safetensors", "--from", "timm", "--out", "art"], message, tmp_path, capsys)


def test_metadata_cannot_contradict_the_arrays(tmp_path):
    """Of what arrays tell, nothing is taken from elsewhere."""
    save_classifier(bundle(tiny.VIT), tmp_path / "a.safetensors", "timm")
    found = json.loads(tensors.look(tmp_path / "a.safetensors").metadata["kind_jax"])
    found["model"] |= {"size": 4096, "depth": 900, "width": 600, "num_classes": 7, "qkv_bias": False, "mlp_ratio": 9}
    state = arrays(tmp_path / "a.safetensors")
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors", {"kind_jax": json.dumps(found)})
    assert load_classifier(tmp_path / "a.safetensors", "timm").config.model == tiny.VIT


@pytest.mark.parametrize(
    ("config", "program", "message"),
    [
        (tiny.KIND, "timm", "model.gate is 'superclass', but it must be 'none' for timm"),
        (dataclasses.replace(tiny.RESNET, stages=None), "timm", "model.depth is 20, but it must be 18, 34 or 50"),
        (tiny.CNN, "torchvision", "model.network is 'cnn', but it must be 'vit' or 'resnet'"),
        (dataclasses.replace(tiny.VIT, pool="mean"), "torchvision", "model.pool is 'mean', but it must be 'token'"),
        (resnet_config(18, size=32, width=0.02), "timm", "model.width is 0.02, but it must be a multiple of 1/64"),
    ],
)
def test_networks_that_the_programs_lack(config, program, message, tmp_path, capsys):
    groups = tuple(range(config.num_groups))
    export(dataclasses.replace(bundle(config), groups=groups), tmp_path / "art")
    refused(
        ["export", str(tmp_path / "art"), "--to", program, "--out", str(tmp_path / "a.safetensors")],
        message, tmp_path, capsys,
    )  # fmt: skip


def test_kinds_are_not_mixed(tmp_path, capsys):
    classifier, denoiser = str(tmp_path / "classifier"), str(tmp_path / "denoiser")
    export(bundle(tiny.VIT), classifier)
    export(load_diffusers(Path(__file__).parents[1] / "fixtures/diffusers_reference"), denoiser)
    for source, form, message in (
        *((classifier, form, "is of the kind 'classification'") for form in ("dit", "diffusers", "stablehlo")),
        *((denoiser, form, "is of the kind 'diffusion'") for form in ("timm", "torchvision")),
    ):
        refused(["export", source, "--to", form, "--out", str(tmp_path / "x.safetensors")], message, tmp_path, capsys)
    line = ["convert", classifier, "--from", "kind", "--learngenes", "2", "--tailors", "1", "--out"]
    refused([*line, str(tmp_path / "x")], "is of the kind 'classification'", tmp_path, capsys)
    with pytest.raises(UserError, match="is of the kind 'diffusion'"):
        save_classifier(open_bundle(denoiser), tmp_path / "x.safetensors", "timm")
    # One kind's file is not the other's, whatever the metadata.
    save_classifier(open_bundle(classifier), tmp_path / "a.safetensors", "timm")
    line = ["convert", str(tmp_path / "a.safetensors"), "--from", "dit", "--out", str(tmp_path / "x")]
    refused(line, "so it is not the state dict of a DiT", tmp_path, capsys)


def test_export_replaces_its_own_alone(tmp_path, capsys):
    art, state = str(tmp_path / "art"), tmp_path / "a.safetensors"
    export(bundle(tiny.VIT), art)
    line = ["export", art, "--to", "timm", "--out", str(state)]
    refused([*line, "--classes", "1"], "--classes is given, but a state dict for timm has all", tmp_path, capsys)
    refused([*line[:-1], str(tmp_path / "a.pt")], "must end in .safetensors", tmp_path, capsys)
    refused([*line[:-1], str(tmp_path / "art/a.safetensors")], "lies inside the artifact", tmp_path, capsys)
    assert main(line) == 0
    capsys.readouterr()
    refused(line, "exists already, but --out must be new", tmp_path, capsys)
    assert main([*line, "--replace"]) == 0
    write(state, torchvision_vit())
    capsys.readouterr()
    refused([*line, "--replace"], "holds no network with timm's names, so it is not replaced", tmp_path, capsys)


def test_nothing_is_left_when_writing_fails(tmp_path, capsys, monkeypatch):
    def fail(*args, **settings):
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    source = write(tmp_path / "a.safetensors")
    assert main(["convert", source, "--from", "timm", "--out", str(tmp_path / "art")]) == 0
    monkeypatch.setattr(safetensors.numpy, "save", fail)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert main(["convert", source, "--from", "timm", "--out", str(tmp_path / "x")]) == 2
    assert main(["export", str(tmp_path / "art"), "--to", "timm", "--out", str(tmp_path / "x.safetensors")]) == 2
    assert capsys.readouterr().err.count("No space left") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_pickles_are_pytorchs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # import torch raises ImportError
    (tmp_path / "a.pth").write_bytes(pickle.dumps({}))
    line = ["convert", str(tmp_path / "a.pth"), "--from", "torchvision", "--out", str(tmp_path / "art")]
    refused(line, "pip install 'kind-jax[torch]'", tmp_path, capsys)


def test_a_pickle_with_code_is_not_run(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pt").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    refused(["convert", "a.pt", "--from", "timm", "--out", "art"], "a.pt", tmp_path, capsys)


def test_checkpoints_of_pytorch(tmp_path, capsys):
    """A state dict with BatchNorm's counters, alone and as a training script of torchvision saves it."""
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(a) for name, a in filled(resnet(18, first=2)).items()}
    state["bn1.num_batches_tracked"] = torch.tensor(3)
    found = []
    for name, saved in (("a.pt", state), ("b.pth", {"model": state, "epoch": 3, "args": None})):
        torch.save(saved, tmp_path / name)
        art = str(tmp_path / f"{name}.art")
        assert main(["convert", str(tmp_path / name), "--from", "torchvision", "--out", art]) == 0
        found.append(open_bundle(art).collections)
    chex.assert_trees_all_equal(*found)
    capsys.readouterr()
