"""Single bits flipped in the files of a checkpoint and of an artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from chaos.outcome import Outcome
from kind_jax.deploy import artifact, card
from kind_jax.errors import UserError
from kind_jax.train import history


def trial(checkpoints: Path, exported: Path, flips: int, seed: int) -> Outcome:
    """Flip ``flips`` bits, one at a time, half of them in the newest checkpoint of a run and half in an artifact.

    A file is drawn first, then a bit of it, so that small files are met as often as large ones. What is promised: the
    file is named, every time, and without the flip everything is as before. The card of an artifact and its picture are
    left out: their owner may change them, and nothing of the model is in them.
    """
    newest = history.steps(checkpoints)[-1]

    def open_checkpoint() -> str:
        return " ".join(history.latest_good(checkpoints).refused)

    def open_artifact() -> str:
        manifest = artifact.read_manifest(exported)
        artifact.read(exported, manifest, manifest.groups)
        return ""

    own = (card.CARD, card.PICTURE)
    rng, failures, files = np.random.default_rng(seed), [], 0
    for folder, open_ in ((checkpoints / str(newest), open_checkpoint), (exported, open_artifact)):
        paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size and p.name not in own)
        files += len(paths)
        for _ in range(flips // 2):
            path = paths[rng.integers(len(paths))]
            bit = int(rng.integers(path.stat().st_size * 8))
            said = _said(path, bit, open_)
            if str(path) not in said:
                failures.append(f"bit {bit} of {path.relative_to(folder)}: {said or 'not noticed'}")
        if said := _refusal(open_):
            failures.append(f"{folder.name} is refused though nothing is flipped: {said}")
    return Outcome(cases=2 * (flips // 2), figures={"files": files}, failures=tuple(failures))


def _said(path: Path, bit: int, open_: Callable[[], str]) -> str:
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        return _refusal(open_)
    finally:
        path.write_bytes(whole)


def _refusal(open_: Callable[[], str]) -> str:
    try:
        return open_()
    except UserError as e:
        return str(e)
