"""The page: controls on the left, pictures and figures on the right. Nothing here computes."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

from kind_jax.classes import describe
from kind_jax.deploy.bundle import Bundle
from kind_jax.evaluating.judge import Judge
from kind_jax.playing import judging, library, markup
from kind_jax.playing.events import Events
from kind_jax.playing.layout import lay_out
from kind_jax.playing.local import local_blocks
from kind_jax.playing.studio import Studio
from kind_jax.vae import Vae


def build(
    bundle: Bundle,
    *,
    seed: int = 0,
    judge: Judge | None = None,
    vae: Vae | None = None,
    folder: Path | None = None,
) -> Any:
    """A page to play with a model, as gradio's Blocks; ``build(bundle).launch()`` opens it in a notebook.

    Args:
      bundle: the model; its config's sampler is where steps and guidance begin.
      seed: where the seed begins.
      judge: tells classes apart in samples; None: the one that a report or an evaluation has left in the run.
      vae: decodes samples of a model of latents.
      folder: where downloads are written; None: a temporary folder that goes with the process.

    Raises:
      UserError: gradio is not installed, the bundle is none of a model that draws classes, or its judge is damaged.
    """
    gr = library.gradio()
    studio = Studio(bundle, judge=judge or judging.find(bundle), vae=vae)
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="kind-jax-play-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    name = bundle.origin.resolve().name
    with local_blocks(gr, title=f"{name} · kind-jax play") as page:
        gr.HTML(markup.heading(name, describe(bundle.served, bundle.class_names)))
        parts = lay_out(gr, studio, seed)
        Events(studio, folder).connect(gr, page, parts)
    return page
