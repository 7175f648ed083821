"""The verbs of modules, from the command line."""

import shlex

import pytest

from assembling import tiny_modules as tiny
from kind_jax.cli import main
from kind_jax.config import to_json
from kind_jax.deploy.bundle import open_bundle
from kind_jax.train.run import load_config

CONFIG = """
from assembling import tiny_modules as tiny
def get_config():
    return {}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a meta model and three modules, as the printed command lines have made them."""
    folder = tmp_path_factory.mktemp("project")
    whole = "tiny.whole('vit', steps=2, sample_every=2)"
    (folder / "meta.py").write_text(CONFIG.format(f"tiny.meta_of('vit', {whole})"))
    (folder / "whole.py").write_text(CONFIG.format(whole))
    (folder / "module.py").write_text(CONFIG.format(f"tiny.module_of('vit', {whole}, None)"))
    assert main(["train", "--config", str(folder / "meta.py"), "--workdir", str(folder / "meta")]) == 0
    return folder


def arguments(folder):
    return ["--config", str(folder / "module.py"), "--module.meta", str(folder / "meta"), "--train.log-every", "1"]


def test_from_printed_lines_to_a_report(project, capsys):
    runs = project / "runs"
    assert main(["modules", str(runs), *arguments(project)]) == 0
    said = capsys.readouterr().out
    lines = [shlex.split(line) for line in said.splitlines() if line.startswith("kind-jax train")]
    assert [line[-1] for line in lines] == [str(runs / f"module-{k}") for k in range(3)]
    array = next(line for line in said.splitlines() if line.startswith("sbatch"))
    assert "--array=0,1,2 " in array
    assert "--module.index $SLURM_ARRAY_TASK_ID" in shlex.split(array)[-1]
    assert said.count("not begun") == 3
    for line in reversed(lines):  # any order
        assert main(line[1:]) == 0
    capsys.readouterr()

    assert main(["modules", str(runs)]) == 0
    said = capsys.readouterr().out
    assert said.count("finished") == 4
    assert f"kind-jax assemble {runs}" in said
    assert main(["assemble", str(runs)]) == 0
    assert open_bundle(runs / "assembled").config.model == tiny.VIT
    tuned = ["train", "--config", str(project / "whole.py"), "--init", str(runs / "assembled")]
    assert main([*tuned, "--workdir", str(runs / "tuned")]) == 0
    capsys.readouterr()

    assert main(["report", str(runs)]) == 0
    said = capsys.readouterr().out
    assert "assembled, before fine-tuning, validation accuracy" in said
    text = (runs / "report.html").read_text()
    assert all(f"module-{k}" in text for k in range(3))
    assert "all, modules side by side" in text
    assert text.count("data:image/png") == 2
    for option in ("--meta", "--assembled", "--tuned"):
        assert main(["report", str(runs), option, str(project / "nothing")]) == 2
        assert f"{option} is '{project / 'nothing'}', but it must be a run or" in capsys.readouterr().err
    assert main(["report", str(runs / "module-1"), "--tuned", str(runs / "assembled")]) == 2
    assert "an artifact, but it must be the run that fine-tunes" in capsys.readouterr().err
    (runs / "tuned").rename(project / "elsewhere")
    assert main(["report", str(runs), "--out", str(project / "part.html")]) == 0
    assert "what is known, one after the other" in (project / "part.html").read_text()


def test_divided_and_assembled_again(project, capsys, tmp_path):
    source, parts = project / "meta", tmp_path / "parts"
    assert main(["divide", str(source), "--depths", "1", "2", "--out", str(parts)]) == 0
    assert sorted(p.name for p in parts.iterdir()) == ["module-0", "module-1"]
    assert main(["export", str(source), "--out", str(tmp_path / "art")]) == 0
    assert main(["assemble", str(parts)]) == 0
    for file in (tmp_path / "art").glob("*.safetensors"):
        assert file.read_bytes() == (parts / "assembled" / file.name).read_bytes()
    capsys.readouterr()
    for command, sentence in (
        (["divide", str(source), "--depths", "3", "0", "--out", str(tmp_path / "no")], "depths is (3, 0), but it must"),
        (["divide", str(source), "--depths", "1", "1", "--out", str(tmp_path / "no")], "add up to model.depth"),
        (["divide", str(parts / "module-0"), "--depths", "1", "--out", str(tmp_path / "no")], "is a module already"),
        (["divide", str(source), "--depths", "1", "2", "--out", str(parts)], "exists, but it must be a new folder"),
        (["assemble", str(parts)], "exists; --replace replaces it"),
        (["assemble", str(parts), "--out", str(parts / "module-0"), "--replace"], "must lie apart from the modules"),
        (["assemble", str(parts), "--out", str(parts), "--replace"], "must lie apart from the modules"),
        (["assemble", str(parts), "--out", str(source), "--replace"], "which is no artifact"),
        (
            ["assemble", str(parts / "module-1"), str(parts / "module-0"), "--out", str(tmp_path / "no")],
            "the modules are given in the order 1, 0",
        ),
        (["assemble", str(parts / "module-1"), "--out", str(tmp_path / "no")], "module 0 of 2 is missing"),
        (["assemble", str(source), str(source), "--out", str(tmp_path / "no")], "'classification', but it must be a"),
        (["assemble", str(tmp_path)], "is neither a module nor a folder with module-0"),
        (["assemble"], "the modules are missing"),
        (["evaluate", str(parts / "module-0")], "is one module of a network"),
        (["inspect", str(parts)], "is one module of a network"),
        (
            ["train", "--config", str(project / "whole.py"), "--init", str(parts / "module-0")],
            "of the kind 'classification-module', but it must be 'classification' here",
        ),
        (["export", str(parts / "module-0"), "--to", "timm", "--out", str(tmp_path / "no.safetensors")], "kind"),
        (["report", str(parts)], "has no run of a module"),
    ):
        assert main(command) == 2, command
        said = capsys.readouterr().err
        assert sentence in said, (command, said)
        assert said.count("\n") == 1, said
    assert not (tmp_path / "no").exists()


def test_modules_of_two_models_do_not_mix(project, capsys, tmp_path):
    """The reference puts any files together; here each knows what it belongs to."""
    tiny.untrained(tmp_path / "other", tiny.meta_of("vit", tiny.whole("vit")), seed=1)
    for source, parts in ((project / "meta", "a"), (tmp_path / "other", "b")):
        assert main(["divide", str(source), "--depths", "1", "2", "--out", str(tmp_path / parts)]) == 0
    capsys.readouterr()
    mixed = [str(tmp_path / "a" / "module-0"), str(tmp_path / "b" / "module-1"), "--out", str(tmp_path / "no")]
    assert main(["assemble", *mixed]) == 2
    assert "modules of different meta models do not fit each other" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_folders_whose_names_are_wrong(project, capsys, tmp_path):
    for name, config in (("module-1", 2), ("module-0", 0)):
        folder = tmp_path / name
        folder.mkdir()
        run = tiny.module_of("vit", tiny.whole("vit"), config, meta=str(project / "meta"))
        (folder / "config.json").write_text(to_json(run))
    assert main(["modules", str(tmp_path)]) == 2
    assert "holds module 2, but its name says 1" in capsys.readouterr().err
    (tmp_path / "module-01").mkdir()
    assert main(["modules", str(tmp_path)]) == 2
    assert "are both of module 1; keep one of them" in capsys.readouterr().err


def test_printed_lines_have_what_was_typed(project, capsys):
    """A folder may be called like a value, and stand behind a flag."""
    args = ["--config", str(project / "module.py"), "--data.flip", "3", "--module.meta", "m", "--model.heads", "1"]
    assert main(["modules", *args]) == 0
    said = capsys.readouterr().out
    lines = [shlex.split(line) for line in said.splitlines() if line.startswith("kind-jax train")]
    typed = [arg for arg in args if arg != "3"]
    assert lines[1] == ["kind-jax", "train", *typed, "--module.index", "1", "--workdir", "3/module-1"]
    assert main(["modules", str(project / "meta.py"), *args[:2]]) == 2
    assert "is a file, but it must be a folder" in capsys.readouterr().err


def test_what_is_not_finished_waits(project, capsys, tmp_path):
    args = arguments(project)  # of the runs above, whose programs serve again
    for k in range(3):
        line = ["train", *args, "--module.index", str(k), "--workdir", str(tmp_path / f"module-{k}")]
        assert main([*line, "--stop-after", "1"]) == 0
    capsys.readouterr()
    assert main(["assemble", str(tmp_path)]) == 2
    assert "is at step 1 of 2: let it finish, or take it as it is with --unfinished" in capsys.readouterr().err
    assert main(["modules", str(tmp_path), *args]) == 0
    said = capsys.readouterr().out
    assert said.count("stopped") == 3
    assert said.count("kind-jax train") == 4, "one for each module, and the array's"
    assert main(["assemble", str(tmp_path), "--unfinished"]) == 0
    assert load_config(tmp_path / "module-2").module.index == 2


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["modules", "{}/nothing"], "holds no module yet: --config, a preset of modules"),
        (["modules", "{}/x", "--config", "{}/whole.py"], "of the kind 'classification', but it must be of a module"),
        (["modules", "{}/x", "--config", "{}/module.py", "--module.index", "1"], "but it must be left out here"),
        (["train", "--config", "{}/module.py", "--workdir", "{}/x"], "module.index is missing"),
        (["train", "--config", "{}/module.py", "--module.index", "3", "--workdir", "{}/x"], "between 0 and 2"),
        (["train", "--config", "{}/module.py", "--module.index", "0", "--workdir", "{}/x"], "module.meta is missing"),
        (
            ["train", "--config", "{}/module.py", "--module.index", "0", "--module.meta", "{}", "--workdir", "{}/x"],
            "is neither a run",
        ),
        (
            ["train", "--config", "{}/module.py", "--module.depths", "2", "0", "3", "--workdir", "{}/x"],
            "each 1 or more",
        ),
        (["plan", "--config", "{}/module.py", "--mesh", "1"], "module.index is missing"),
    ],
)
def test_commands_that_are_wrong(project, capsys, command, sentence):
    assert main([part.format(project) for part in command]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (project / "x").exists()


def test_help_says_what_to_do(capsys):
    for verb, words in (
        ("modules", "command line that trains each of them"), ("assemble", "train --init"), ("divide", "6 6 6 6"),
        ("report", "report"),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert words in " ".join(capsys.readouterr().out.replace("│", " ").split()), verb


def test_a_settings_file_says_its_kind():
    assert '"task": "classification-module"' in to_json(tiny.module_of("vit", tiny.whole("vit"), 1))
    assert '"task": "diffusion-module"' in to_json(tiny.module_of("dit", tiny.whole("dit"), 1))
