"""KIND at the published sizes of DiT, trained as DiT is (Peebles & Xie 2023, section 4)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from kind_jax.config.diffusion import DiffusionConfig, SamplerConfig
from kind_jax.config.factored import FactorConfig
from kind_jax.config.model import dit
from kind_jax.config.run import Config
from kind_jax.config.training import CollectionConfig, DataConfig, OptimizerConfig, TrainConfig
from kind_jax.config.transfer import TransferConfig

# Classes of ImageNet-1K, or of a protocol on it (docs/classes.md).
_CLASSES = {None: 1000, "kind-611": 611, "kind-base": 150, "kind-novel": 461}


def published(name: str, **model: Any) -> Config:
    """The run of a size like ``XL/2``: 150 classes, bfloat16, and DiT's AdamW at a constant rate without decay.

    By default learngenes are half the width, and the tailors of a group 5/64 of it.
    """
    settings: dict[str, Any] = {
        "num_classes": 150,
        "dtype": "bfloat16",
        "factor": FactorConfig(projections=("qkv", "o", "mlp_in", "mlp_out")),
    }
    return Config(
        model=dit(name, **(settings | model)),
        diffusion=DiffusionConfig(process="gaussian"),
        sampler=SamplerConfig(method="ddpm", steps=250),
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="constant"),
        train=TrainConfig(steps=400_000, batch=256, ema=0.9999, null=0.1, log_every=100, checkpoint_every=10_000),
    )


def imagenet(
    name: str, protocol: Literal["kind-611", "kind-base", "kind-novel"] | None = "kind-base", **model: Any
) -> Config:
    """The paper's setting: a published size on latents of ImageNet at 256 x 256 pixels, mirrored at random.

    ``data.path``, the folder that ``kind-jax latents`` wrote, is left to the command line. ``protocol`` None is all of
    the 1000 classes.
    """
    return dataclasses.replace(
        published(name, **({"num_classes": _CLASSES[protocol]} | model)),
        data=DataConfig(source="latents", protocol=protocol, flip=True),
    )


def onto(config: Config, *, steps: int) -> Config:
    """``config`` as the target of a transfer: fresh tailors and class rows for ``steps`` steps, all else frozen.

    The paper says what is trained, not for how long: steps, and the shorter moving average that suits them, are ours.
    """
    # A transfer freezes by itself; written down here, kind-jax plan counts the same step.
    frozen, rows = CollectionConfig(freeze=True), CollectionConfig(freeze=True, thaw=("label_embed",))
    return dataclasses.replace(
        config,
        optimizer=dataclasses.replace(config.optimizer, learngenes=frozen, params=rows),
        train=dataclasses.replace(
            config.train, steps=steps, ema=0.999, checkpoint_every=min(steps, 5000), sample_every=min(steps, 5000)
        ),
        transfer=TransferConfig(method="kind"),
    )
