"""Settings of classifiers that are refused."""

import dataclasses

import pytest

from classifying import tiny_classifier as tiny
from kind_jax.errors import UserError


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"holdout": "test"}, "holdout is 'test', but it must be 'validation'"),
        ({"smoothing": 1.0}, "smoothing is 1.0"),
        ({"source": "me"}, "source is 'me'"),
        (
            {"model": tiny.RESNET, "train": dataclasses.replace(tiny.run().train, batch=1)},
            "train.batch is 1, but it must be 2 or more, since BatchNorm normalises by the batch",
        ),
    ],
)
def test_impossible_settings(settings, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(tiny.run(), **settings)
