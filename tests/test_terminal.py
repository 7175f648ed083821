"""Whatever is printed, standard output and error that know ASCII alone take it."""

import contextlib
import sys

import command_lines
import pytest

from kind_jax import cli
from kind_jax.commands.console import say_paths, table
from kind_jax.evaluating.progress import counting
from kind_jax.train.progress import Progress


@contextlib.contextmanager
def ascii_streams(folder, monkeypatch):
    """Standard output and error as they are under LC_ALL=C, but stricter: files in ``folder``.

    Not a fixture, since pytest puts its own streams there between the fixtures and the test.
    """
    with contextlib.ExitStack() as stack, monkeypatch.context() as patch:
        for name in ("stdout", "stderr"):
            file = (folder / name).open("w", encoding="ascii", errors="strict")
            patch.setattr(sys, name, stack.enter_context(file))
        yield


@pytest.mark.parametrize("verb", cli.VERBS)
def test_no_verb_fails_at_a_character(verb, monkeypatch, tmp_path):
    def run(args):
        table("|v|² of ééé", ("weight", "…"), [("Ω", "1"), ("\udcff", "2")])
        say_paths("größer", {"plot": tmp_path})
        with counting("Fréchet", 3) as count:
            count(3)
        with Progress(3, stream=sys.stdout) as progress:
            progress.log("😀 learned")
        raise cli.UserError("ラベル is no label…")

    monkeypatch.setitem(sys.modules, f"kind_jax.commands.{verb}", command_lines.verb(run))
    with ascii_streams(tmp_path, monkeypatch):
        assert cli.main([verb]) == 2
    out, err = ((tmp_path / name).read_text("ascii") for name in ("stdout", "stderr"))
    for text in (
        "|v|^2 of \\xe9",
        "...",
        "\\u03a9",
        "\\xff",
        "gr\\xf6\\xdfer",
        "Fr\\xe9chet",
        "\\U0001f600 learned",
        "+--",
    ):
        assert text in out
    assert err == "error: \\u30e9\\u30d9\\u30eb is no label...\n"


def test_help_is_ascii_where_it_must_be(monkeypatch, tmp_path):
    with ascii_streams(tmp_path, monkeypatch):
        for verb in cli.VERBS:
            with pytest.raises(SystemExit) as stop:
                cli.main([verb, "--help"])
            assert stop.value.code == 0
    assert (tmp_path / "stdout").read_text("ascii").count("usage: kind-jax") == len(cli.VERBS)
