import io
import os
import pty

import pytest

from kind_jax.train.progress import Progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_plain_lines_leave_compilation_out_of_the_speed(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # must not put a bar into a log file
    clock, stream = Clock(), io.StringIO()
    with Progress(3000, 200, 64, stream=stream, clock=clock) as progress:
        clock.now = 60.0  # compiling
        progress.update(201, 2.5)
        assert progress.steps_per_second is None
        clock.now += 199 / 12.3
        progress.update(400, 0.18341)
        progress.log("saved checkpoint [bold]400[/bold]")
        assert progress.images_per_second == pytest.approx(12.3 * 64)
    assert stream.getvalue().splitlines() == [
        "step 201/3000  loss 2.5000",
        "step 400/3000  loss 0.1834  12.3 steps/s  787 images/s  ETA 3:31",
        "saved checkpoint [bold]400[/bold]",
    ]


def test_the_first_step_is_told_and_starts_the_clock():
    clock, stream = Clock(), io.StringIO()
    with Progress(3000, 0, 64, stream=stream, clock=clock) as progress:
        clock.now = 23.4
        progress.begin(1, 1.25, 23.4)
        assert not progress.silent
        clock.now += 20.0
        progress.update(1, 1.25)  # where every step is logged
        assert progress.steps_per_second is None
        clock.now += 29.0
        assert not progress.silent
        clock.now += 2.0
        assert progress.silent  # a line is due, however long the logging interval is
        progress.update(18, 1.0)
        assert not progress.silent
    assert stream.getvalue().splitlines() == [
        "step 1/3000 after 23 s  loss 1.2500",
        "step 1/3000  loss 1.2500",
        "step 18/3000  loss 1.0000  3.00 s/step  21 images/s  ETA 2:29:06",
    ]


def test_speed_follows_a_change_of_pace_and_long_runs_show_hours():
    clock, stream = Clock(), io.StringIO()
    with Progress(10_000, 0, 1, stream=stream, clock=clock) as progress:
        for step in range(0, 1000, 10):
            progress.update(step, 1.0)
            clock.now += 1.0 if step < 500 else 20.0
        assert progress.steps_per_second == pytest.approx(0.5)
    assert stream.getvalue().splitlines()[-1] == "step 990/10000  loss 1.0000  2.00 s/step  0.5 images/s  ETA 5:00:20"


def test_terminal_gets_a_bar_and_messages_above_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    clock = Clock()
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as terminal:
        with Progress(100, 0, 8, stream=terminal, clock=clock) as progress:
            progress.update(1, 3.0)
            clock.now = 9.0
            progress.update(91, float("nan"))
            progress.log("saved [checkpoint]")
        terminal.write("END")
        terminal.flush()
        text = ""
        while not text.endswith("END"):  # a terminal hands over what it holds, in pieces
            text += os.read(parent, 1 << 16).decode()
    os.close(parent)
    assert "91/100" in text
    assert "loss nan  10.0 steps/s  80 images/s  ETA 0:01" in text
    assert "saved [checkpoint]" in text
    assert "\x1b[?25h" in text  # the cursor is visible again
