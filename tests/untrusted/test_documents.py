"""JSON, text and files that were made to do harm."""

import json
import os
import tracemalloc

import pytest

from kind_jax.config import Config, FactorConfig, ModelConfig, SamplerConfig, from_json, to_json
from kind_jax.errors import UserError
from kind_jax.untrusted import documents
from kind_jax.untrusted.regular import open_regular
from kind_jax.untrusted.text import check_names, printable

REFUSED = {
    "a key twice": (b'{"a": 1, "b": {"c": 1, "c": 1}}', "it has the key 'c' twice in one object"),
    "a key twice, spelled otherwise": (b'{"a": 1, "\\u0061": 2}', "it has the key 'a' twice"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "it is nested too deeply"),
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "it is nested too deeply"),
    "many digits": (b'{"a": ' + b"9" * 5000 + b"}", "it has an integer of 5000 digits"),
    "NaN": (b'{"a": NaN}', "it has NaN, which is no JSON"),
    "infinity": (b"-Infinity", "it has -Infinity"),
    "infinity in disguise": (b"[1e999]", "it has the number 1e999, which is not finite"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "it is not UTF-8"),
    "UTF-32": ('{"a": 1}'.encode("utf-32-le"), "it is not JSON"),
    "a mark of byte order": (b"\xef\xbb\xbf{}", "it is not JSON"),
    "half a character": (b'["\\ud800"]', "it is not UTF-8"),
    "zeros": (bytes(1000), "it is not JSON"),
    "nothing": (b"", "it is not JSON"),
    "more after it": (b"{} {}", "it is not JSON"),
    "too many values": (b"," * (documents.VALUES + 1), "it has more than 10000000 values"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_documents_are_refused_in_one_sentence(kind):
    data, message = REFUSED[kind]
    with pytest.raises(UserError, match=f"^here is damaged: {message}") as error:
        documents.parse(data, "here")
    assert str(error.value).isprintable()


def test_what_is_fine_is_read_as_it_is():
    text = '{"a": [1, -2.5e3, true, null, "ü \\u00e4 \\ud83d\\ude00"], "b": {"a": {}}, "big": 123456789012345678901}'
    assert documents.parse(text.encode(), "here") == json.loads(text)


def test_files_that_are_none_or_too_large(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(UserError, match=f"{name} is not a file"):
            documents.read(tmp_path / name)
        with pytest.raises(UserError, match=f"{name} is not a file"), open_regular(tmp_path / name):
            pass
    with pytest.raises(UserError, match="gone is missing"), open_regular(tmp_path / "gone"):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="is a symbolic link"), open_regular(tmp_path / "link", links=False):
        pass
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # takes no space on the disk
    tracemalloc.start()
    with pytest.raises(UserError, match="huge has 1099511627776 bytes, but it must have at most 16777216"):
        documents.read(tmp_path / "huge")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_text_cannot_command_the_terminal():
    assert printable("a\x1b[2J\nb\u202ec") == "a\\x1b[2J\\nb\\u202ec"
    assert printable("x" * 300) == "x" * 200 + "…"
    check_names(["ein Name", "名前", "x" * 200], "it")
    for name in ("", "  ", "a\nb", "\x1b[31m", "x" * 201, "\u202e"):
        with pytest.raises(UserError, match=r"^it has the class name .*printable characters") as error:
            check_names(["fine", name], "it")
        assert str(error.value).isprintable()


MUCH = {
    "model.num_classes": lambda: ModelConfig(num_classes=10**12),
    "model.depth": lambda: ModelConfig(depth=10**12),
    "model.width": lambda: ModelConfig(width=4 * 10**12, heads=1),
    "model.size": lambda: ModelConfig(size=2 * 10**12),
    "model.channels": lambda: ModelConfig(channels=10**12),
    "model.mlp_ratio": lambda: ModelConfig(mlp_ratio=1e306),
    "model.scan_unroll": lambda: ModelConfig(scan_unroll=10**12),
    "model.groups": lambda: ModelConfig(num_classes=2, groups=(0, 10**12)),
    "model.factor.rank": lambda: FactorConfig(rank=10**30),
    "model.factor.tailors": lambda: FactorConfig(tailors=10**12),
    "model.factor.learngenes": lambda: FactorConfig(learngenes=10**12),
    "model.factor.ranks": lambda: FactorConfig(ranks=(("0/qkv", 10**12, 1),)),
    "sampler.guidance": lambda: SamplerConfig(guidance=float("inf")),
    "sampler.steps": lambda: SamplerConfig(steps=10**12),
    "model is": lambda: ModelConfig(
        width=65_536, depth=1000, heads=1, num_classes=10**6, factor=FactorConfig(learngenes=2**20, tailors=2**20)
    ),
}  # fmt: skip


@pytest.mark.parametrize("field", MUCH)
def test_what_no_machine_has_is_refused_at_once(field):
    tracemalloc.start()
    with pytest.raises(UserError, match=f"^{field}") as error:
        MUCH[field]()
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(str(error.value)) < 400


def test_a_saved_config_is_read_strictly():
    text = to_json(Config())
    for old, new, message in (
        ('"depth": 12', '"depth": 1, "depth": 12', "here is damaged: it has the key 'depth' twice"),
        ('"num_classes": 1000', '"num_classes": 1000000000000', "here: model.num_classes is 1000000000000"),
        ('"groups": null', '"groups": ' + "[" * 5000 + "]" * 5000, "here is damaged: it is nested too deeply"),
        ('"depth"', '"\\u001b[2J"', r"here: model\.\\x1b\[2J: Unexpected"),
    ):
        assert old in text
        with pytest.raises(UserError, match=message):
            from_json(text.replace(old, new, 1), "here")
    with pytest.raises(UserError, match="a config must have at most"):
        from_json(b" " * (65 << 20), "here")
