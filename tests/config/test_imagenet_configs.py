"""The paper's settings: class counts as the table's, and docs/imagenet.md has a plan for every launch line."""

from pathlib import Path
from typing import get_args

import documents
import pytest

from kind_jax.config import change, load_file, published
from kind_jax.config.published import imagenet
from kind_jax.data.classes import SIZES, Protocol
from kind_jax.transferring.plan import plan

ROOT = Path(__file__).parents[2]


def config(name):
    return load_file(ROOT / "configs" / f"{name}.py")


@pytest.mark.parametrize("size", ["b2", "l2", "xl2"])
def test_pre_training_is_the_papers(size):
    found = config(f"dit_{size}_imagenet")
    assert (found.data.source, found.data.protocol, found.data.flip) == ("latents", "kind-base", True)
    model = found.model
    assert (model.size, model.channels, model.patch, model.num_classes) == (32, 4, 2, SIZES["kind-base"])
    assert model.factor.projections == ("qkv", "o", "mlp_in", "mlp_out")
    assert (model.learngenes, model.tailors) == (model.width // 2, model.width * 5 // 64)
    assert (model.num_groups, model.null_gate, model.learn_sigma) == (150, "learngenes", True)
    rate, decay = found.optimizer.learning_rate, found.optimizer.learngenes.weight_decay
    assert (rate, decay, found.train.batch, found.train.ema, found.train.null) == (1e-4, 0, 256, 0.9999, 0.1)
    # The same model and training as the config without data, which plans and benchmarks are made with.
    assert change(found, data={"source": "digits", "protocol": None, "flip": False}) == config(f"dit_{size}")


def test_every_protocol_has_the_tables_number_of_classes():
    names = get_args(Protocol)
    assert {name: imagenet("B/2", protocol=name).model.num_classes for name in names} == dict(SIZES)
    assert imagenet("B/2", protocol=None).model.num_classes == 1000
    assert imagenet("B/2", num_classes=7).model.num_classes == 7
    assert imagenet("S/2").model == published("S/2").model


@pytest.mark.parametrize("size", ["l2", "xl2"])
def test_superclasses_change_nothing_but_who_shares_tailors(size):
    own, shared = config(f"dit_{size}_imagenet"), config(f"dit_{size}_superclass")
    assert shared.model.num_groups == 19
    assert change(shared, model={"groups": None}) == own


@pytest.mark.parametrize(("name", "classes"), [("dit_b2_novel", SIZES["kind-novel"]), ("dit_b2_faces", 1)])
def test_a_transfer_config_is_what_transfer_makes_of_it(name, classes):
    target, source = config(name), config("dit_b2_imagenet")
    assert (target.model.num_classes, target.transfer.method) == (classes, "kind")

    complete = plan(target, source, "0" * 64)  # refuses what does not fit the source
    assert complete == change(target, transfer={"source": "0" * 64}), "kind-jax plan counts another step than is taken"


LINES = documents.lines(ROOT / "docs" / "imagenet.md")
COMMANDS = [words for line in LINES for words in documents.inner(line)]


@pytest.fixture
def parse(monkeypatch):
    """A function: words of a command to what its verb makes of them."""
    return lambda words: documents.parse(words, monkeypatch)


def test_a_launch_line_names_its_data_and_its_classes(parse):
    launches = [words for words in COMMANDS if words[0] in ("train", "transfer")]
    assert len(launches) >= 13
    for words in launches:
        settings = parse(words).settings
        assert settings.data.path is not None, words
        chosen = settings.data.classes
        assert chosen is None or len(chosen) == settings.model.num_classes, words


def devices(settings):
    """Sizes of the mesh where -1 is one device."""
    return tuple(max(1, n) for n in (settings.mesh.data, settings.mesh.fsdp, settings.mesh.tensor))


def test_every_launch_line_is_planned(parse):
    """The settings that decide what a step takes are those of a plan in the document."""

    def weight(settings):
        return settings.model, settings.train.batch, settings.train.accumulate, settings.optimizer

    planned, launched = [], []
    for words in COMMANDS:
        if words[0] == "plan":
            parsed = parse(words)
            planned.append((*weight(parsed.settings), devices(change(parsed.settings, mesh=_sizes(parsed.mesh)))))
        elif words[0] == "train" or (words[0] == "transfer" and "--config" in words):
            launched.append((*weight(settings := parse(words).settings), devices(settings)))
    assert len(launched) >= 13
    assert all(line in planned for line in launched)
    assert all(line in launched for line in planned)


def _sizes(text):
    return dict(zip(("data", "fsdp"), map(int, text.split("x")), strict=True))


def test_the_document_shows_all_that_it_promises():
    verbs = {words[0] for words in COMMANDS}
    assert {"latents", "train", "plan", "sample", "evaluate", "export", "compose", "transfer", "grow"} <= verbs
    trained = {words[words.index("--config") + 1] for words in COMMANDS if words[0] == "train"}
    assert {f"dit_{size}_imagenet" for size in ("b2", "l2", "xl2")} <= trained
