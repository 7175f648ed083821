import pytest

from kind_jax.config import Config, change
from kind_jax.config.capacity import check_capacity
from kind_jax.errors import UserError

FLOW = change(
    Config(),
    model={"learn_sigma": False, "size": 64, "channels": 3, "patch": 8, "width": 64, "heads": 4},
    diffusion={"process": "flow"},
    sampler={"method": "euler"},
)


def check(config, strict=True):
    return check_capacity(config, strict=strict)


def test_noise_that_does_not_fit_through_the_model_is_refused():
    with pytest.raises(
        UserError, match=r"model.width is 64, but a patch of 8 x 8 x 3 has 192 .* 192 or more, or model.patch 4"
    ):
        check(FLOW)
    assert "samples will stay noisy" in check(FLOW, strict=False)[0]
    assert check(change(FLOW, model={"patch": 4})) == []
    assert check(change(FLOW, model={"width": 192})) == []


def test_what_weakens_a_model_is_said():
    (narrow,) = check(change(FLOW, diffusion={"prediction": "clean"}))
    assert "192 numbers" in narrow
    single, thin = check(change(FLOW, model={"size": 8, "channels": 1, "factor": {"learngenes": 4, "tailors": 2}}))
    assert "the whole image" in single
    assert "6 of 64 dimensions" in thin


def test_components_beyond_the_rank_are_said():
    (line,) = check(change(FLOW, model={"patch": 4, "factor": {"learngenes": 40, "tailors": 30}}))
    assert "give qkv 40 + 30 components of a rank of 64" in line
    assert check(change(FLOW, model={"patch": 4, "factor": {"learngenes": 40, "tailors": 24}})) == []
