"""What is around the pictures: HTML, downloads, judges, the library that draws the page, and the verb."""

import re
import zipfile

import chex
import jax
import numpy as np
import pytest
from classifying import tiny_classifier
from models import BUNDLE, NAMES, START, bundle_of, judge_of, moved

import kind_jax as kj
from kind_jax.cli import main
from kind_jax.deploy.compose import compose, smallest
from kind_jax.errors import UserError
from kind_jax.playing import judging, library, markup
from kind_jax.playing.download import write_zip
from kind_jax.playing.judging import Accuracy
from kind_jax.playing.studio import Studio
from kind_jax.tasks import task_of


def test_names_of_classes_are_no_html():
    page = markup.pictures(Studio(BUNDLE).show(moved(classes=(3, 4))))
    assert "<b>" not in page
    assert page.count("<img") == page.count("src='data:image/png;base64,") == 3
    assert "<b>" not in markup.heading("<b>", NAMES[3])
    assert "&lt;i&gt;" in markup.refused("<i>")


def test_figures_are_a_table():
    shown = Studio(BUNDLE, judge=judge_of()).show(moved(share=0.5))
    cells = re.findall("<td>(.*?)</td>", markup.figures(shown))
    assert cells[:3] == ["parameters", *(f"{n:,}" for n in shown.figures.parameters)]
    assert str(shown.accuracy) in markup.figures(shown)
    assert str(Accuracy(right=15, count=16)) == "15 of 16, 94% [72%, 99%]"


def test_a_download_is_what_compose_makes(tmp_path):
    studio = Studio(BUNDLE)
    for controls in (START, moved(share=0.5), moved(classes=(2,), weights=(0.5,), share=0.5)):
        packed = write_zip(studio, controls, tmp_path)
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(packed.parent)
        (folder,) = (p for p in packed.parent.iterdir() if p.is_dir())
        wanted = compose(BUNDLE, classes=controls.classes, max_params=studio.sizes.budget(controls)).bundle
        chex.assert_trees_all_equal(kj.open_bundle(folder).collections, wanted.collections)
        assert kj.open_bundle(folder).composition == wanted.composition


def test_the_smallest_model_is_the_smallest():
    least = smallest(BUNDLE, classes=["zero", "one"]).parameters
    assert compose(BUNDLE, classes=[0, 1], max_params=least).after.parameters == least
    with pytest.raises(UserError, match=f"must be {least} or more"):
        compose(BUNDLE, classes=[0, 1], max_params=least - 1)
    with pytest.raises(UserError, match="class is 9"):
        smallest(BUNDLE, classes=[9])


def test_a_judge_is_found_in_the_run_and_must_fit(tmp_path):
    bundle = bundle_of(origin=str(tmp_path))
    assert judging.find(bundle) is None
    judge_of().save(tmp_path / "judge.safetensors")
    assert judging.find(bundle).num_classes == len(NAMES)
    judge_of(num_classes=3).save(tmp_path / "other")
    with pytest.raises(UserError, match="is of classes 3, but the model's are 5"):
        judging.find(bundle, tmp_path / "other")
    with pytest.raises(UserError, match="must be a file, but no such file exists"):
        judging.find(bundle, tmp_path / "none")


@pytest.fixture
def without_gradio(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(library.importlib, "import_module", absent)


def test_the_library_is_an_extra(without_gradio):
    with pytest.raises(
        UserError, match=r"gradio is not installed, but the page needs it: pip install 'kind-jax\[play\]'"
    ):
        library.gradio()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--port", "0"], "--port is 0, but it must be between 1 and 65535."),
        (["--seed", "-1"], "--seed is -1, but it must be a whole number"),
        (["--classes", "nine"], "a class of --classes is 'nine', but no class has this name"),
        (["--method", "ddpm"], "'euler' or 'heun' for the flow process"),
        (["--judge", "nothing"], "The judge 'nothing' must be a file"),
    ],
)
def test_mistakes_on_the_command_line(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(library, "gradio", lambda: None)  # nothing gets as far as a page
    kj.export(BUNDLE, tmp_path / "art")
    assert main(["play", str(tmp_path / "art"), *args]) == 2
    assert message in capsys.readouterr().err


def test_a_classifier_draws_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(library, "gradio", lambda: None)
    config = tiny_classifier.run(tiny_classifier.CNN)
    weights = jax.tree.map(np.asarray, task_of(config).init())
    bundle = kj.Bundle(
        config=config, collections=weights, groups=(0,), class_names=tuple("0123456789"), weights="raw", step=1,
        origin=tmp_path,
    )  # fmt: skip
    kj.export(bundle, tmp_path / "net")
    assert main(["play", str(tmp_path / "net")]) == 2
    assert "is of the kind 'classification', but it must be 'diffusion' here" in capsys.readouterr().err
    with pytest.raises(UserError, match="is of the kind 'classification'"):
        Studio(bundle)
