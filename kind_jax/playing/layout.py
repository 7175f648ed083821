"""Where the controls are on the page, and where they begin."""

from __future__ import annotations

import dataclasses
from typing import Any

from kind_jax.config import Config
from kind_jax.deploy.bundle import Bundle
from kind_jax.playing.batch import gated
from kind_jax.playing.controls import MOST_CLASSES
from kind_jax.playing.studio import Studio

_BOXES = 40  # classes that are boxes to tick; more are a list to search
_STEPS = (5, 10, 25, 50, 100, 250)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """gradio's components by what they are."""

    classes: Any
    weights: tuple[Any, ...]
    learngenes_only: Any
    share: Any
    max_params: Any
    seed: Any
    again: Any
    guidance: Any
    steps: Any
    compose: Any
    download: Any
    pictures: Any
    figures: Any
    refusal: Any


def first_classes(bundle: Bundle) -> list[int]:
    """The classes that are chosen when a page opens."""
    return list(bundle.served[:2])


def step_choices(config: Config) -> list[int]:
    """Numbers of sampler steps on offer; few, as the program of each is compiled."""
    most = config.diffusion.train_steps if config.diffusion.process == "gaussian" else _STEPS[-1]
    return sorted({n for n in _STEPS if n <= most} | {config.sampler.steps})


def lay_out(gr: Any, studio: Studio, seed: int) -> Parts:
    """Place all components within the Blocks at hand.

    Args:
      gr: the library.
      studio: the model of the page.
      seed: where the seed begins.
    """
    bundle = studio.bundle
    with gr.Row():
        with gr.Column(scale=2, min_width=350):
            own = _of_model(gr, bundle, seed)
        with gr.Column(scale=5, min_width=480):
            pictures = gr.HTML(elem_id="pictures", min_height=320)
            figures = gr.HTML(elem_id="figures")
            with gr.Row():
                button = gr.Button("Compose this model", variant="primary", elem_id="compose")
                download = gr.DownloadButton("Download", visible=False, elem_id="download")
            refusal = gr.HTML(elem_id="refusal")
    return Parts(**own, pictures=pictures, figures=figures, compose=button, download=download, refusal=refusal)


def _of_model(gr: Any, bundle: Bundle, seed: int) -> dict[str, Any]:
    config, names, has_gate = bundle.config, bundle.class_names, gated(bundle)
    chosen, choices = first_classes(bundle), [(names[c], c) for c in bundle.served]
    with gr.Group():
        if len(choices) <= _BOXES:
            classes = gr.CheckboxGroup(choices, value=chosen, label="Classes", elem_id="classes")
        else:
            classes = gr.Dropdown(
                choices, value=chosen, label=f"Classes, up to {MOST_CLASSES}", multiselect=True,
                max_choices=MOST_CLASSES, elem_id="classes",
            )  # fmt: skip
        sliders = tuple(
            gr.Slider(
                0, 1, value=1, step=0.05, label=weight_label(names[chosen[i]]) if i < len(chosen) else "",
                visible=has_gate and i < len(chosen), elem_id=f"weight-{i}",
            )
            for i in range(MOST_CLASSES)
        )  # fmt: skip
        only = gr.Checkbox(label="Learngenes only (all tailors off)", visible=has_gate, elem_id="learngenes-only")
    with gr.Group():
        share = gr.Slider(
            0, 100, value=100, step=5, label="Size budget in %", elem_id="share",
            info="0: the smallest model of these classes, 100: the whole one. A new size takes some seconds.",
        )  # fmt: skip
        most = gr.Textbox(
            label="… or at most this many parameters", placeholder="like 150k, then Enter",
            elem_id="max-params", max_lines=1,
        )  # fmt: skip
    with gr.Group():
        with gr.Row():
            number = gr.Number(seed, label="Seed", precision=0, elem_id="seed", min_width=120)
            steps = gr.Dropdown(
                step_choices(config), value=config.sampler.steps, label="Sampler steps", elem_id="steps", min_width=120
            )
        guidance = gr.Slider(
            0, max(10, config.sampler.guidance), value=config.sampler.guidance, step=0.25,
            label="Guidance (1 is none)", elem_id="guidance",
        )  # fmt: skip
        again = gr.Button("New noise", elem_id="again")
    return {
        "classes": classes, "weights": sliders, "learngenes_only": only, "share": share, "max_params": most,
        "seed": number, "again": again, "guidance": guidance, "steps": steps,
    }  # fmt: skip


def weight_label(name: str) -> str:
    """What the slider of a class is called."""
    return f"Tailors of {name}"
