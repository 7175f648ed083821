"""Whatever is wrong with an artifact, it is the model that was written or one sentence."""

import shutil
import time
import tracemalloc
from pathlib import Path

import chex
import jax
import mutate
import numpy as np
import pytest
import tiny

from kind_jax import model
from kind_jax.deploy.bundle import Bundle, export, open_bundle
from kind_jax.errors import UserError

CASES = 60
CONFIG = tiny.change(tiny.CONFIG, model={"num_classes": 3, "groups": (0, 0, 1)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fuzz") / "art"
    bundle = Bundle(
        config=CONFIG, collections=jax.tree.map(np.asarray, model.init(CONFIG.model, 0)), groups=(0, 1),
        class_names=("zero", "one", "two"), weights="ema", step=7, origin=Path("nowhere"),
    )  # fmt: skip
    export(bundle, directory)
    return directory


def snapshot(folder: Path) -> dict:
    return {p: (p.lstat().st_mtime_ns, p.lstat().st_size) for p in folder.rglob("*")}


def fuzz(whole: Path, scratch: Path, cases: int, seed: int) -> tuple[int, int]:
    """Open ``cases`` damaged copies of an artifact; returns how many were refused, and how many were whole."""
    wanted, refused, same = open_bundle(whole), 0, 0
    for case in range(cases):
        folder = scratch / f"case_{case}"
        shutil.copytree(whole, folder)
        mutate.artifact(np.random.default_rng([seed, case]), folder)
        before, start = snapshot(scratch), time.monotonic()
        tracemalloc.start()
        try:
            found = open_bundle(folder)
        except UserError as e:
            refused += 1
            text = str(e)
            assert text.isprintable(), (case, text)
            assert text.endswith("."), (case, text)
            assert len(text) < 2000, (case, text)
        else:
            same += 1
            chex.assert_trees_all_equal(found.collections, wanted.collections)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 64 << 20, f"case {case} took {peak >> 20} MiB"
        assert time.monotonic() - start < 5, f"case {case}"
        assert snapshot(scratch) == before, f"case {case} wrote something"
        shutil.rmtree(folder)
    return refused, same


def test_every_outcome_is_the_model_or_a_sentence(whole, tmp_path):
    refused, same = fuzz(whole, tmp_path, CASES, seed=0)
    assert refused + same == CASES
    assert refused > CASES // 2
