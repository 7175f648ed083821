"""``kind-jax VERB ...``: one verb for each thing that one does with a model."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import unicodedata

from kind_jax import __version__
from kind_jax.errors import UserError
from kind_jax.host import keep_memory
from kind_jax.untrusted.text import printable

VERBS = {
    "train": "train a model, or continue a run",
    "transfer": "move a model to new classes or a new domain: frozen learngenes, fresh tailors",
    "sample": "draw images from a run or an artifact",
    "inspect": "show sizes, components and their energy",
    "export": "write a run as an artifact: learngenes, params, one file of tailors per group",
    "compose": "choose classes and a budget, and write the model that serves them",
    "grow": "add classes to a model whose learngenes stay as they are",
    "shrink": "remove classes from a model",
    "evaluate": "measure samples: FID with Inception weights, or an offline judge",
    "report": "write a report of a run as one HTML file",
    "plan": "compile the train step for hardware that is not here: whether it fits, how long a step takes",
}

_ON_SEVERAL_HOSTS = ("train", "transfer")

_USAGE = "\n".join(
    [
        "usage: kind-jax VERB ... ",
        "",
        "Decomposable diffusion transformers: train once, take apart, ship only the parts.",
        "",
        *(f"  {verb:<9} {what}" for verb, what in VERBS.items()),
        "",
        "`kind-jax VERB --help` explains a verb; exit code 2 means that an argument, file or setting is wrong.",
    ]
)


def main(args: list[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 done, 2 the user's mistake, 75 resumable.

    A run is resumable that was stopped by a signal, or because another host of it was lost (kind_jax/train/watch.py).
    """
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
    try:
        return _run(args[0], args[1:])
    except UserError as e:
        return _refused(str(e))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:  # a path that no check foresaw: too long, a loop of links, in a folder that is not ours
        if e.filename is None:
            raise
        return _refused(f"{os.fsdecode(e.filename)!r:.200} cannot be used: {e.strerror}.")


def _refused(sentence: str) -> int:
    """Say in one line, without commands to the terminal, what the user can mend; returns the exit code."""
    print(f"error: {printable(' '.join(sentence.split()), 2000)}", file=sys.stderr)
    return 2


def _run(verb: str, args: list[str]) -> int:
    command = importlib.import_module(f"kind_jax.commands.{verb}")
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
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs stack traces of its threads as errors


def entry() -> None:
    """The console script."""
    sys.exit(main())
