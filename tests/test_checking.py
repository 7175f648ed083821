"""The checks that all tests run under find a wrong axis, a wrong dtype and a wrong class."""

import jax.numpy as jnp
import pytest

from kind_jax.losses import cross_entropy, kd
from kind_jax.partition import groups_in
from kind_jax.train.run import load_config


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (cross_entropy, (jnp.ones((2, 3)), jnp.ones((2, 4)))),  # one name, two sizes
        (cross_entropy, (jnp.ones((2, 3)), jnp.ones((2, 3), int))),
        (kd, (jnp.ones((2, 3)), jnp.ones((2, 3)), "warm")),
        (load_config, (3,)),
        (groups_in, (7,)),
    ],
)
def test_what_is_annotated_is_checked(function, arguments):
    with pytest.raises(Exception, match=r"(?i)type-check error|violates type hint"):
        function(*arguments)


def test_what_fits_is_computed():
    assert cross_entropy(jnp.zeros((2, 3)), jnp.ones((2, 3))).shape == (2,)
