"""The same classifiers in plain PyTorch, with our weights: a ViT with fused attention, a ResNet for small images."""
# PyTorch comes with the extra `bench` alone, so a type checker may not find it.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from kind_jax import partition
from kind_jax.config.networks import ResNetConfig, ViTConfig


def _set(parameter: torch.Tensor, value: Any) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(np.ascontiguousarray(value)))


def _set_linear(layer: nn.Linear, weights: dict[str, np.ndarray]) -> None:
    _set(layer.weight, weights["kernel"].T)
    _set(layer.bias, weights["bias"])


class _ViTBlock(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width, hidden = config.width, round(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.norm_1 = nn.LayerNorm(width, eps=config.norm_eps)
        self.norm_2 = nn.LayerNorm(width, eps=config.norm_eps)
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm_1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.o(mixed)
        return x + self.mlp_out(functional.gelu(self.mlp_in(self.norm_2(x))))


class TorchViT(nn.Module):
    """A class token, learned positions, exact GELU."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Conv2d(config.channels, config.width, config.patch, config.patch)
        self.token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.blocks = nn.ModuleList(_ViTBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, config.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])

    def load(self, collections: partition.Collections) -> None:
        params, config = collections["params"], self.config
        kernel = params["patch_embed"]["kernel"].reshape(config.patch, config.patch, config.channels, config.width)
        _set(self.patches.weight, kernel.transpose(3, 2, 0, 1))
        _set(self.patches.bias, params["patch_embed"]["bias"])
        _set(self.token, params["class_token"][None, None])
        _set(self.position, params["position"][None])
        for i, block in enumerate(self.blocks):
            layer = partition.unflatten({path: leaf[i] for path, leaf in partition.flatten(params["blocks"]).items()})
            for name in ("mlp_in", "mlp_out"):
                _set_linear(getattr(block, name), layer[name])
            for name in ("qkv", "o"):
                _set_linear(getattr(block, name), layer["attention"][name])
            for name in ("norm_1", "norm_2"):
                _set(getattr(block, name).weight, layer[name]["scale"])
                _set(getattr(block, name).bias, layer[name]["bias"])
        _set(self.norm.weight, params["norm"]["scale"])
        _set(self.norm.bias, params["norm"]["bias"])
        _set_linear(self.head, params["head"])


class _ResNetBlock(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False),
                nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False),
            ]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(fan_out), nn.BatchNorm2d(fan_out)])
        self.shortcut = None
        if fan_in != fan_out or stride != 1:
            conv = nn.Conv2d(fan_in, fan_out, 1, stride, bias=False)
            self.shortcut = nn.ModuleDict({"conv": conv, "norm": nn.BatchNorm2d(fan_out)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.norms[0](self.convs[0](x)))
        y = self.norms[1](self.convs[1](y))
        if self.shortcut is not None:
            x = self.shortcut["norm"](self.shortcut["conv"](x))
        return functional.relu(x + y)


class TorchResNet(nn.Module):
    """Three stages for small images, shortcuts with a convolution of 1 x 1."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        before = config.channels_of(0)
        self.stem = nn.Conv2d(config.channels, before, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(before)
        self.stages = nn.ModuleList()
        for stage, count in enumerate(config.blocks):
            blocks = nn.ModuleList()
            for i in range(count):
                blocks.append(_ResNetBlock(before, config.channels_of(stage), 2 if stage and not i else 1))
                before = config.channels_of(stage)
            self.stages.append(blocks)
        self.head = nn.Linear(before, config.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.stem(images)))
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.head(x.mean(dim=(2, 3)))

    def load(self, collections: partition.Collections) -> None:
        params = partition.flatten(collections["params"])
        for name, module in self.named_modules():
            path = name.replace(".", "/")
            if isinstance(module, nn.Conv2d):
                _set(module.weight, params[f"{path}/kernel"].transpose(3, 2, 0, 1))
            elif isinstance(module, nn.BatchNorm2d):
                _set(module.weight, params[f"{path}/scale"])
                _set(module.bias, params[f"{path}/bias"])
        _set_linear(self.head, {name: params[f"head/{name}"] for name in ("kernel", "bias")})


class TorchStep:
    """A training step: cross-entropy with smoothed labels, and PyTorch's own optimizer, fused where it can be."""

    def __init__(self, net: nn.Module, images: np.ndarray, labels: np.ndarray, *, sgd: bool) -> None:
        self.net, self.images, self.labels = net.train(), torch.tensor(images), torch.tensor(labels, dtype=torch.long)
        if sgd:
            self.optimizer: Any = torch.optim.SGD(
                net.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, foreach=True
            )
        else:
            self.optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.05, foreach=True)

    def step(self) -> None:
        loss = functional.cross_entropy(self.net(self.images), self.labels, label_smoothing=0.1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
