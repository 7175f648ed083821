"""ResNet-18, 34 and 50 as the state dict that torchvision and timm both have, and back."""

from __future__ import annotations

import re

from kind_jax import model, partition
from kind_jax.config.check import require
from kind_jax.config.networks import ResNetConfig
from kind_jax.errors import UserError
from kind_jax.interchange import classifier, layouts
from kind_jax.interchange.classifier import IMAGENET, Found, Moments
from kind_jax.interchange.layouts import Place
from kind_jax.interchange.names import StateDict

_COUNTER = ".num_batches_tracked"
_STEM = "conv1.weight"
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_OUTER = {"stem": "conv1", "norm": "bn1", "head": "fc"}
_INNER = {"convs": "conv{}", "norms": "bn{}", "shortcut/conv": "downsample.0", "shortcut/norm": "downsample.1"}
_LAYER = re.compile(r"stages/(?P<stage>\d)/(?P<block>\d+)/(?P<kind>[a-z/]+?)(?:/(?P<number>\d))?")
_BLOCK = re.compile(r"layer(\d)\.(\d{1,6})\.")
_DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
}
_EPS = 1e-5


def is_resnet(found: Found) -> bool:
    """Whether the arrays are those of a residual network with one convolution for a stem."""
    return _STEM in found and any(map(_BLOCK.match, found))


def read(
    found: Found, *, size: int | None, mean: Moments, std: Moments, origin: object
) -> tuple[ResNetConfig, partition.Collections]:
    """The network that has these arrays; see :func:`kind_jax.interchange.torchvision.read`."""
    found = {name: array for name, array in found.items() if not name.endswith(_COUNTER)}  # of steps; nothing needs it
    arrays = classifier.floats(found, origin)
    first = classifier.shape(arrays, "bn1.bias", "channels", origin)[0]
    channels = classifier.shape(arrays, _STEM, "out, channels, side, side", origin)[1]
    config = ResNetConfig(
        depth=_depth(found, origin), width=first / 64, channels=channels, norm_eps=_EPS,
        size=224 if size is None else size,
        num_classes=classifier.shape(arrays, "fc.bias", "classes", origin)[0],
        **classifier.moments(mean, std, IMAGENET, channels, origin),
    )  # fmt: skip
    return config, classifier.read(places(config), config, arrays, origin)


def _depth(found: Found, origin: object) -> int:
    blocks = {(int(m[1]), int(m[2])) for m in map(_BLOCK.match, found) if m}
    counts = tuple(sum(stage == s for s, _ in blocks) for stage in range(1, 1 + max(s for s, _ in blocks)))
    bottleneck = "layer1.0.conv3.weight" in found
    if (counts, bottleneck) not in _DEPTHS:
        kind = "bottlenecks" if bottleneck else "blocks of two convolutions"
        raise UserError(
            f"{origin} has {', '.join(map(str, counts))} {kind} in its stages, but it must be ResNet-18, 34 or 50."
        )
    return _DEPTHS[counts, bottleneck]


def write(config: ResNetConfig, collections: partition.Collections, program: str) -> StateDict:
    """The inverse of :func:`read`; see :func:`kind_jax.interchange.torchvision.write`."""
    require(config.stages is None, "model.stages", config.stages, f"None for {program}")
    require(config.imagenet, "model.depth", config.depth, f"18, 34 or 50 for {program}, which lacks the small type")
    classifier.check_eps(config, _EPS, program)
    return classifier.write(places(config), config, collections)


def places(config: ResNetConfig) -> dict[str, Place]:
    """Where the arrays of a residual network of ImageNet's type lie, by their names."""
    found = {}
    for path, leaf in partition.flatten(model.definition(config)[1]).items():
        layer, _, last = path.partition("/")[2].rpartition("/")
        layout = {4: layouts.CONV, 2: layouts.DENSE, 1: layouts.SAME}[leaf.ndim]
        found[f"{_their_layer(layer)}.{_LEAVES[last]}"] = Place(path, layout)
    return found


def _their_layer(layer: str) -> str:
    if layer in _OUTER:
        return _OUTER[layer]
    found = _LAYER.fullmatch(layer)
    assert found is not None
    inner = _INNER[found["kind"]].format(int(found["number"] or 0) + 1)
    return f"layer{int(found['stage']) + 1}.{found['block']}.{inner}"
