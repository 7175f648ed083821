"""A short fuzz of the command line finds nothing, and a command that misbehaves is found."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from chaos import fuzz, lines

LINES, HEADERS, SEED = 25, 40, 32  # no line of this seed trains for long


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    config = tiny.change(tiny.CONFIG, train={"steps": 2})
    return fuzz.make_run(config, tmp_path_factory.mktemp("whole"))


def test_a_short_fuzz(whole, tmp_path):
    outcome = fuzz.fuzz_lines(whole, tmp_path, LINES, SEED)
    assert outcome.failures == ()
    assert outcome.figures["refused"] > LINES // 2
    assert outcome.figures["valid"] > 0
    assert not list(tmp_path.iterdir())


def test_damaged_headers_of_a_trained_model(whole, tmp_path):
    outcome = fuzz.fuzz_headers(whole.artifact, tmp_path, HEADERS, SEED)
    assert outcome.failures == ()
    assert outcome.cases == sum(outcome.figures.values()) == HEADERS


def refuse(args):
    print("error: no.", file=sys.stderr)
    return 2


def test_the_same_seed_gives_the_same_lines(whole, tmp_path, monkeypatch):
    seen = []

    def note(args):
        seen.append([arg.replace(str(tmp_path), "") for arg in args])
        return refuse(args)

    monkeypatch.setattr(fuzz, "main", note)
    fuzz.fuzz_lines(whole, tmp_path, 6, SEED)
    fuzz.fuzz_lines(whole, tmp_path, 3, SEED, first=3)
    assert seen[6:] == seen[3:6]
    assert len({tuple(args) for args in seen[:6]}) == 6


def crash(args):
    raise ValueError("a bug")


def fail(args):
    return 1


def accept(args):
    return 0


def exit_zero(args):
    raise SystemExit(0)


def babble(args):
    print("error: no.\nOr yes.", file=sys.stderr)
    return 2


def command_the_terminal(args):
    print("error: \x1b[2J.", file=sys.stderr)
    return 2


def leave_a_part(args):
    Path("part").write_text("x")
    return refuse(args)


def change_the_run(args):
    (Path("../../run") / "config.json").write_text("{}")
    return accept(args)


def print_a_trace(args):
    print("Traceback (most recent call last): ...")
    return refuse(args)


def hang(args):
    while True:
        try:
            np.linalg.norm(np.ones(10))
        except KeyboardInterrupt:  # does not stop when it is asked to
            continue


@pytest.mark.parametrize(
    ("misbehave", "found"),
    [
        (crash, "ValueError: a bug"),
        (fail, "ended with 1"),
        (accept, "ended with 0, but it must be refused"),
        (exit_zero, "ended with 0, but it must be refused"),
        (babble, "not one sentence"),
        (command_the_terminal, "control characters"),
        (leave_a_part, "left behind: a/b/part"),
        (change_the_run, "run/config.json"),
        (print_a_trace, "a trace of the stack"),
        (hang, "took more than 2 seconds"),
    ],
)
def test_misbehaviour_is_found(whole, tmp_path, monkeypatch, misbehave, found):
    line = lines.Line(args=("sample", "nowhere"), doomed=True)
    monkeypatch.setattr(lines, "draw", lambda rng, place: line)
    monkeypatch.setattr(fuzz, "main", misbehave)
    monkeypatch.setattr(fuzz, "PATIENCE", 1)
    monkeypatch.setattr(fuzz, "LIMIT", 2)
    outcome = fuzz.fuzz_lines(whole, tmp_path, 1, SEED)
    assert any(found in failure for failure in outcome.failures)
    assert all(failure.startswith(f"seed {SEED}, case 0: 'sample' 'nowhere'") for failure in outcome.failures)
