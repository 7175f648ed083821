"""``kind-jax VERB ...``: one verb for each thing that one does with a model."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

from kind_jax import __version__
from kind_jax.commands.told import OPTIONS, options, speaking
from kind_jax.errors import UserError
from kind_jax.host import keep_memory
from kind_jax.interrupts import interruptible, leave, received
from kind_jax.terminal import tolerate
from kind_jax.train.ending import EXIT_RESTARTABLE
from kind_jax.untrusted.text import printable

VERBS = {
    "new": "look at a folder of images and propose the settings of a model of them",
    "train": "train a model, or continue a run",
    "transfer": "move a model to new classes or a new domain: frozen learngenes, fresh tailors",
    "latents": "encode a data set with an autoencoder, for training on latents",
    "sample": "draw images from a run or an artifact",
    "play": "open a page in the browser: mix classes, change the size, watch what is drawn",
    "synthesize": "draw a training set from a run or an artifact, to train on beside real images",
    "inspect": "show sizes, components and their energy",
    "export": "write a run as an artifact: learngenes, params, one file of tailors per group; or for other programs",
    "push": "share a model on the Hugging Face Hub",
    "convert": "read a model of DiT, diffusers, timm or torchvision; decompose a DiT into learngenes and tailors",
    "caption": "say what is on images",
    "compose": "choose classes and a budget, and write the model that serves them",
    "zip": "merge classifiers of different classes into one, without training",
    "distil": "train a composed model to predict what the whole one predicts",
    "divide": "cut a model into modules of consecutive blocks",
    "modules": "how far the modules of a network are, and the command lines that train them",
    "assemble": "put modules together, as one model",
    "grow": "add classes to a model whose learngenes stay as they are",
    "merge": "make one generator of several: exactly, or decomposed together",
    "shrink": "remove classes from a model",
    "evaluate": "measure samples: FID with Inception weights, or an offline judge",
    "report": "write a report of a run as one HTML file",
    "plan": "compile the train step for hardware that is not here: whether it fits, how long a step takes",
}

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_ON_SEVERAL_HOSTS = ("train", "transfer", "distil")

_USAGE = "\n".join(
    [
        "usage: kind-jax VERB ... ",
        "",
        "Decomposable diffusion transformers: train once, take apart, ship only the parts.",
        "",
        *(f"  {verb:<10} {what}" for verb, what in VERBS.items()),
        "",
        *(f"  {option:<10} {what}" for option, what in OPTIONS.items()),
        "",
        "An option that takes a list takes several values, and may be repeated. Classes are named by number or name.",
        "`kind-jax VERB --help` explains a verb, `kind-jax VERB RUN --help` what it does for the kind of a run;",
        "exit code 2 means that an argument, file or setting is wrong.",
    ]
)


def main(args: list[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 done, 2 the user's mistake, 75 resumable.

    A run is resumable that was stopped by a signal, or because another host of it was lost (kind_jax/train/watch.py).
    """
    tolerate()
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if args else 2
    if args[0] == "--version":
        print(f"kind-jax {__version__}")
        return 0
    strange = next((a for a in args if any(unicodedata.category(c) == "Cc" for c in a)), None)
    if strange is not None:  # messages of the parser would pass them on to the terminal
        return _refused(f"the argument {strange!r:.200} has control characters, but it must have none.")
    if args[0] not in VERBS:
        return _refused(f"the verb is {args[0]!r:.200}, but it must be one of {', '.join(VERBS)}.")
    _quiet()
    keep_memory()
    told, rest = options(args[1:])
    error = None
    try:
        with interruptible(), speaking(told):
            code = _run(args[0], rest)
    except (Exception, KeyboardInterrupt) as e:
        code = _ended(args[0], e)
        if code is None:
            raise
        error = _one_line(str(e))
    except SystemExit as e:  # of the parser, which has said why
        if not told.json or not e.code:
            raise
        code, error = 2, "an argument is wrong, see standard error"
    if told.json:
        print(told.as_json(args[0], code, error))
    return code


def _ended(verb: str, error: BaseException) -> int | None:
    """Say why a verb ended early; returns the exit code, None for an error of ours."""
    if received() or isinstance(error, KeyboardInterrupt):  # whatever a library has made of it
        return _stopped(verb)
    if isinstance(error, UserError):
        return _refused(str(error))
    if isinstance(error, BrokenPipeError):
        return _unheard(verb)
    if isinstance(error, OSError) and error.filename is not None:  # a path that no check foresaw: too long, say
        return _refused(f"{os.fsdecode(error.filename)!r:.200} cannot be used: {error.strerror}.")
    if isinstance(error, OSError) and error.errno in _FULL:  # whatever writes files says which: it is what we print
        _mute()
        return _refused(f"the output cannot be written to where it goes: {error.strerror}.")
    return None


def _unheard(verb: str) -> int:
    """The reader of our output has gone, like ``head`` after its lines; returns the exit code, which is not success."""
    _mute()
    if verb in _ON_SEVERAL_HOSTS:
        with contextlib.suppress(OSError):  # of standard error, which may have had the same reader
            print(
                "error: whatever read the output has ended, and so did this; the same command goes on from the last "
                "checkpoint",
                file=sys.stderr,
            )
        return EXIT_RESTARTABLE
    return 128 + signal.SIGPIPE


def _mute() -> None:
    """Let Python flush what is left at its end into nothing, or it would fail at it again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stopped(verb: str) -> int:
    """What a signal ended outside of the training loop, which has its own way to stop; returns the exit code."""
    if verb in _ON_SEVERAL_HOSTS:
        print("stopped before a step was begun; the same command starts again", file=sys.stderr)
        return EXIT_RESTARTABLE
    print("interrupted", file=sys.stderr)
    return 128 + next(iter(received()), signal.SIGINT)


def _one_line(text: str) -> str:
    """``text`` without commands to the terminal."""
    return printable(" ".join(text.split()), 2000)


def _refused(sentence: str) -> int:
    """Say what the user can mend; returns the exit code."""
    print(f"error: {_one_line(sentence)}", file=sys.stderr)
    return 2


def _run(verb: str, args: list[str]) -> int:
    from kind_jax.commands.kinds import own  # not above: `kind-jax --help` does without tyro
    from kind_jax.commands.repeated import joined

    command = own(verb, args) or importlib.import_module(f"kind_jax.commands.{verb}")
    args = joined(command.Arguments, args)
    if verb not in _ON_SEVERAL_HOSTS:
        return command.run(args)
    from kind_jax.train import watch  # after the command's module, which decides what else is imported

    with watch.one_fate():
        code = command.run(args)
        watch.end()
    return code


def _quiet() -> None:
    """Keep the chatter of libraries out of our output; what they fail at reaches us as exceptions."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("absl", "asyncio"):  # Orbax logs stack traces of its threads, and leaves errors of tasks behind
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, _Quieter):
        sys.unraisablehook = _Quieter(sys.unraisablehook)


class _Quieter:
    """Leaves out what has reached us already: a signal in a callback (kind_jax/interrupts.py has noted it), and what a
    save that failed goes on failing at."""

    def __init__(self, others: Callable[[Any], object]) -> None:
        self._others = others

    def __call__(self, unraisable: Any) -> None:
        known = (
            isinstance(unraisable.exc_value, KeyboardInterrupt) or str(unraisable.exc_value) == "Event loop is closed"
        )
        if not known:
            self._others(unraisable)


def entry() -> None:
    """The console script."""
    leave(main())
