"""What happens when a control moves. All that belongs to a visitor is in the arguments; nothing is kept here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kind_jax.deploy.amounts import amount
from kind_jax.errors import UserError
from kind_jax.playing import markup
from kind_jax.playing.batch import gated
from kind_jax.playing.controls import MOST_CLASSES, Controls
from kind_jax.playing.download import write_zip
from kind_jax.playing.layout import Parts, first_classes, weight_label
from kind_jax.playing.studio import Studio

_QUEUE = "model"  # one at a time, whoever asks


class Events:
    """Functions of a page's values, for gradio to call.

    Attributes:
      studio: the model of the page.
      folder: where downloads are written.
    """

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.studio, self.folder = studio, folder

    def connect(self, gr: Any, page: Any, parts: Parts) -> None:
        """Say which component calls what."""
        aboard = gr.State(first_classes(self.studio.bundle))  # whose weights the sliders are, in this browser
        values = [
            aboard, *parts.weights, parts.learngenes_only, parts.share, parts.max_params, parts.seed, parts.guidance,
            parts.steps,
        ]  # fmt: skip
        drawn = gr.State()  # the values of what this browser shows
        shown = [drawn, parts.pictures, parts.figures, parts.download, parts.refusal]
        # A slider under the hand sends many values: what comes while a page is drawn is dropped, but for the last.
        settings: dict[str, Any] = {"concurrency_id": _QUEUE, "concurrency_limit": 1, "trigger_mode": "always_last"}
        settings["api_visibility"] = "private"

        def sliders(chosen: list[int], before: list[int], *weights: int | float) -> list[Any]:
            kept = dict(zip(before, map(float, weights), strict=False))
            now = sorted(chosen)
            return [now, *(_slider(gr, self.studio, now, i, kept) for i in range(MOST_CLASSES))]

        def compose(given: Sequence[Any]) -> tuple[Any, str]:
            try:
                path = write_zip(self.studio, controls_of(*given), self.folder)
            except UserError as e:
                return gr.update(visible=False), markup.refused(str(e))
            size = path.stat().st_size
            return gr.update(value=str(path), label=f"Download it ({size / 1e6:,.1f} MB)", visible=True), ""

        def draw(*given: Any) -> tuple[Any, ...]:
            # A download that is there is of what was shown before.
            return (given, *self.draw(*given), gr.update(visible=False), "")

        page.load(draw, values, shown, **settings)
        change = parts.classes.input(
            sliders, [parts.classes, aboard, *parts.weights], [aboard, *parts.weights],
            api_visibility="private", show_progress="hidden",
        )  # fmt: skip
        change.then(draw, values, shown, **settings)
        moved = [c.input for c in (*parts.weights, parts.learngenes_only, parts.share, parts.guidance, parts.steps)]
        typed = [parts.seed.change, parts.max_params.submit]
        gr.on([*moved, *typed], draw, values, shown, **settings)
        parts.again.click(lambda seed: (int(seed or 0) + 1) % 2**32, parts.seed, parts.seed, api_visibility="private")
        parts.compose.click(compose, drawn, [parts.download, parts.refusal], **settings)

    def draw(self, *given: Any) -> tuple[str, str]:
        """Pictures and figures for the values of the controls, or the sentence that says why there are none."""
        try:
            shown = self.studio.show(controls_of(*given))
        except UserError as e:
            return markup.refused(str(e)), ""
        return markup.pictures(shown), markup.figures(shown)


def controls_of(classes: list[int], *given: Any) -> Controls:
    """The controls of values in the order of the page: classes, ten weights, and all others.

    Raises:
      UserError: a value that no control can have.
    """
    weights, (only, share, most, seed, guidance, steps) = given[:MOST_CLASSES], given[MOST_CLASSES:]
    if not classes:
        raise UserError("No class is chosen, but there must be one or more.")
    return Controls(
        classes=tuple(classes),
        weights=tuple(map(float, weights[: len(classes)])) if len(classes) <= MOST_CLASSES else (),
        learngenes_only=bool(only),
        share=share / 100,
        max_params=amount("the number of parameters", most.strip()) if most and most.strip() else None,
        seed=0 if seed is None else int(seed),
        guidance=float(guidance),
        steps=int(steps),
    )


def _slider(gr: Any, studio: Studio, chosen: list[int], place: int, kept: dict[int, float]) -> Any:
    """The slider at a place: of the class that is there now, where it had been before."""
    if place >= len(chosen) or len(chosen) > MOST_CLASSES or not gated(studio.bundle):
        return gr.update(visible=False)
    number = chosen[place]
    label = weight_label(studio.bundle.class_names[number])
    return gr.update(visible=True, label=label, value=kept.get(number, 1.0))
