import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kind_jax.errors import UserError
from kind_jax.text import clip
from kind_jax.text.tokenizer import Tokenizer, rows, tokenizer_of

TEXTS = ("a red apple", "naïve — 東京 🙂", " two  spaces\n", "!")
CLIP = all(importlib.util.find_spec(name) for name in ("tokenizers", "ftfy", "open_clip"))
needs_clip = pytest.mark.skipif(not CLIP, reason=f"`{clip.INSTALL}` installs the vocabulary of CLIP")


def test_bytes_are_three_behind_the_specials():
    tokenizer = tokenizer_of("bytes")
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.name, tokenizer.vocabulary, tokenizer.pad, tokenizer.bos, tokenizer.eos) == (
        "bytes",
        259,
        0,
        1,
        2,
    )
    assert tokenizer.encode("aé") == [97 + 3, 0xC3 + 3, 0xA9 + 3]
    assert tokenizer.decode([258]) == "\ufffd"  # 255 is in no UTF-8
    assert tokenizer.decode([1, 100, 0, 101, 2, 102]) == "ab"


@pytest.mark.parametrize("text", TEXTS)
def test_a_row_is_begin_text_end_padding_and_decodes_to_the_text(text):
    tokenizer = tokenizer_of("bytes")
    (row,), cut = rows(tokenizer, [text], 40)
    count = len(text.encode())
    assert row.dtype == np.int32
    assert cut == 0
    assert row[0] == tokenizer.bos
    assert row[count + 1] == tokenizer.eos
    assert not row[count + 2 :].any()
    assert (row[1 : count + 1] > tokenizer.eos).all()
    assert tokenizer.decode(row) == text
    (tight,), _ = rows(tokenizer, [text], count + 2)
    assert tokenizer.decode(tight) == text


def test_a_caption_that_does_not_fit_is_refused_or_cut_between_characters():
    tokenizer = tokenizer_of("bytes")
    with pytest.raises(UserError, match=r"'a long é…?.* of record 1 has 9 tokens of 'bytes', .* fit into 10, .* 8\."):
        rows(tokenizer, ["short", "a long é"], 10)
    tokens, cut = rows(tokenizer, ["short", "a long é", "a longer"], 10, truncate=True)
    assert cut == 1
    assert [tokenizer.decode(row) for row in tokens] == ["short", "a long ", "a longer"]
    assert tokens[1].tolist().count(tokenizer.eos) == 1
    with pytest.raises(UserError, match=r"of record 0 has 1000 tokens"):
        rows(tokenizer, ["x" * 1000], 77)
    assert rows(tokenizer, ["x" * 1000], 77, truncate=True).tokens[0, -1] == tokenizer.eos


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_caption_is_refused(text):
    with pytest.raises(UserError, match=r"caption of record 2 is empty"):
        rows(tokenizer_of("bytes"), ["a", "b", text], 8)


def test_numbers_that_are_no_tokens_and_unknown_names_are_refused():
    for wrong in (259, -1):
        with pytest.raises(UserError, match=rf"include {wrong}, but the tokenizer 'bytes' has those from 0 to 258\."):
            tokenizer_of("bytes").decode([1, 100, 2, wrong])
    with pytest.raises(UserError, match=r"the tokenizer is 'words', but it must be one of bytes, clip\."):
        tokenizer_of("words")
    with pytest.raises(UserError, match=r"row is 2 tokens, but it must be 3 or more"):
        rows(tokenizer_of("bytes"), ["a"], 2)


@pytest.mark.parametrize("missing", ["tokenizers", "ftfy", "open_clip"])
def test_without_a_package_a_sentence_says_what_installs_it(missing, monkeypatch):
    class Spec:
        submodule_search_locations = ()

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else Spec())
    monkeypatch.setattr(importlib, "import_module", lambda name: None)
    shown = {"open_clip": "open_clip_torch"}.get(missing, missing)
    with pytest.raises(UserError) as error:
        clip.Clip()
    assert str(error.value) == (
        f"the tokenizer is 'clip', but the package {shown} that it needs is not installed; `{clip.INSTALL}` installs "
        "all that it needs."
    )


def test_the_alphabet_of_bytes_is_published_gpt_2s():
    letters = dict(zip(clip._order(), clip._alphabet(), strict=True))
    assert sorted(letters) == list(range(256))
    assert len(set(letters.values())) == 256
    # Radford et al. 2019: a space is Ġ and a line break Ċ, and what is visible stands for itself.
    assert (letters[32], letters[10], letters[127], letters[173]) == ("Ġ", "Ċ", "ġ", "Ń")
    assert all(letters[byte] == chr(byte) for byte in b"!Aaz~\xa1\xff")


@needs_clip
def test_clip_has_the_published_tokens():
    tokenizer = tokenizer_of("clip")
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.vocabulary, tokenizer.pad, tokenizer.bos, tokenizer.eos) == (49408, 0, 49406, 49407)
    # What the tokenizer of OpenAI's CLIP makes of them.
    assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert tokenizer.encode("Hello,   World!") == [3306, 267, 1002, 256]
    assert tokenizer.encode("a diagram") == [320, 22697]
    for text in TEXTS:
        (row,), _ = rows(tokenizer, [text], 24)
        assert tokenizer.decode(row).replace(" ", "") == text.replace(" ", "").strip()
    assert tokenizer.decode(tokenizer.encode("<end_of_text>")).replace(" ", "") == "<end_of_text>"
    assert tokenizer.eos not in tokenizer.encode("<end_of_text> <|endoftext|>")


@needs_clip
def test_clip_needs_no_pytorch_and_refuses_another_vocabulary(tmp_path, monkeypatch):
    code = "import sys; from kind_jax.text import clip; clip.Clip(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(clip.__file__).parents[2], check=False)
    assert done.returncode == 0
    (tmp_path / "other.gz").write_bytes(b"no vocabulary")
    monkeypatch.setattr(clip, "_path", lambda: tmp_path / "other.gz")
    with pytest.raises(UserError, match=r"other\.gz has the SHA-256 .*, but it must be that of CLIP's vocabulary"):
        clip.Clip()
