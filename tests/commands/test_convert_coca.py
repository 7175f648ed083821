"""open_clip's CoCa from the command line, and back."""

import chex
import numpy as np
import pytest
import safetensors.numpy
from open_clip_states import coca, filled

from kind_jax.captioning.config import CaptionRun
from kind_jax.cli import main
from kind_jax.deploy.bundle import open_bundle

STATE = coca(width=16, image_width=24, layers=(1, 2, 1), vocabulary=259)
HEADS = ["--heads", "3", "--text-heads", "2", "--pooler-heads", "4"]


def write(path, names=STATE, **changes):
    """A state dict as a file, with arrays replaced, or left out where the value is None."""
    found = {name: a for name, a in (filled(names) | changes).items() if a is not None}
    safetensors.numpy.save_file(found, path)
    return str(path)


def test_round_trips_are_exact(tmp_path, capsys):
    source, art, back, again = (str(tmp_path / n) for n in ("a.safetensors", "a", "b.safetensors", "b"))
    write(source)
    how = [*HEADS, "--cls-mask", "valid", "--activation", "quick_gelu"]
    assert main(["convert", source, "--from", "open_clip", "--out", art, *how]) == 0
    out = capsys.readouterr().out
    assert "CoCa, layers x width: image 1 x 24, text 2 x 16, multimodal 1 x 16; inputs 12 x 12 x 3, texts of 10" in out
    assert f"{sum(a.size for a in filled(STATE).values()):,}" in out
    found = open_bundle(art)
    assert isinstance(found.config, CaptionRun)
    assert (found.config.text.tokenizer, found.config.data.size, found.class_names) == ("bytes", 12, ())
    config = found.config.model
    assert (config.cls_mask, config.activation, config.pooler_heads) == ("valid", "quick_gelu", 4)
    assert [tower.heads for tower in config.towers.values()] == [3, 2, 2]
    assert main(["export", art, "--to", "open_clip", "--out", back]) == 0
    assert "open_clip has to be told what no array tells: 3, 2, 2 heads, 4 of the pooler" in capsys.readouterr().out
    chex.assert_trees_all_equal(safetensors.numpy.load_file(back), safetensors.numpy.load_file(source))
    assert main(["convert", back, "--from", "open_clip", "--out", again, *how]) == 0
    chex.assert_trees_all_equal(open_bundle(again).collections, found.collections)
    assert main(["export", art, "--to", "open_clip", "--out", back, "--replace"]) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--size", "8"], "--size is 8, but it belongs to --from timm, torchvision or efficientnet-lite0."),
        (["--interpolate"], "--interpolate is True, but it belongs to --from timm or torchvision."),
        (
            ["--learngenes", "3", "--tailors", "1"],
            "--learngenes is '3', but it belongs to --from dit, diffus",
        ),
        (["--mean", "0.5", "0.5", "0.5"], "--mean is given, but --std is not"),
        (["--pooler-heads", "0"], "model.pooler_heads is 0, but it must be a divisor of 16"),
        (["--text-heads", "0"], "model.text.heads is 0, but it must be 1 or more"),
    ],
)
def test_options_that_are_refused(line, message, tmp_path, capsys):
    source, out = write(tmp_path / "a.safetensors"), tmp_path / "a"
    given = [option for option in line if option.startswith("--")]
    heads = [part for i in range(0, 6, 2) if HEADS[i] not in given for part in HEADS[i : i + 2]]
    assert main(["convert", source, "--from", "open_clip", "--out", str(out), *heads, *line]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert not out.exists()


def test_files_that_are_refused(tmp_path, capsys):
    def refused(source, message, origin="open_clip", more=HEADS):
        assert main(["convert", str(source), "--from", origin, "--out", str(tmp_path / "out"), *more]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    other = write(tmp_path / "b.safetensors", coca(width=16, layers=(1, 1, 1), vocabulary=300))
    more = ["--heads", "4", "--text-heads", "2", "--pooler-heads", "4"]
    refused(other, "has a vocabulary of 300 tokens, but it must be 259 (bytes) or 49408 (clip)", more=more)
    refused(write(tmp_path / "c.safetensors", logit_scale=None), "lacks the array 'logit_scale' of shape ()")
    bad = np.full(16, np.inf, np.float32)
    refused(write(tmp_path / "d.safetensors", **{"text.cls_emb": bad}), "'text.cls_emb' has numbers that are not")
    refused(tmp_path, "is a folder, but a state dict is one file, like open_clip_model.safetensors in it")
    refused(write(tmp_path / "e.safetensors"), "--text-heads is 2, but it belongs to --from open_clip.", "timm")
