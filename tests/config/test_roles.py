"""Roles: every setting has one, and what is compared follows from it."""

import dataclasses

import pytest
import tiny

from kind_jax import config as configs
from kind_jax.config import roles
from kind_jax.config.roles import ABSENT, JOIN, RESUME, TRANSFER, WHOLE, Role, compare, differences
from kind_jax.errors import UserError
from kind_jax.train.run import check, save_config

CONFIG = tiny.change(tiny.CONFIG, model={"width": 64, "num_classes": 3, "factor": {"learngenes": None}})


def classes_of(config):
    """The classes of settings in a config, nested ones too."""
    nested = (getattr(config, f.name) for f in dataclasses.fields(config))
    return {type(config)}.union(*(classes_of(value) for value in nested if dataclasses.is_dataclass(value)))


def test_every_field_has_one_role():
    """A new field fails here until config/roles.py says what it is for; a field that is gone, until it is taken out."""
    found = roles.roles(CONFIG)
    assert set(found) == {d.name for d in differences(CONFIG, {})}
    for owner in classes_of(CONFIG) - {configs.Config}:
        given = [name for names in roles._ROLES[owner].values() for name in names.split()]
        plain = [f.name for f in dataclasses.fields(owner) if not dataclasses.is_dataclass(f.default)]
        assert sorted(given) == sorted(plain), owner
    assert set(roles._ROLES) == classes_of(CONFIG) - {configs.Config}
    with pytest.raises(LookupError, match=r"ModelConfig\.colour must have one role in config/roles\.py, but it has 0"):
        roles.role_of(configs.ModelConfig, "colour")


# What each verb compares of a model, as it was before there were roles, but for `contraction` where models are joined.
PLACES = {
    "resume": (RESUME, "size dtype null_gate num_classes times tailors energy rank mlp_norm_eps"),
    "whole": (WHOLE, "size num_classes tailors energy rank mlp_norm_eps"),
    "transfer": (TRANSFER, "times mlp_norm_eps"),
    "join": (JOIN, "size null_gate times tailors mlp_norm_eps"),
}
CHANGES = {
    "size": {"model": {"size": 16}},
    "dtype": {"model": {"dtype": "bfloat16"}},
    "null_gate": {"model": {"null_gate": "mean"}},
    "num_classes": {"model": {"num_classes": 4}},
    "mlp_norm_eps": {"model": {"mlp_norm_eps": 1e-5}},
    "contraction": {"model": {"contraction": "folded"}},
    "remat": {"model": {"remat": True}},
    "scan_unroll": {"model": {"scan_unroll": 2}},
    "times": {"diffusion": {"times": "uniform"}},
    "tailors": {"model": {"factor": {"tailors": 1}}},
    "energy": {"model": {"factor": {"energy": "none"}}},
    "rank": {"model": {"factor": {"rank": 60}}},
    "log_every": {"train": {"log_every": 7}},
    "workers": {"data": {"workers": 2}},
    "steps of samples": {"sampler": {"steps": 3}},
}


@pytest.mark.parametrize("place", PLACES)
def test_each_place_compares_what_it_must(place):
    agree, names = PLACES[place]
    found = {
        name: [d.name for d in compare(CONFIG, tiny.change(CONFIG, **change), agree)]
        for name, change in CHANGES.items()
    }
    assert {name for name, changed in found.items() if changed} == set(names.split())
    assert all(len(changed) <= 1 for changed in found.values())


def test_two_ways_to_write_one_model_agree():
    same = tiny.change(CONFIG, model={"factor": {"learngenes": 32, "projections": ("mlp_out", "qkv")}})
    assert compare(CONFIG, same, set(Role)) == []
    other = tiny.change(CONFIG, model={"factor": {"learngenes": 31}})
    assert [str(d) for d in compare(CONFIG, other, WHOLE)] == ["model.factor.learngenes was 32, now 31"]


def test_differences_say_what_changed():
    found = differences({"a": {"b": 1, "c": "x" * 80}, "d": 2}, {"a": {"b": 2, "c": "y" * 80}, "e": None})
    assert [str(d) for d in found] == [
        "a.b was 1, now 2",
        "a.c differs",
        "d was 2, now absent",
        "e was absent, now None",
    ]
    assert found[3].before is ABSENT


def test_a_run_may_change_its_rounding_but_says_so_and_nothing_else_of_its_model(tmp_path):
    save_config(tmp_path, CONFIG)
    assert check(tmp_path, CONFIG) == []
    assert check(tmp_path, tiny.change(CONFIG, train={"log_every": 9, "steps": 50})) == []
    (remark,) = check(tmp_path, tiny.change(CONFIG, model={"contraction": "folded", "remat": True}))
    assert remark.startswith(
        "model.remat was False, now True; model.contraction was 'auto', now 'folded': the run goes on"
    )
    for change, message in [
        ({"model": {"dtype": "bfloat16"}}, r"model.dtype was 'float32', now 'bfloat16'; give"),
        (
            {"optimizer": {"schedule": "cosine"}, "train": {"steps": 9}},
            r"optimizer.schedule was .*; train.steps was 4, now 9",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            check(tmp_path, tiny.change(CONFIG, **change))
