"""Inception-v3 against features recorded from torch-fidelity's network code, its layers run by NumPy in float64."""

import json
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from kind_jax.errors import UserError
from kind_jax.evaluating import inception_net
from kind_jax.evaluating.inception import load_inception

REFERENCE = np.load(Path(__file__).parents[1] / "fixtures" / "inception_reference.npz")
SHAPES = {str(n): tuple(json.loads(str(s))) for n, s in zip(REFERENCE["names"], REFERENCE["shapes"], strict=True)}


def leaf(name, shape):
    """The weights that the fixture was recorded with: they follow from their names."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("bn.weight"):
        return rng.uniform(0.7, 1.3, shape).astype(np.float32)
    if len(shape) == 1:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    return (np.sqrt(2 / np.prod(shape[1:])) * rng.standard_normal(shape, np.float32)).astype(np.float32)


def test_leaves_are_those_of_the_port_to_pytorch():
    assert inception_net.leaves() == SHAPES


def test_features_spatial_features_and_probabilities(tmp_path):
    path = tmp_path / "inception.safetensors"
    counters = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array([3])}
    safetensors.numpy.save_file({name: leaf(name, shape) for name, shape in SHAPES.items()} | counters, path)
    inception = load_inception(path)
    assert len(inception.fingerprint) == 64
    # Three images in batches of two: the last batch is filled up. The third is grey, in one channel of its own.
    object.__setattr__(inception, "batch", 2)
    images = REFERENCE["images"].astype(np.float32) / np.float32(127.5) - 1
    grey = images[:1, :, :, :1]
    found = inception(np.concatenate([images, np.repeat(grey, 3, axis=-1)]))
    assert found.spatial is not None
    assert found.probabilities is not None
    np.testing.assert_allclose(found.pool[:2], REFERENCE["pool"], atol=1e-4)
    np.testing.assert_allclose(found.spatial[:2], REFERENCE["spatial"], atol=1e-4)
    odds = np.exp(REFERENCE["logits"].astype(np.float64))  # without the bias, as ADM's Inception score
    np.testing.assert_allclose(found.probabilities[:2], odds / odds.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(inception(grey).pool, found.pool[2:])
    with pytest.raises(UserError, match="4 channels, but they must have 1 or 3"):
        inception(np.zeros((1, 8, 8, 4), np.float32))


def test_resize_is_that_of_tensorflow_1():
    found = np.asarray(inception_net.resize(jnp.asarray(REFERENCE["resize_input"].astype(np.float32))))
    assert found.shape == (1, 299, 299, 3)
    # Of 0..255; half-pixel centres or antialiasing would be off by tens.
    np.testing.assert_allclose(np.moveaxis(found[0, ::37, ::29], 2, 0), REFERENCE["resized"], atol=0.01)


def test_files_of_another_network_are_refused(tmp_path, monkeypatch):
    few = dict(list(SHAPES.items())[:6])
    monkeypatch.setattr(inception_net, "leaves", lambda: few)
    good = {name: leaf(name, shape) for name, shape in few.items()}
    path = tmp_path / "weights.npz"
    np.savez(path, **good)
    assert set(load_inception(path).weights) == set(few)
    first, second = list(few)[:2]
    cases = [
        ({n: a for n, a in good.items() if n != second}, rf"lacks '{second}', but Inception-v3 for FID needs it as"),
        (
            good | {first: good[first][:, :1]},
            r"'Conv2d_1a_3x3.conv.weight' as float32\[32, 1, 3, 3\], but",
        ),
        (good | {second: good[second].astype(np.float16)}, r"as float16\[32\], but"),
        (good | {second: good[second] * np.nan}, "not finite"),
        (good | {"AuxLogits.fc.bias": good[second]}, "has 'AuxLogits.fc.bias', but Inception-v3 for FID has no such"),
    ]
    for leaves, message in cases:
        np.savez(path, **leaves)
        with pytest.raises(UserError, match=message):
            load_inception(path)
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="is not a"):
        load_inception(path)
    np.savez(path, x=np.array([{}], dtype=object))  # would be unpickled
    with pytest.raises(UserError, match="is not a"):
        load_inception(path)
    with pytest.raises(UserError, match="no such file"):
        load_inception(tmp_path / "absent.npz")
    with pytest.raises(UserError, match=r"must be a \.safetensors or \.npz file"):
        load_inception(tmp_path / "inception.pth")
