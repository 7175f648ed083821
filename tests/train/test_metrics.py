import json
import math
import os
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax.errors import UserError
from kind_jax.train.metrics import JsonLinesWriter, make_writer, read_metrics


def test_lines_are_strict_json_and_read_back(tmp_path):
    writer = make_writer(tmp_path)
    writer.write(1, {"loss": jnp.float32(0.5), "norm": np.float64(2)})
    writer.write(2, {"loss": math.nan, "norm": -math.inf})
    # Each line is on disk at once, so that a run can be followed and a crash loses nothing.
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    writer.close()

    def no_constant(name):
        pytest.fail(f"{name} is not JSON")

    assert json.loads(lines[0]) == {"step": 1, "loss": 0.5, "norm": 2.0}
    assert json.loads(lines[1], parse_constant=no_constant) == {"step": 2, "loss": "nan", "norm": "-inf"}
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(rows[1]["loss"])
    assert rows[1]["norm"] == -math.inf


def test_resume_drops_later_steps_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLinesWriter(path)
    for step in (100, 200, 300):
        writer.write(step, {"loss": step / 1000})
    writer.close()
    with path.open("a") as file:
        file.write('{"step": 400, "lo')
    assert [row["step"] for row in read_metrics(path)] == [100, 200, 300]
    writer = JsonLinesWriter(path, resume_step=200)
    assert [row["step"] for row in read_metrics(path)] == [100, 200]
    writer.write(300, {"loss": 9.0})
    writer.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(100, 0.1), (200, 0.2), (300, 9.0)]
    JsonLinesWriter(path).close()
    assert read_metrics(path) == []


def test_resume_that_drops_nothing_leaves_the_file_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1}\n')
    before = path.stat().st_ino
    JsonLinesWriter(path, resume_step=1).close()
    assert path.stat().st_ino == before


@pytest.mark.parametrize("line", ["rubbish", "[1]", '{"loss": 1}', '{"step": "1"}'])
def test_a_foreign_line_is_named_and_nothing_is_lost(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    content = f'{{"step": 5}}\n{line}\n'
    path.write_text(content)
    with pytest.raises(UserError, match=r"metrics\.jsonl.*line 2"):
        JsonLinesWriter(path)
    assert path.read_text() == content


@pytest.mark.parametrize(
    "line",
    [
        b'{"step": true}', b'{"step": 1.0}', b'{"step": 1, "step": 2}', b'{"step": NaN}', b"[" * 100_000, b"9" * 5000,
        b"\xff\xfe", bytes(40), b"", b'{"step": 1, "loss": [1]}', b'{"step": 1, "loss": "low"}',
        b'{"step": 1, "loss": null}',
    ],
)  # fmt: skip
def test_damage_in_the_middle_is_named_and_at_the_end_is_a_kill(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 5}\n' + line + b'\n{"step": 6, "loss": "nan"}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl', line 2: found"):
        read_metrics(path)
    path.write_bytes(b'{"step": 5}\n' + line)
    assert read_metrics(path) == [{"step": 5}]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    for use in (read_metrics, JsonLinesWriter):
        with pytest.raises(UserError, match="is not a file"):
            use(tmp_path / "metrics.jsonl")


def test_full_disk_is_a_user_error():
    writer = JsonLinesWriter.__new__(JsonLinesWriter)
    with open("/dev/full", "wb", buffering=0) as full:
        writer._descriptor, writer._path = full.fileno(), "runs/a/metrics.jsonl"
        with pytest.raises(UserError, match=r"metrics\.jsonl.*No space left"):
            writer.write(1, {"loss": 1.0})


def test_tensorboard_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    make_writer(tmp_path / "a", tensorboard=False).close()
    with pytest.raises(UserError, match=r"pip install 'kind-jax\[tensorboard\]'"):
        make_writer(tmp_path / "b", tensorboard=True)


def test_tensorboard_gets_the_same_numbers(tmp_path, monkeypatch):
    calls = []

    class SummaryWriter:
        def __init__(self, logdir, purge_step=None):
            calls.append((logdir, purge_step))

        def add_scalar(self, tag, value, global_step):
            calls.append((tag, value, global_step))

        def flush(self):
            pass

        def close(self):
            calls.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    writer = make_writer(tmp_path, tensorboard=True, resume_step=100)
    writer.write(101, {"loss": jnp.float32(0.25)})
    writer.close()
    assert calls == [(str(tmp_path / "tensorboard"), 101), ("loss", 0.25, 101), "closed"]
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 101, "loss": 0.25}]
