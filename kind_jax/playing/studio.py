"""From the position of the controls to what the page shows. N: pictures, H: height, W: width, C: channels."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
from jaxtyping import Float

from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.evaluating.judge import Judge
from kind_jax.playing.batch import Batch, batch_of, gated
from kind_jax.playing.controls import Controls
from kind_jax.playing.judging import Accuracy, in_words, seen
from kind_jax.playing.shown import Figures, Shown, Strip
from kind_jax.playing.sizes import Sizes
from kind_jax.vae import Vae, decode_in_batches


class Studio:
    """A model with all that a page shows of it; it keeps nothing about who asks.

    Attributes:
      bundle: the model.
      judge: tells classes apart in its samples; None: there is none.
      vae: decodes samples of a model of latents; None: they are images.
      sizes: models composed of it.
    """

    def __init__(self, bundle: Bundle, *, judge: Judge | None = None, vae: Vae | None = None) -> None:
        check_bundle(bundle)
        self.bundle, self.judge, self.vae, self.sizes = bundle, judge, vae, Sizes(bundle)
        self._alone = threading.Lock()  # two drawings at once would share the cores, and both be late

    def show(self, controls: Controls) -> Shown:
        """Compose, draw and judge.

        Raises:
          UserError: a budget that no model fits, or a setting that the model refuses.
        """
        with self._alone:
            composed = self.sizes.of(controls)
            # Without a budget a composition is exact, so the source draws: it keeps its gate, and is compiled already.
            model = self.bundle if self.sizes.budget(controls) is None else composed.bundle
            batch = batch_of(model, controls)
            images = self._draw(model, batch, controls)
            classes = None if self.judge is None else seen(self.judge, images)
            if self.vae is not None:
                images = decode_in_batches(self.vae, images)
        visible = images if images.shape[-1] in (1, 3) else images[..., :3]
        off = controls.learngenes_only and gated(model)
        return Shown(
            strips=self._learngenes(visible, classes) if off else self._classes(visible, classes, batch, controls),
            figures=Figures.of(composed),
            accuracy=None if classes is None or off else _accuracy(classes, batch),
            notes=self._notes(model, controls, latents=visible is not images),
        )

    def _draw(self, model: Bundle, batch: Batch, controls: Controls) -> Float[np.ndarray, "N H W C"]:
        changes = {n: getattr(controls, n) for n in ("steps", "guidance") if getattr(controls, n) is not None}
        sampler = dataclasses.replace(model.config.sampler, **changes)
        return model.sample(batch.labels, seed=controls.seed, sampler=sampler, gate=batch.gate)

    def _learngenes(self, images: np.ndarray, classes: np.ndarray | None) -> tuple[Strip, ...]:
        remark = "" if classes is None else in_words(classes, self.bundle.class_names)
        return (Strip(title="Learngenes only, all tailors off", images=images, remark=remark, large=True),)

    def _classes(
        self, images: np.ndarray, classes: np.ndarray | None, batch: Batch, controls: Controls
    ) -> tuple[Strip, ...]:
        names, weights, strips = self.bundle.class_names, controls.weight_of, []
        if batch.gate is not None:
            remark = "" if classes is None else in_words(classes[batch.mixed], names)
            parts = ", ".join(f"{names[c]} at {weights[c]:g}" for c in controls.classes)
            strips.append(Strip(title=f"Mixture of {parts}", images=images[batch.mixed], remark=remark, large=True))
        for number, rows in batch.alone.items():
            title = f"{names[number]} alone"
            if batch.gate is not None and weights[number] != 1:
                title += f", tailors at {weights[number]:g}"
            remark = ""
            if classes is not None:
                right = int(np.sum(classes[rows] == number))
                remark = f"the judge sees {names[number]} in {right} of {rows.stop - rows.start}"
            strips.append(Strip(title=title, images=images[rows], remark=remark, large=batch.gate is None))
        return tuple(strips)

    def _notes(self, model: Bundle, controls: Controls, *, latents: bool) -> tuple[str, ...]:
        notes = []
        if gated(self.bundle) and not gated(model):
            notes.append(
                "The tailors of one class are folded into a smaller model, which has no gate any more: weights and "
                "“learngenes only” change nothing. With two classes they do."
            )
        elif controls.learngenes_only and not gated(model):
            notes.append("This model has no tailors that can be switched off.")
        if latents:
            notes.append("These are 3 channels of latents; --vae DIR decodes them to pictures.")
        return tuple(notes)


def _accuracy(classes: np.ndarray, batch: Batch) -> Accuracy:
    right = sum(int(np.sum(classes[rows] == number)) for number, rows in batch.alone.items())
    return Accuracy(right=right, count=sum(rows.stop - rows.start for rows in batch.alone.values()))
