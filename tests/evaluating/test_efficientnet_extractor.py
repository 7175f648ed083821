"""EfficientNet-Lite0 as an extractor, with arrays that are filled, not trained."""

import classifier_states
import jax
import numpy as np
import pytest
import safetensors.numpy

from kind_jax.errors import UserError
from kind_jax.evaluating.efficientnet import load_extractor
from kind_jax.evaluating.extractor import Extractor
from kind_jax.files import sha256_file


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = {name: np.ascontiguousarray(a) for name, a in classifier_states.filled_efficientnet(classes=7).items()}
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    safetensors.numpy.save_file(found, path)
    return path


def test_features(path, optimised):
    extractor = load_extractor(path)
    assert isinstance(extractor, Extractor)
    assert extractor.fingerprint == sha256_file(path)
    assert extractor.names.frechet == "FD-EfficientNet-Lite0"
    assert not any("fid" in name.lower() for name in (extractor.name, *vars(extractor.names).values()))
    few = type(extractor)(settings=extractor.settings, weights=extractor.weights, fingerprint="x", batch=2)
    grey = np.random.default_rng(0).uniform(-1, 1, (3, 28, 28, 1)).astype(np.float32)
    found = few(grey)
    assert (found.pool.shape, found.spatial, found.probabilities) == ((3, extractor.dims), None, None)
    np.testing.assert_allclose(few(np.repeat(grey, 3, axis=-1)).pool, found.pool, rtol=1e-4, atol=1e-4)
    large = np.asarray(jax.image.resize(grey, (3, 224, 224, 1), "bilinear"))
    np.testing.assert_allclose(few(large).pool, found.pool, rtol=1e-2, atol=1e-2)
    assert few(grey[:0]).pool.shape == (0, 1280)
    with pytest.raises(UserError, match="images of 4 channels, but they must have 1 or 3"):
        few(np.zeros((1, 8, 8, 4), np.float32))


def test_other_weights_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"conv1.weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(UserError, match=r"has no array '_conv_stem.weight', but it must be the state dict"):
        load_extractor(path)
