import shutil

import pytest

from kind_jax.data.prepared import prepare_digits


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory):
    """A data.path with the digits prepared; tests must not change it."""
    root = tmp_path_factory.mktemp("data")
    prepare_digits(root)
    return root


@pytest.fixture
def digits_copy(digits_root, tmp_path):
    """The same, to be damaged: (data.path, folder of the digits)."""
    shutil.copytree(digits_root, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy" / "digits" / "1.0.0"
