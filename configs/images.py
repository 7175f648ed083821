"""KIND on your own images, in sizes that follow from the folder: ten minutes on a laptop CPU.

python train.py --config configs/images.py --data.path images

Everything can be given; what is not follows from the images (kind_jax/data/look.py): their size, whether they have
colour, their classes, and from these patch, width, tailors and steps.
"""

from collections.abc import Mapping
from typing import Any

from kind_jax.config import (
    Config,
    DataConfig,
    DiffusionConfig,
    FactorConfig,
    ModelConfig,
    OptimizerConfig,
    SamplerConfig,
    TrainConfig,
)
from kind_jax.data.folder import has_test_split
from kind_jax.data.look import look
from kind_jax.errors import UserError

LARGEST = 64  # pixels; larger images are trained on in this size unless data.size is given
TOKENS = 64  # patches of an image, at most
HELD_OUT = 0.1  # of a folder without a test split


def get_config(given: Mapping[str, Any]) -> Config:
    """The config for ``data.path``; ``given`` are the settings that the user has decided on, by their dotted names."""
    named = {name.removeprefix("data."): value for name, value in given.items() if name.startswith("data.")}
    if named.get("source", "folder") != "folder":
        raise UserError(f"data.source is {named['source']!r}, but it must be 'folder' with --config images.")
    held_out = 0.0 if has_test_split(named.get("path")) else HELD_OUT
    data = DataConfig(**{"source": "folder", "held_out": held_out, **named})
    seen = look(data)
    size = given.get("data.size") or given.get("model.size") or _size(seen.sides[1], seen.square)
    channels = given.get("data.channels") or seen.channels
    patch = given.get("model.patch") or next(
        p for p in range(1, size + 1) if size % p == 0 and (size // p) ** 2 <= TOKENS
    )
    width = given.get("model.width") or min(256, max(128, -(-patch * patch * channels // 32) * 32))
    return Config(
        model=ModelConfig(
            size=size,
            channels=channels,
            patch=patch,
            width=width,
            depth=4,
            heads=max(1, width // 32),
            num_classes=len(seen.classes),
            label_embedding=False,
            learn_sigma=False,
            scan_unroll=0,
            factor=FactorConfig(learngenes=width // 2, tailors=8),
        ),
        # Images lie in few of the dimensions that a patch of many pixels has, noise in all of them.
        diffusion=DiffusionConfig(process="flow", prediction="clean"),
        sampler=SamplerConfig(method="heun", steps=25, guidance=3.0),
        data=DataConfig(**{**named, "source": "folder", "held_out": data.held_out, "size": size, "channels": channels}),
        optimizer=OptimizerConfig(method="muon", learning_rate=2e-3, schedule="cosine", warmup=100, b2=0.99, clip=1.0),
        train=TrainConfig(
            steps=_steps((size // patch) ** 2, width),
            batch=16,
            ema=0.998,
            log_every=50,
            checkpoint_every=500,
            keep=2,
            sample_every=1000,
        ),
    )


def _size(side: int, same: bool) -> int:
    """Pixels on a side to train on, for images whose shorter side is ``side`` at the median."""
    if same and side <= LARGEST and side % 4 == 0:
        return side
    return min(LARGEST, max(8, side // 8 * 8))


def _steps(tokens: int, width: int) -> int:
    """About as many as two cores of a laptop take ten minutes for."""
    return max(1000, round(3000 * (64 * 128**2 / (tokens * width**2)) ** 0.7 / 100) * 100)
