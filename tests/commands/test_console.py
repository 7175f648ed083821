"""What commands share: options that are read early or repeated, and paths that are refused before any work."""

from pathlib import Path

import pytest

from kind_jax.commands import grow, sample, train
from kind_jax.commands.console import check_file, check_png, option
from kind_jax.commands.repeated import joined
from kind_jax.errors import UserError


def test_an_option_is_known_however_it_is_written():
    assert option(["--stop_after", "3"], "--stop-after") == "3"
    assert option(["--data.latent-scale=a=b"], "--data.latent_scale") == "a=b"
    assert option(["--configs", "a.py"], "--config") is None
    assert option(["--config"], "--config") is None


@pytest.mark.parametrize(
    ("verb", "args", "wanted"),
    [
        (sample, "art --classes 3 --classes 7", "art --classes=3 7"),
        (sample, "art --classes=3 --rows 2 --classes 7 8 --seed 1", "art --rows 2 --classes=3 7 8 --seed 1"),
        (sample, "art --classes -1 --classes 2", "art --classes=-1 2"),
        (sample, "--seed 1 art --seed=1", "art --seed 1"),
        (grow, "art --add a b --out x --add c", "art --out x --add=a b c"),
        (grow, "art --replace --out x --replace", "art --out x --replace"),
        (train, "--data.classes 0 1 --data.classes=2", "--data.classes=0 1 2"),
        (train, "--optimizer.params.thaw a --optimizer.params.thaw b", "--optimizer.params.thaw=a b"),
        (train, "--model.factor.projections --model.factor.projections", "--model.factor.projections"),
        (train, "--model.factor.projections --unknown 1 --unknown 2", None),
        (sample, "art -- --seed 1 --seed 2", None),
    ],
)
def test_repeated_lists_add_up(verb, args, wanted):
    assert joined(verb.Arguments, args.split()) == (wanted or args).split()


@pytest.mark.parametrize(
    ("verb", "args", "message"),
    [
        (sample, "--seed 1 --seed 2", "--seed is given twice, as '1' and '2', but it must be given once."),
        (train, "--train.batch 8 --train.batch=9", "--train.batch is given twice, as '8' and '9'"),
        (train, "--stop-after 8 --stop_after 9", "--stop-after is given twice"),
        (train, "--model.remat --model.no-remat", "--model.remat is given twice, as 'True' and 'False'"),
        (train, "--train.profile 2 3 --train.profile 2 4", "--train.profile is given twice, as '2 3' and '2 4'"),
        (sample, "art --classes", "--classes is given without a value"),
        (grow, "art --add a --add", "--add is given without a value"),
    ],
)
def test_what_would_be_dropped_is_refused(verb, args, message):
    with pytest.raises(UserError, match=message):
        joined(verb.Arguments, args.split())


def test_files_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").touch()
    check_file(tmp_path / "new" / "folders" / "out.json")
    check_file(None)
    check_file(Path("/dev/null"))
    with pytest.raises(UserError, match=r"--plot is .*which is a folder"):
        check_file(tmp_path, "--plot")
    with pytest.raises(UserError, match="is no folder that can be written to"):
        check_file(tmp_path / "file" / "out.json")
    with pytest.raises(UserError, match=r"must end in \.png"):
        check_png(tmp_path / "out.jpg")
