"""docs/tutorial.py runs from top to bottom, at small size."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.py"


@pytest.mark.slow
def test_every_cell_runs_and_draws(tmp_path, monkeypatch):
    monkeypatch.setenv("KIND_TUTORIAL_OUT", str(tmp_path))
    monkeypatch.setenv("KIND_TUTORIAL_STEPS", "20")
    monkeypatch.setenv("KIND_TUTORIAL_DEPTH", "1")
    cells = runpy.run_path(str(TUTORIAL))
    for name, rows in (("knowledge", 4), ("composed", 4), ("novel", 2), ("grown", 4)):
        picture = np.asarray(Image.open(tmp_path / f"{name}.png"))
        assert picture.shape[0] == rows * 50 - 2
        assert picture.std() > 10
    assert cells["grown"].class_names == tuple("0123456789")
    # What the text says: folding is exact, and smaller budgets are kept.
    np.testing.assert_allclose(cells["rows"][1], cells["rows"][0], atol=1e-4)
    assert cells["composed"].after.parameters <= 90_000
