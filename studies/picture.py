"""The picture of the README: real images, samples, learngenes alone, and a wrong class's tailors, side by side.

python studies/picture.py runs/digits docs/digits.png
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import open_bundle
from kind_jax.evaluating.diversion import draw
from kind_jax.images import grid, save_png

ROWS, GAP = 5, 18


def main(run: Annotated[Path, tyro.conf.Positional], out: Annotated[Path, tyro.conf.Positional]) -> None:
    bundle = open_bundle(run)
    classes = bundle.config.model.num_classes
    labels = np.tile(np.arange(classes, dtype=np.int32), ROWS)
    source = open_dataset(bundle.config.data, "train").source
    records = source.gather(np.arange(len(source)))
    real = np.stack([records["image"][records["label"] == c][row] for row in range(ROWS) for c in range(classes)])
    panels = [real]
    for condition in ("complete", "learngenes_only", "wrong_tailors"):
        panels.append(draw(bundle.config, bundle.collections, condition, labels, seed=0))
    pictures = [grid(images, classes, scale=3) for images in panels]
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    save_png(out, np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1))


if __name__ == "__main__":
    tyro.cli(main)
