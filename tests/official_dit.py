"""The official PyTorch DiT's recorded weights, as collections of our model with every projection dense."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import partition
from kind_jax.config import FactorConfig, ModelConfig

REFERENCE = np.load(Path(__file__).parent / "fixtures" / "dit_reference.npz")

CONFIG = ModelConfig(
    size=8, channels=4, patch=2, width=32, depth=3, heads=4, num_classes=6, factor=FactorConfig(projections=())
)


def _linear(prefix: str, name: str) -> dict[str, np.ndarray]:
    return {
        key: REFERENCE[f"{prefix}/{name}.{theirs}"].T
        for key, theirs in (("kernel", "weight"), ("bias", "bias"))
        if f"{prefix}/{name}.{theirs}" in REFERENCE
    }


def collections(prefix: str = "weights") -> partition.Collections:
    """Recorded ``weights`` or gradients (``grad``, recorded only for some) in our names and layouts."""
    names = {
        "attention/qkv": "attn.qkv",
        "attention/o": "attn.proj",
        "mlp_in": "mlp.fc1",
        "mlp_out": "mlp.fc2",
        "adaln": "adaLN_modulation.1",
    }
    blocks = [
        {ours: _linear(prefix, f"blocks.{i}.{theirs}") for ours, theirs in names.items()} for i in range(CONFIG.depth)
    ]
    stacked = jax.tree.map(lambda *a: np.stack(a), *blocks) if prefix == "weights" else {}
    conv = REFERENCE[f"{prefix}/x_embedder.proj.weight"]  # [width, channel, row, column]
    flat = {f"blocks/{name}": layer for name, layer in stacked.items()} | {
        "patch_embed": {
            "kernel": conv.transpose(2, 3, 1, 0).reshape(-1, CONFIG.width),
            "bias": REFERENCE[f"{prefix}/x_embedder.proj.bias"],
        },
        "time_embed/hidden": _linear(prefix, "t_embedder.mlp.0"),
        "time_embed/out": _linear(prefix, "t_embedder.mlp.2"),
        "label_embed": {"table": REFERENCE[f"{prefix}/y_embedder.embedding_table.weight"]},
        "final/adaln": _linear(prefix, "final_layer.adaLN_modulation.1"),
        "final/linear": _linear(prefix, "final_layer.linear"),
    }
    leaves = {f"{path}/{leaf}": a for path, layer in flat.items() for leaf, a in layer.items()}
    return {"learngenes": {}, "tailors": {}, "params": jax.tree.map(jnp.asarray, partition.unflatten(leaves))}


def gradient_of_block(index: int, name: str) -> dict[str, np.ndarray]:
    """Recorded gradient of one linear layer of one block, in our layout."""
    return _linear("grad", f"blocks.{index}.{name}")


def to_nhwc(a: np.ndarray) -> np.ndarray:
    return a.transpose(0, 2, 3, 1)


def to_nchw(a: np.ndarray) -> np.ndarray:
    return np.asarray(a).transpose(0, 3, 1, 2)
