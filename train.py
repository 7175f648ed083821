"""Train a model: ``python train.py --config configs/digits.py --train.steps 1000``. The same as ``kind-jax train``."""

import sys

from kind_jax.cli import main
from kind_jax.interrupts import leave

if __name__ == "__main__":
    leave(main(["train", *sys.argv[1:]]))
