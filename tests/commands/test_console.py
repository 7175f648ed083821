"""What commands share: options that are read early, class lists, and paths that are refused before any work."""

from pathlib import Path

import pytest

from kind_jax.commands.console import check_file, check_png, option, parse_classes
from kind_jax.errors import UserError


def test_of_an_option_given_twice_the_last_counts_as_for_the_parser():
    assert option(["--config", "a.py", "--x", "1", "--config=b.py"], "--config") == "b.py"
    assert option(["--config=b.py", "--config", "a.py"], "--config") == "a.py"
    assert option(["--configs", "a.py"], "--config") is None


def test_class_lists():
    assert parse_classes("3,7") == (3, 7)
    assert parse_classes("0-4, 9") == (0, 1, 2, 3, 4, 9)
    for wrong in ("3-", "9-2", "", "3,,4", "9" * 5000, "0-" + "9" * 5000, "1.5", "²"):
        with pytest.raises(UserError, match="must be class numbers") as e:
            parse_classes(wrong)
        assert len(str(e.value)) < 400
    with pytest.raises(UserError, match="more classes than any model has"):
        parse_classes("0-99999999999")


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
