"""A model of images and captions measured on a split. N images, M captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kind_jax import __version__
from kind_jax.captioning import texts
from kind_jax.captioning.decode import beam, greedy
from kind_jax.captioning.held_out import RANKS, Measured, class_accuracy, embed_texts, measure, recalled
from kind_jax.config import MeshConfig
from kind_jax.data.dataset import Split, open_dataset
from kind_jax.data.sets import Dataset
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.evaluating.intervals import wilson
from kind_jax.text import scores
from kind_jax.text.tokenizer import tokenizer_of
from kind_jax.train import sharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What came out.

    Attributes:
      figures: by name, in the order in which they are shown.
      right: images whose nearest class is their own, and how many images there are; None without classes.
      said: the caption that each image was given.
      own: the captions of each image.
    """

    figures: dict[str, float]
    right: tuple[int, int] | None
    said: tuple[str, ...]
    own: tuple[tuple[str, ...], ...]


def open_split(bundle: Bundle, split: Split) -> Dataset:
    """A split whose images and captions fit the model.

    Raises:
      UserError: they do not.
    """
    config = bundle.config
    dataset = open_dataset(config.data, split)
    texts.check_data(config, dataset)
    return dataset


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    batch: int,
    *,
    beams: int = 1,
    prompt: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Found:
    """Measure on all devices of this machine: words, retrieval, zero-shot classification, captions.

    Args:
      beams: of the search for captions; 1 is greedy.
      prompt: what a class is called in words; None: as the run's config says.
    """
    config, mesh = bundle.config, sharding.make_mesh(MeshConfig())
    batch = min(batch, -(-len(dataset.source) // mesh.size) * mesh.size)
    sharding.check_batch(batch, 1, mesh)
    weights = jax.device_put(jax.tree.map(jnp.asarray, bundle.collections), sharding.replicated(mesh))
    measured = measure(config, weights, dataset, batch=batch, mesh=mesh, progress=progress)
    own = texts.captions_of(dataset)
    figures = {"caption_loss": measured.caption_loss, "token_accuracy": measured.token_accuracy}
    figures |= _retrieval(config, weights, measured, own)
    right, labels = None, _labels(dataset)
    if labels is not None and len(dataset.class_names) > 1:
        named = [(prompt or config.text.prompt).replace("{}", name) for name in dataset.class_names]
        share = class_accuracy(measured.images, embed_texts(config, weights, named), labels)
        figures["zero_shot_top1"] = share
        right = (round(share * len(labels)), len(labels))
    said = captions(config, weights, dataset, batch, beams=beams, mesh=mesh)
    figures |= {"bleu4": scores.bleu(said, own), "cider": float(np.mean(scores.cider(said, own)))}
    figures["exact"] = float(np.mean([text in given for text, given in zip(said, own, strict=True)]))
    return Found(figures=figures, right=right, said=tuple(said), own=own)


def _retrieval(config: Any, weights: Any, measured: Measured, own: Sequence[Sequence[str]]) -> dict[str, float]:
    """Recall of texts by images and of images by texts, of all captions, where they fit the context."""
    flat = [text for each in own for text in each]
    if len(flat) == len(own):
        return measured.retrieval
    of = np.repeat(np.arange(len(own)), [len(each) for each in own])
    same = np.unique(flat, return_inverse=True)[1]
    mine = np.zeros((len(own), same.max() + 1), bool)  # whether an image has the caption of this number
    mine[of, same] = True
    return recalled(measured.images @ embed_texts(config, weights, flat).T, mine[:, same])


def captions(config: Any, weights: Any, dataset: Dataset, batch: int, *, beams: int, mesh: Mesh) -> list[str]:
    """The caption of each image of a data set.

    Raises:
      UserError: there are fewer beams than one, or more than tokens.
    """
    tokenizer, total, found = tokenizer_of(config.text.tokenizer), len(dataset.source), []
    placement = sharding.batch_sharding(mesh)
    for start in range(0, total, batch):
        rows = np.minimum(np.arange(start, start + batch), total - 1)
        images = jax.device_put(dataset.source.gather(rows)["image"], placement)
        how: dict[str, Any] = {"bos": tokenizer.bos, "eos": tokenizer.eos}
        if beams == 1:
            tokens = greedy(config.model, weights, images, **how).tokens
        else:
            tokens = beam(config.model, weights, images, beams=beams, **how).tokens[:, 0]
        found += texts.decoded(tokenizer, np.asarray(tokens))[: total - start]
    return found


def _labels(dataset: Dataset) -> np.ndarray | None:
    labels = getattr(dataset.source, "labels", None)
    return None if labels is None else np.asarray(labels)


def record(bundle: Bundle, dataset: Dataset, found: Found, *, split: str, beams: int) -> dict[str, Any]:
    """Everything that was measured and of what, as JSON values."""
    return {
        "kind_jax": __version__,
        "model": str(bundle.origin),
        "step": bundle.step,
        "weights": bundle.weights,
        "split": split,
        "images": len(found.said),
        "beams": beams,
        "data": dataset.fingerprint,
        "figures": found.figures,
        "zero_shot_interval": None if found.right is None else wilson(*found.right),
    }


_SHARES = ("token_accuracy", "zero_shot_top1", "exact")
_WORDS = {
    "caption_loss": "cross-entropy of the next token",
    "token_accuracy": "tokens foretold",
    "zero_shot_top1": "zero-shot classification",
    "bleu4": "BLEU-4",
    "cider": "CIDEr-D",
    "exact": "captions word for word",
} | {f"{what}_r{k}": f"{what} found, R@{k}" for what in ("text", "image") for k in RANKS}


def summary(found: Found) -> list[tuple[str, str]]:
    """The figures in words."""
    lines = []
    for name, value in found.figures.items():
        share = name in _SHARES or name.startswith(("text_r", "image_r"))
        shown = f"{value:.2%}" if share else f"{value:.4f}"
        if name == "zero_shot_top1" and found.right is not None:
            low, high = wilson(*found.right)
            shown += f" [{100 * low:.1f}, {100 * high:.1f}]"
        lines.append((_WORDS[name], shown))
    return [*lines, ("images", f"{len(found.said):,}")]


def check_beams(beams: int) -> None:
    """Refuse a number of beams below 1.

    Raises:
      UserError: it is.
    """
    if beams < 1:
        raise UserError(f"--beams is {beams}, but it must be 1 or more.")
