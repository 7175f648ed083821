"""The official PyTorch DiT's recorded weights, as it names them and as collections of our model, dense throughout."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import partition
from kind_jax.config import FactorConfig, ModelConfig
from kind_jax.interchange import official

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "dit_reference.npz")

CONFIG = ModelConfig(
    size=8, channels=4, patch=2, width=32, depth=3, heads=4, num_classes=6, factor=FactorConfig(projections=())
)


def recorded(prefix: str = "weights") -> dict[str, np.ndarray]:
    """Recorded ``weights`` or gradients (``grad``, recorded only for some) by their official names."""
    names = (name for name in REFERENCE.files if name.startswith(f"{prefix}/"))
    return {name.removeprefix(f"{prefix}/"): REFERENCE[name] for name in names}


def collections() -> partition.Collections:
    """The recorded weights in our names and layouts."""
    return jax.tree.map(jnp.asarray, official.to_collections(CONFIG, recorded()))


def to_nhwc(a: np.ndarray) -> np.ndarray:
    return a.transpose(0, 2, 3, 1)


def to_nchw(a: np.ndarray) -> np.ndarray:
    return np.asarray(a).transpose(0, 3, 1, 2)
