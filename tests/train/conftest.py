"""A run that many tests start from."""

import pytest
import tiny

from kind_jax.train.loop import train


@pytest.fixture(scope="session")
def twelve_steps(tmp_path_factory):
    """A finished run of ``tiny.TWELVE``, with checkpoints of steps 4, 8 and 12; copy it before changing it."""
    directory = tmp_path_factory.mktemp("twelve") / "run"
    train(tiny.TWELVE, directory)
    return directory
