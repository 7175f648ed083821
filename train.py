"""Train a model: ``python train.py --config configs/digits.py --train.steps 1000``. The same as ``kind-jax train``."""

import sys

from kind_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
