"""The peer: a diffusion transformer in PyTorch, written from the paper (Peebles & Xie 2023, adaLN-zero blocks).

Dimensions: B samples, T tokens, D width. Images are NCHW. Names follow our own, so that weights load by path.
"""
# PyTorch comes with the extra `bench` alone, so a type checker may not find it.
# pyright: reportMissingImports=false

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from kind_jax import partition
from kind_jax.config import Config, ModelConfig
from kind_jax.nn.embed import FREQUENCIES, MAX_PERIOD, position_embedding


def _modulated(x: Any, shift: Any, scale: Any) -> Any:
    return x * (scale + 1) + shift


class Block(nn.Module):
    """Attention and MLP under adaLN-zero."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        made = {name: nn.Linear(*sizes) for name, sizes in config.projection_sizes.items()}
        self.qkv, self.o, self.adaln = made["qkv"], made["o"], made["adaln"]
        self.mlp_in, self.mlp_out = made["mlp_in"], made["mlp_out"]
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width, eps=1e-6, elementwise_affine=False)

    def forward(self, x: Any, c: Any) -> Any:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaln(functional.silu(c))[:, None].chunk(6, dim=-1)
        x = x + gate_a * self._attend(_modulated(self.norm(x), shift_a, scale_a))
        h = functional.gelu(self.mlp_in(_modulated(self.norm(x), shift_m, scale_m)), approximate="tanh")
        return x + gate_m * self.mlp_out(h)

    def _attend(self, x: Any) -> Any:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.o(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TorchDiT(nn.Module):
    """Velocity from a noisy image, a time in 0..1000 and a label; label ``num_classes`` is the null class."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, P, C = config.width, config.patch, config.channels
        self.patch, self.channels = P, C
        self.patch_embed = nn.Conv2d(C, D, kernel_size=P, stride=P)
        self.time_embed = nn.Sequential(nn.Linear(FREQUENCIES, D), nn.SiLU(), nn.Linear(D, D))
        self.label_embed = nn.Embedding(config.num_classes + 1, D)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(D, eps=1e-6, elementwise_affine=False)
        self.final_adaln, self.final_linear = nn.Linear(D, 2 * D), nn.Linear(D, P * P * C)
        side, half = config.size // P, FREQUENCIES // 2
        self.register_buffer("position", torch.from_numpy(position_embedding(side, D))[None], persistent=False)
        omega = torch.exp(-np.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("omega", omega, persistent=False)

    def forward(self, images: Any, t: Any, labels: Any) -> Any:
        x = self.patch_embed(images)
        side = x.shape[-1]
        x = x.flatten(2).transpose(1, 2) + self.position
        angle = t[:, None] * self.omega
        c = self.time_embed(torch.cat([angle.cos(), angle.sin()], dim=1)) + self.label_embed(labels)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.final_adaln(functional.silu(c))[:, None].chunk(2, dim=-1)
        x = self.final_linear(_modulated(self.norm(x), shift, scale))
        x = x.unflatten(1, (side, side)).unflatten(3, (self.patch, self.patch, self.channels))
        return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def load(self, collections: partition.Collections) -> None:
        """Take over the weights of our dense model."""
        renamed = {"time_embed/hidden": "time_embed.0", "time_embed/out": "time_embed.2"}
        state: dict[str, Any] = {}
        for path, leaf in partition.flatten(collections["params"]).items():
            layer, _, kind = path.rpartition("/")
            name = renamed.get(layer, layer.replace("attention/", "").replace("final/", "final_").replace("/", "."))
            ours = np.asarray(leaf)
            if layer == "patch_embed" and kind == "kernel":  # [row, column, channel] x D
                kernel = ours.reshape(self.patch, self.patch, self.channels, -1).transpose(3, 2, 0, 1)
                state["patch_embed.weight"] = kernel
            elif layer.startswith("blocks/"):
                for i, own in enumerate(ours):
                    state[f"blocks.{i}.{name.removeprefix('blocks.')}.{_KIND[kind]}"] = own.T
            else:
                state[f"{name}.{_KIND[kind]}"] = ours if kind == "table" else ours.T
        self.load_state_dict({n: torch.tensor(np.ascontiguousarray(a)) for n, a in state.items()}, strict=True)


_KIND = {"kernel": "weight", "bias": "bias", "table": "weight"}


class TorchTraining:
    """The paper's training step: AdamW at 1e-4 without decay, and a moving average in a loop over parameters."""

    def __init__(self, net: TorchDiT, config: Config, images: np.ndarray, labels: np.ndarray) -> None:
        """``images`` are NCHW."""
        self.net, self.config = net.train(), config
        self.average = copy.deepcopy(net).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0)
        self.images, self.labels = torch.tensor(images), torch.tensor(labels, dtype=torch.long)

    def step(self) -> None:
        """Rectified flow with the label dropped now and then, as our own step has it."""
        images, batch = self.images, len(self.images)
        t, noise = torch.sigmoid(torch.randn(batch)), torch.randn_like(images)
        dropped = torch.rand(batch) < self.config.train.null
        labels = torch.where(dropped, self.config.model.num_classes, self.labels)
        part = t[:, None, None, None]
        output = self.net((1 - part) * images + part * noise, 1000 * t, labels)
        loss = functional.mse_loss(output, noise - images)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        decay, averages = self.config.train.ema or 0.0, dict(self.average.named_parameters())
        for name, parameter in self.net.named_parameters():
            averages[name].mul_(decay).add_(parameter, alpha=1 - decay)
