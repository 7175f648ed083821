"""Networks of the recorded runs of the public ZipIt code (tests/fixtures/zipit_reference.npz)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import model, partition
from kind_jax.config.networks import ResNetConfig
from kind_jax.nn.gate import learngenes_only

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "zipit_reference.npz")

RESNET = ResNetConfig(
    size=8, channels=3, num_classes=5, stages=(1, 1, 1), width=0.25, shortcut="conv3", norm_eps=1e-5
)  # fmt: skip


def mlp(weights: Any, x: jax.Array) -> jax.Array:
    for name in ("fc1", "fc2", "fc3"):
        x = x @ weights[name]["kernel"] + weights[name]["bias"][None, :]
        x = jax.nn.relu(x) if name != "fc3" else x
    return x


def mlp_weights(prefix: str) -> dict[str, Any]:
    return {
        name: {"kernel": RECORDED[f"{prefix}/{name}.weight"].T, "bias": RECORDED[f"{prefix}/{name}.bias"]}
        for name in ("fc1", "fc2", "fc3")
    }


def resnet(collections: Any, images: jax.Array) -> jax.Array:
    return partition.join(model.definition(RESNET)[0], collections)(images, learngenes_only())


def resnet_images() -> np.ndarray:
    return np.moveaxis(RECORDED["e2e/resnet/x"], 1, -1)


def resnet_weights(prefix: str) -> Any:
    """The recorded state dict in this package's layout; a module's names in the published one are found by place."""
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}

    def conv(ours: str, theirs: str) -> None:
        params[f"{ours}/kernel"] = np.transpose(RECORDED[f"{prefix}/{theirs}.weight"], (2, 3, 1, 0))

    def norm(ours: str, theirs: str) -> None:
        params[f"{ours}/scale"] = RECORDED[f"{prefix}/{theirs}.weight"]
        params[f"{ours}/bias"] = RECORDED[f"{prefix}/{theirs}.bias"]
        stats[f"{ours}/mean"] = RECORDED[f"{prefix}/{theirs}.running_mean"]
        stats[f"{ours}/var"] = RECORDED[f"{prefix}/{theirs}.running_var"]

    conv("stem", "conv1")
    norm("norm", "bn1")
    for stage in range(3):
        for i in range(2):
            conv(f"stages/{stage}/0/convs/{i}", f"layer{stage + 1}.0.conv{i + 1}")
            norm(f"stages/{stage}/0/norms/{i}", f"layer{stage + 1}.0.bn{i + 1}")
        if stage:
            conv(f"stages/{stage}/0/shortcut/conv", f"layer{stage + 1}.0.shortcut.0")
            norm(f"stages/{stage}/0/shortcut/norm", f"layer{stage + 1}.0.shortcut.1")
    params["head/kernel"] = RECORDED[f"{prefix}/linear.weight"].T
    params["head/bias"] = RECORDED[f"{prefix}/linear.bias"]
    empty = {name: {} for name in ("learngenes", "tailors")}
    tree = {**empty, "params": partition.unflatten(params), "stats": partition.unflatten(stats)}
    return jax.tree.map(jnp.asarray, tree)
