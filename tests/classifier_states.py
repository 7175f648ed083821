"""State dicts of timm's and torchvision's classifiers, and of EfficientNet-Lite0, written down from what these print.

The numbers in them come from NumPy's RandomState, whose streams never change, and depend on nothing but name and shape:
what other programs compute with them is recorded, they are not.
"""

import zlib

import numpy as np


def timm_vit(width=64, depth=2, patch=4, side=2, channels=3, classes=5, hidden=128, qkv_bias=True, token=True):
    """Names and shapes of a vision transformer for ``side`` x ``side`` patches."""
    found = {"cls_token": (1, 1, width)} if token else {}
    found |= {
        "pos_embed": (1, side * side + token, width),
        "patch_embed.proj.weight": (width, channels, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(depth):
        found |= {f"blocks.{i}.norm1.weight": (width,), f"blocks.{i}.norm1.bias": (width,)}
        found |= {f"blocks.{i}.attn.qkv.weight": (3 * width, width)}
        found |= {f"blocks.{i}.attn.qkv.bias": (3 * width,)} if qkv_bias else {}
        found |= {f"blocks.{i}.attn.proj.weight": (width, width), f"blocks.{i}.attn.proj.bias": (width,)}
        found |= {f"blocks.{i}.norm2.weight": (width,), f"blocks.{i}.norm2.bias": (width,)}
        found |= {f"blocks.{i}.mlp.fc1.weight": (hidden, width), f"blocks.{i}.mlp.fc1.bias": (hidden,)}
        found |= {f"blocks.{i}.mlp.fc2.weight": (width, hidden), f"blocks.{i}.mlp.fc2.bias": (width,)}
    found |= {"norm.weight": (width,), "norm.bias": (width,)}
    return found | {"head.weight": (classes, width), "head.bias": (classes,)}


def torchvision_vit(width=64, depth=2, patch=4, side=2, channels=3, classes=5, hidden=128, mlp=("0", "3")):
    found = {
        "class_token": (1, 1, width),
        "conv_proj.weight": (width, channels, patch, patch),
        "conv_proj.bias": (width,),
        "encoder.pos_embedding": (1, side * side + 1, width),
    }
    for i in range(depth):
        block = f"encoder.layers.encoder_layer_{i}."
        found |= {f"{block}ln_1.weight": (width,), f"{block}ln_1.bias": (width,)}
        found |= {f"{block}self_attention.in_proj_weight": (3 * width, width)}
        found |= {f"{block}self_attention.in_proj_bias": (3 * width,)}
        found |= {f"{block}self_attention.out_proj.weight": (width, width)}
        found |= {f"{block}self_attention.out_proj.bias": (width,)}
        found |= {f"{block}ln_2.weight": (width,), f"{block}ln_2.bias": (width,)}
        found |= {f"{block}mlp.{mlp[0]}.weight": (hidden, width), f"{block}mlp.{mlp[0]}.bias": (hidden,)}
        found |= {f"{block}mlp.{mlp[1]}.weight": (width, hidden), f"{block}mlp.{mlp[1]}.bias": (width,)}
    found |= {"encoder.ln.weight": (width,), "encoder.ln.bias": (width,)}
    return found | {"heads.head.weight": (classes, width), "heads.head.bias": (classes,)}


def resnet(depth, first=64, channels=3, classes=5):
    """ResNet-18, 34 or 50 with ``first`` channels in its first stage, of either program."""
    blocks, bottleneck = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth], depth == 50
    found = {"conv1.weight": (first, channels, 7, 7)} | _norm("bn1", first)
    before = first
    for stage, count in enumerate(blocks):
        inner = first * 2**stage
        out = 4 * inner if bottleneck else inner
        for i in range(count):
            block, sides = f"layer{stage + 1}.{i}.", (1, 3, 1) if bottleneck else (3, 3)
            widths = (before, inner, inner, out) if bottleneck else (before, inner, out)
            for j, side in enumerate(sides):
                found |= {f"{block}conv{j + 1}.weight": (widths[j + 1], widths[j], side, side)}
                found |= _norm(f"{block}bn{j + 1}", widths[j + 1])
            if before != out:
                found |= {f"{block}downsample.0.weight": (out, before, 1, 1)} | _norm(f"{block}downsample.1", out)
            before = out
    return found | {"fc.weight": (classes, before), "fc.bias": (classes,)}


def efficientnet(channels=3, classes=5):
    """EfficientNet-Lite0 under the names of lukemelas' EfficientNet-PyTorch."""
    found = {"_conv_stem.weight": (32, channels, 3, 3)} | _norm("_bn0", 32)
    before, number = 32, 0
    for out, count, expansion, side in (
        (16, 1, 1, 3), (24, 2, 6, 3), (40, 2, 6, 5), (80, 3, 6, 3), (112, 3, 6, 5), (192, 4, 6, 5), (320, 1, 6, 3),
    ):  # fmt: skip
        for _ in range(count):
            block, inner = f"_blocks.{number}.", before * expansion
            if expansion > 1:
                found |= {f"{block}_expand_conv.weight": (inner, before, 1, 1)} | _norm(f"{block}_bn0", inner)
            found |= {f"{block}_depthwise_conv.weight": (inner, 1, side, side)} | _norm(f"{block}_bn1", inner)
            found |= {f"{block}_project_conv.weight": (out, inner, 1, 1)} | _norm(f"{block}_bn2", out)
            before, number = out, number + 1
    found |= {"_conv_head.weight": (1280, before, 1, 1)} | _norm("_bn1", 1280)
    return found | {"_fc.weight": (classes, 1280), "_fc.bias": (classes,)}


def filled_efficientnet(**sizes):
    """Its arrays; norms scale up, without which little of an image is left after so many layers."""
    arrays = filled(efficientnet(**sizes))
    return {name: 2 * a if "_bn" in name and name.endswith("weight") else a for name, a in arrays.items()}


def _norm(name, channels):
    return {f"{name}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")}


def filled(shapes):
    """Numbers for arrays of these shapes, such that activations stay near 1 and nothing is 0, 1 or symmetric."""
    return {name: _numbers(name, tuple(shape)) for name, shape in shapes.items()}


def _numbers(name, shape):
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    numbers = random.standard_normal(shape)
    if name.endswith(("bias", "running_mean")):
        return (0.1 * numbers).astype(np.float32)
    if len(shape) == 1:  # the scale of a norm
        return (0.7 + 0.1 * numbers).astype(np.float32)
    if shape[0] == 1:  # class token and positions
        return (0.5 * numbers).astype(np.float32)
    return (numbers * (1.5 / np.prod(shape[1:])) ** 0.5).astype(np.float32)


def images(size, channels=3, samples=2):
    """[samples, size, size, channels], normal."""
    return np.random.RandomState(0).standard_normal((samples, size, size, channels)).astype(np.float32)


CASES = {
    "timm vit": ("timm", timm_vit(width=128, hidden=256)),
    "timm vit without a token": ("timm", timm_vit(token=False, qkv_bias=False)),
    "torchvision vit": ("torchvision", torchvision_vit(width=128, hidden=256)),
    "resnet 18": ("torchvision", resnet(18, first=8)),
    "resnet 50": ("torchvision", resnet(50, first=8)),
}
"""The networks whose logits are in fixtures/classifiers_reference.npz: whose they are, names and shapes."""


def size_of(case):
    """Image size of a case."""
    return 32 if case.startswith("resnet") else 8
