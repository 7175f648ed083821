"""The judge as an extractor, and extractors of the user's own."""

import hashlib

import numpy as np
import pytest

from kind_jax.errors import UserError
from kind_jax.evaluating import judge_train
from kind_jax.evaluating.extractor import Extractor, Features, JudgeExtractor, MetricNames
from kind_jax.evaluating.judge import Judge
from kind_jax.evaluating.user_extractor import load_extractor

SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, *SHAPE)).astype(np.float32)

CODE = """
import numpy as np

def get_extractor():
    def features(images):
        return images.reshape(len(images), -1)[:, :7]
    features.fingerprint = "weights 1"
    return features

def wrong(): return lambda images: np.zeros((len(images) + 1, 3), np.float32)
def whole(): return lambda images: np.zeros((len(images), 3), np.int32)
def broken(): return lambda images: np.full((len(images), 3), np.nan)
def fails(): return lambda images: 1 / 0
def nothing(): return None
def crash(): raise RuntimeError("no weights")
"""


def test_the_judge():
    weights = judge_train.initial(judge_train.settings(SHAPE, 4), 0)
    judge = Judge(weights=weights, shape=SHAPE, num_classes=4, fingerprint="abc")
    extractor = JudgeExtractor(judge=judge)
    assert isinstance(extractor, Extractor)
    assert extractor.fingerprint == "abc"
    assert "fid" not in str(extractor.names)
    found = extractor(IMAGES)
    assert found.spatial is None
    assert found.probabilities is not None
    np.testing.assert_array_equal(found.pool, judge.features(IMAGES))
    np.testing.assert_array_equal(found.probabilities.argmax(axis=1), judge.predict(IMAGES))
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_file_and_a_module(tmp_path, monkeypatch):
    path = tmp_path / "my_dino.py"
    path.write_text(CODE)
    mine = load_extractor(str(path), SHAPE)
    assert isinstance(mine, Extractor)
    assert (mine.name, mine.dims, mine.names) == ("my_dino", 7, MetricNames.of("my_dino"))
    np.testing.assert_array_equal(mine(IMAGES).pool, IMAGES.reshape(5, -1)[:, :7])
    assert mine.fingerprint == hashlib.sha256(path.read_bytes() + b"weights 1").hexdigest()
    path.write_text(CODE.replace("weights 1", "weights 2"))
    assert load_extractor(str(path), SHAPE).fingerprint != mine.fingerprint

    monkeypatch.syspath_prepend(tmp_path)
    assert load_extractor("my_dino:get_extractor", SHAPE).name == "extractor"
    # Called inception, it is still not Inception.
    (tmp_path / "inception.py").write_text(CODE)
    assert load_extractor(str(tmp_path / "inception.py"), SHAPE).names.frechet == "inception_frechet"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dino", "must be judge, inception, efficientnet-lite0, a Python file, or module:function"),
        ("absent.py", "no such file exists"),
        ("no_such_module:f", "loading it failed: ModuleNotFoundError"),
        ("user_code:absent", r"it has no function absent\(\)"),
        ("user_code:crash", r"crash\(\) failed: RuntimeError: no weights"),
        ("user_code:nothing", "returned NoneType, not a callable"),
        (
            "user_code:wrong",
            r"returned pool as float32\[2, 3\] for 1 images, but it must be a float",
        ),
        ("user_code:whole", r"returned pool as int32\[1, 3\]"),
        ("user_code:broken", "not all finite"),
        ("user_code:fails", r"failed on images of shape \(1, 8, 8, 1\): ZeroDivisionError"),
    ],
)
def test_mistakes_in_the_users_code(spec, message, tmp_path, monkeypatch):
    (tmp_path / "user_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message):
        load_extractor(spec, SHAPE)


def test_features_with_more_than_one_part(tmp_path):
    path = tmp_path / "parts.py"
    path.write_text(
        "import numpy as np\nfrom kind_jax.evaluating.extractor import Features\n"
        "def get_extractor():\n"
        "    return lambda x: Features(pool=np.zeros((len(x), 3)), spatial=np.zeros((len(x), 9), np.float32))\n"
    )
    mine = load_extractor(str(path), SHAPE)
    assert mine.dims == 9
    assert isinstance(mine(IMAGES), Features)
