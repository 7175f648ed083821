"""Command lines of tests that differ from a common one: an option that is given twice is refused."""

import dataclasses
from types import SimpleNamespace

import kind_jax.commands.repeated  # noqa: F401 - before a test replaces what importing needs


def changed(line, *changes):
    """``line`` with the options in ``changes``, each with one value, in place of its own."""
    line = [str(word) for word in line]
    for option, value in zip(changes[::2], changes[1::2], strict=True):
        if option in line:
            line[line.index(option) + 1] = str(value)
        else:
            line += [option, str(value)]
    return line


@dataclasses.dataclass
class _NoArguments:
    pass


def verb(run):
    """A command without options that does ``run(args)``."""
    return SimpleNamespace(run=run, Arguments=_NoArguments)
