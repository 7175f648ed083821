"""How well a model knows images and captions that it was not trained on. N images, M captions, E features."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from kind_jax import partition
from kind_jax.captioning import losses, network
from kind_jax.captioning import texts as readings
from kind_jax.captioning.config import CaptionRun
from kind_jax.classifying.accuracy import ahead
from kind_jax.config.coca import CoCaConfig
from kind_jax.data.sets import Dataset, gathered
from kind_jax.text.scores import recall_at
from kind_jax.train import sharding

RANKS = (1, 5, 10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What came out.

    Attributes:
      images: embeddings, in the order of the data set.
      texts: those of the first caption of each image.
      own: which captions are of which image: its own, and every other of the same words.
      caption_loss: cross-entropy of the next word, averaged over words.
      token_accuracy: share of the words that are the most likely ones behind those before them.
    """

    images: Float[np.ndarray, "N E"]
    texts: Float[np.ndarray, "N E"]
    own: Bool[np.ndarray, "N N"]
    caption_loss: float
    token_accuracy: float

    @property
    def retrieval(self) -> dict[str, float]:
        """Recall at 1, 5 and 10, of texts by images and of images by texts."""
        return recalled(self.images @ self.texts.T, self.own)

    @property
    def figures(self) -> dict[str, float]:
        """What a run logs."""
        found = {"caption_loss": self.caption_loss, "token_accuracy": self.token_accuracy}
        return found | {name: self.retrieval[name] for name in ("text_r1", "image_r1")}


def recalled(similarity: Float[np.ndarray, "N M"], own: Bool[np.ndarray, "N M"]) -> dict[str, float]:
    """Recall at 1, 5 and 10, of texts by images and of images by texts."""
    found = recall_at(similarity, own, RANKS)
    texts = {f"text_r{k}": value for k, value in found.rows.items()}
    return texts | {f"image_r{k}": value for k, value in found.columns.items()}


def measure(
    config: CaptionRun,
    weights: partition.Collections,
    dataset: Dataset,
    *,
    batch: int,
    mesh: Mesh,
    progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Embed all images of a data set and their first captions, and follow these word by word.

    On several hosts each reads its part of every batch, and all get the result.

    Args:
      weights: placed on the mesh.
      batch: pairs at a time, over all devices.
      progress: called with the number of pairs that are done.
    """
    captions = [each[0] for each in readings.captions_of(dataset)]
    tokens = readings.tokens_of(config, [[caption] for caption in captions]).tokens[:, 0]
    placement = sharding.batch_sharding(mesh)
    shard, shards = sharding.share_of_batch(placement, batch)
    total, rows = len(dataset.source), batch // shards

    def read(start: int) -> dict[str, np.ndarray]:
        wanted = np.minimum(start + shard * rows + np.arange(rows), total - 1)
        records, read = gathered(dataset.source, wanted)
        return {"image": records["image"], "tokens": tokens[read]}

    run = jax.jit(_of_batch, static_argnums=0, out_shardings=sharding.replicated(mesh))
    found: list[dict[str, np.ndarray]] = []
    for start, parts in ahead(read, range(0, total, batch)):
        seen = run(config.model, weights, jax.make_array_from_process_local_data(placement, parts))
        found.append({name: np.asarray(value)[: total - start] for name, value in seen.items()})
        progress(min(start + batch, total))
    whole = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    words = max(int(whole["words"].sum()), 1)
    same = np.unique(captions, return_inverse=True)[1]
    return Measured(
        images=whole["images"], texts=whole["texts"], own=same[:, None] == same[None, :],
        caption_loss=float(whole["lost"].sum() / words), token_accuracy=float(whole["right"].sum() / words),
    )  # fmt: skip


def _of_batch(config: CoCaConfig, weights: partition.Collections, batch: Any) -> dict[str, Any]:
    found = network.outputs(config, weights, batch["image"], batch["tokens"])
    targets = batch["tokens"][:, 1:]
    real = losses.words(targets)
    chosen = jnp.take_along_axis(found.logits, targets[..., None], axis=-1)[..., 0]
    lost = jnp.where(real, jax.nn.logsumexp(found.logits, axis=-1) - chosen, 0.0)
    right = (jnp.argmax(found.logits, axis=-1) == targets) & real
    return {
        "images": found.image, "texts": found.text, "lost": jnp.sum(lost, axis=1),
        "words": jnp.sum(real, axis=1), "right": jnp.sum(right, axis=1),
    }  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _texts(config: CoCaConfig, weights: partition.Collections, tokens: Any) -> Any:
    return network.encode_text(config, weights, tokens)


def embed_texts(
    config: CaptionRun, weights: partition.Collections, wanted: Sequence[str], batch: int = 256
) -> Float[np.ndarray, "M E"]:
    """Embeddings of texts.

    Raises:
      UserError: one is empty, or longer than the context where ``text.truncate`` is off.
    """
    tokens = readings.tokens_of(config, [[text] for text in wanted]).tokens[:, 0]
    size = min(batch, len(tokens))
    found = []
    for start in range(0, len(tokens), size):
        rows = tokens[np.minimum(np.arange(start, start + size), len(tokens) - 1)]
        found.append(np.asarray(_texts(config.model, weights, rows))[: len(tokens) - start])
    return np.concatenate(found)


def class_accuracy(images: Float[np.ndarray, "N E"], classes: Float[np.ndarray, "K E"], labels: np.ndarray) -> float:
    """Share of the images whose nearest class, each embedded as a text, is their own: zero-shot classification."""
    return float(np.mean(np.argmax(images @ classes.T, axis=1) == labels))
