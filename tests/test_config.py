"""Configs: exact round trips through JSON, and refusals that name the field."""

from pathlib import Path

import jax
import numpy as np
import pytest

import kind_jax as kj
from kind_jax import model
from kind_jax.config import (
    Config,
    DataConfig,
    FactorConfig,
    ModelConfig,
    OptimizerConfig,
    SamplerConfig,
    TrainConfig,
    change,
    dit,
    from_json,
    load_file,
    to_json,
)
from kind_jax.errors import UserError


def test_json_keeps_every_field():
    config = Config(
        model=ModelConfig(
            num_classes=3, groups=(0, 1, 1), factor=FactorConfig(projections=("q", "o"), rank=500, tailors=3)
        ),
        data=DataConfig(classes=(2, 7, 1), path="somewhere"),
    )
    assert from_json(to_json(config), "here") == config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"depth": 12', '"depth": "12"', r"here: model.depth: .*integer \(found '12'\)"),
        ('"depth": 12', '"depth": true', "here: model.depth"),
        ('"depth"', '"dpeth"', "here: model.dpeth: Unexpected keyword"),
        ('"depth": 12', '"depth": 0', "here: model.depth is 0, but it must be 1 or more"),
        ('"linear"', '"quadratic"', "here: diffusion.schedule: .*'linear' or 'cosine'"),
        ('"depth": 12,', "", "here is damaged: it is not JSON .Expecting"),
    ],
)
def test_a_changed_file_is_refused(old, new, message):
    text = to_json(Config())
    assert old in text
    text = text.replace(old, new, 1)
    if new == "":
        text = text[:-10]
    with pytest.raises(UserError, match=message):
        from_json(text, "here")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 30, "heads": 4}, "model.heads is 4, but it must be a divisor of model.width, which is 30"),
        ({"size": 30, "patch": 4}, "model.patch is 4"),
        ({"groups": (0, 1), "num_classes": 3}, "one group for each of the 3 classes"),
        ({"groups": (0, 2, 2), "num_classes": 3}, "without gaps"),
        ({"mlp_ratio": float("inf")}, "model.mlp_ratio is inf"),
        ({"mlp_ratio": 0.0001}, "at least one unit"),
    ],
)
def test_impossible_models(settings, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FactorConfig(tailors=0), "model.factor.tailors is 0, but it must be 1 or more"),
        (lambda: TrainConfig(seed=-1), "train.seed is -1"),
        (lambda: DataConfig(seed=2**32), "data.seed is 4294967296"),
        (lambda: OptimizerConfig(learning_rate=float("inf")), "optimizer.learning_rate is inf"),
        (lambda: Config(sampler=SamplerConfig(guidance_channels=5)), "at most model.channels, which is 4"),
    ],
)
def test_impossible_settings(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    model = r"model.patch is 3, .* which is 32; model.heads is 5, .* which is 384"
    with pytest.raises(UserError, match=model):
        ModelConfig(patch=3, heads=5)
    with pytest.raises(UserError, match=r"^model.patch is 0, but it must be 1 or more, at most 1024.$"):
        ModelConfig(patch=0, heads=5)  # what is compared with it says nothing
    wrong = "ModelConfig(patch=3, heads=5), train=TrainConfig(batch=0, seed=-1), sampler=SamplerConfig(method='heun')"
    names = "Config, ModelConfig, SamplerConfig, TrainConfig"
    mine = tmp_path / "mine.py"
    mine.write_text(f"from kind_jax.config import {names}\ndef get_config(): return Config(model={wrong})\n")
    train = r"train.batch is 0, .*; train.seed is -1, .*"
    sampler = r"sampler.method is 'heun', but it must be 'ddpm' or 'ddim' for the gaussian process.$"
    with pytest.raises(UserError, match=f"^{model}; {train}; {sampler}"):
        load_file(mine)
    text = to_json(Config())
    for old, new in (('"patch": 2', '"patch": 3'), ('"heads": 6', '"heads": 5'), ('"batch": 256', '"batch": 0'),
                     ('"seed": 0,\n    "ema"', '"seed": -1,\n    "ema"'), ('"ddpm"', '"heun"')):  # fmt: skip
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    with pytest.raises(UserError, match=f"^there: {train}; {model}; {sampler}"):
        from_json(text, "there")
    with pytest.raises(UserError, match=r"^train.seed is -1"):  # the blocks before have left nothing behind
        TrainConfig(seed=-1)


def test_components_and_ranks():
    default = ModelConfig(width=128, heads=4, num_classes=10)
    assert (default.learngenes, default.tailors) == (64, 10)  # N_G = h/2 and 5/64 h tailors a group
    with pytest.raises(UserError, match=r"learngenes is 64, but it must be at most model.factor.rank, which is 32"):
        ModelConfig(width=128, heads=4, num_classes=10, factor=FactorConfig(rank=32))
    with pytest.raises(UserError, match=r"they need 164, so at most 3 tailors a group fit"):
        ModelConfig(width=128, heads=4, num_classes=10, factor=FactorConfig(rank=100))
    assert ModelConfig(width=128, heads=4, num_classes=10, factor=FactorConfig(rank=164)).tailors == 10


def test_published_sizes():
    # Millions of parameters in the DiT paper's Table 1.
    for name, millions in {"S/2": 33, "B/2": 130, "L/2": 458, "XL/2": 675}.items():
        shapes = model.definition(dit(name, factor=FactorConfig(projections=())))[1]["params"]
        assert round(sum(s.size for s in jax.tree.leaves(shapes)) / 1e6) == millions, name
    with pytest.raises(UserError, match="'M/2', but it must be one of S, B, L, XL"):
        dit("M/2")


def test_config_files(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from kind_jax.config import Config\ndef get_config(): return Config()\n")
    assert load_file(file) == Config()
    for text, message in (
        ("x = 1", "AttributeError"),
        ("def get_config(): return 3", "returned int, not Config"),
        ("def get_config(:", "SyntaxError"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            load_file(file)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": {"steps": 2.5}}, "train.steps is 2.5, but it must be a valid integer"),
        ({"train": {"steps": None}}, "train.steps is None, but it must be a valid integer"),
        ({"train": {"batch": True}}, "train.batch is True, but it must be a valid integer"),
        ({"train": {"keep": "2"}}, "train.keep is '2', but it must be a valid integer"),
        ({"train": {"stepz": 2}}, r"given as 'train.stepz', but there is none of that name \(near it is train.steps\)"),
        ({"trian": {"steps": 2}}, r"given as 'trian', but there is none of that name \(near it is train\)"),
        ({"train": 5}, "train is 5, but it must be TrainConfig"),
        ({"model": {"factor": None}}, "model.factor is None, but it must be FactorConfig"),
        ({"model": {"factor": {"learngenes": 1.5}}}, "model.factor.learngenes is 1.5, but it must be a valid integer"),
        ({"data": {"classes": "37"}}, "data.classes is '37', but it must be a valid tuple"),
        ({"data": {"classes": (None,)}}, r"data.classes is \(None,\), but it must be a valid integer or"),
        ({"data": {"path": 5}}, "data.path is 5, but it must be a valid string"),
        ({"optimizer": {"method": "adam"}}, "optimizer.method is 'adam', but it must be 'adamw', 'sgd' or 'muon'"),
        ({"train": {"steps": 0}}, "train.steps is 0"),
    ],
)
def test_a_change_of_another_type_or_name_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        change(Config(), **settings)


def test_a_change_takes_what_python_calls_paths_and_numbers():
    data = {"path": Path("photos"), "size": np.int64(16), "classes": [1, np.int32(2)], "source": "folder"}
    config = change(Config(), data=data, train={"seed": np.uint8(3)}, optimizer={"learning_rate": np.float32(0.5)})
    assert (config.data.path, config.data.size, config.data.classes, config.train.seed) == ("photos", 16, (1, 2), 3)
    assert config.optimizer.learning_rate == 0.5
    assert from_json(to_json(config), "saved") == config
    with pytest.raises(UserError, match=r"config is None, but it must be settings, as kj.preset gives them"):
        change(None, train={})


def test_settings_that_could_not_be_read_back_are_refused_before_a_run_begins(tmp_path):
    config = Config(train=TrainConfig())
    object.__setattr__(
        config.train, "steps", 2.5
    )  # as of a user's own, where nothing checks what a constructor is given
    with pytest.raises(UserError, match=r"config: train.steps: Input should be a valid integer \(found 2.5\)"):
        kj.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
