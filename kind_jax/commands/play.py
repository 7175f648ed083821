"""``kind-jax play``: a page in the browser to play with a model."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import tyro

from kind_jax.commands.console import Classes, chosen, typed
from kind_jax.commands.sampler import SamplerArguments
from kind_jax.config import Config
from kind_jax.config.check import check_seed
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(SamplerArguments):
    """Open a page on this machine to choose classes, mix tailors and watch sizes; Ctrl-C ends it."""

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact; of an artifact only the tailors of --classes are read."""
    classes: Classes = ()
    """Classes that the page offers, by number, range or name, like 3,7 or 0-4 or cat,dog; default: all that the model
    serves. What reads as a number is a number, also where it is another class's name."""
    judge: Path | None = None
    """Classifier that measures the pictures, a file that report or evaluate wrote; default: judge.safetensors in the
    run, if it is there."""
    host: str = "127.0.0.1"
    """Address to listen at; with any other than this one, others on the network can use the page, too."""
    port: int | None = None
    """Port to listen at; default: 7860, or the next that is free."""


def run(args: list[str]) -> int:
    """Parse ``args`` and serve the page until a signal comes."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax play")
    check_seed(parsed.seed, "--seed")
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise UserError(f"--port is {parsed.port}, but it must be between 1 and 65535.")
    asked = typed("--classes", parsed.classes)

    from kind_jax.playing import library

    library.gradio()  # before a model is read: it may not be installed

    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.playing import judging
    from kind_jax.playing.page import build

    bundle = open_bundle(parsed.source, classes=asked, weights=parsed.weights, kind=Config)
    chosen(asked, bundle.class_names)  # says where a number is the name of another class
    config = dataclasses.replace(bundle.config, sampler=parsed.sampler_of(bundle.config))
    bundle = dataclasses.replace(bundle, config=config)
    judge, vae = judging.find(bundle, parsed.judge), parsed.vae_of(bundle.config)
    with tempfile.TemporaryDirectory(prefix="kind-jax-play-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # its copies of downloads go with ours
        page = build(bundle, seed=parsed.seed, judge=judge, vae=vae, folder=Path(folder))
        try:
            _serve(page, parsed.host, parsed.port)
        finally:
            page.close(verbose=False)
    return 0


def _serve(page: Any, host: str, port: int | None) -> None:
    for name in ("no_proxy", "NO_PROXY"):  # gradio asks itself whether it is there, which is no business of a proxy
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), host, "localhost")))
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, inbrowser=False
        )
    except OSError as e:
        free = "some port from 7860 to 7959" if port is None else f"the port {port} (--port)"
        raise UserError(f"--host is {host!r}, but it must be an address of this machine where {free} is free.") from e
    print(f"{page.title}: {address} (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
