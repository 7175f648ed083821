"""What commands say to programs: one JSON object, or nothing but warnings."""

import json
import shutil

import pytest
import tiny

from kind_jax import cli
from kind_jax.commands.told import Told, options, speaking
from kind_jax.train.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    train(tiny.change(tiny.CONFIG, train={"steps": 1, "sample_every": 0}), directory)
    return directory


def test_json_is_all_of_standard_output(run, tmp_path, capsys):
    assert cli.main(["export", str(run), "--out", str(tmp_path / "art"), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["verb"], found["code"], found["done"]) == ("export", 0, ["exported"])
    assert found["files"] == {"artifact": str(tmp_path / "art")}
    (table,) = found["tables"]
    assert table["columns"][0] == "file"
    assert [row[0] for row in table["rows"] if row[0].startswith("learngenes")] == ["learngenes.safetensors"]
    assert "exported" in err
    assert cli.main(["export", str(run), "--json", "--quiet", "--out", str(tmp_path / "other")]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["code"], err) == (0, "")


@pytest.mark.parametrize(
    ("args", "error"),
    [(("export", "nowhere", "--out", "x"), "neither a run"), (("export", "--what"), "an argument is wrong")],
)
def test_what_is_refused_is_said_in_json(args, error, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main([*args, "--json"])
    except SystemExit as e:
        code = e.code
    found = json.loads(capsys.readouterr().out)
    assert (code, found["code"]) == (2, 2)
    assert error in found["error"]


def test_quiet_says_warnings_alone(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    assert cli.main(["inspect", "--quiet", str(tmp_path / "run")]) == 0
    assert capsys.readouterr() == ("", "")
    with speaking(Told(quiet=True)):
        print("a line\nwarning: of", end="")
        print(" something\nanother")
    assert capsys.readouterr() == ("", "warning: of something\n")


def test_the_options_may_stand_anywhere():
    told, rest = options(["run", "--json", "--out", "x", "--quiet"])
    assert (told.json, told.quiet, rest) == (True, True, ["run", "--out", "x"])
