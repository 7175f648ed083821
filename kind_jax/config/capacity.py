"""Settings with which a model cannot learn, whatever the data and however long it trains."""

from __future__ import annotations

from kind_jax.config.run import Config
from kind_jax.errors import UserError


def check_capacity(config: Config, *, strict: bool) -> list[str]:
    """Refuse what cannot work; returns a line about each setting that leaves a model much weaker than it could be.

    A patch of n = patch² · channels numbers comes in, and goes out, through ``model.width`` features. What a model
    predicts of noise fills all n dimensions, so with fewer features than that a part of it is lost, and samples stay
    noisy. Images fill far fewer dimensions: a model of them (``diffusion.prediction`` clean) may be narrower.

    Args:
      config: of a run.
      strict: whether to refuse; a run that has begun may go on, and is only warned of.

    Raises:
      UserError: naming the settings and what would do.
    """
    model, lines = config.model, []
    numbers = model.patch**2 * model.channels
    if model.width < numbers:
        fitting = [p for p in range(1, model.patch) if model.size % p == 0 and p * p * model.channels <= model.width]
        patch = f"{model.patch} x {model.patch} x {model.channels}"
        found = f"model.width is {model.width}, but a patch of {patch} has {numbers} numbers"
        noise = config.diffusion.process == "gaussian" or config.diffusion.prediction != "clean"
        if noise and strict:
            raise UserError(
                f"{found}, which do not pass through so few features: it must be {-(-numbers // 4) * 4} or more, or "
                f"{f'model.patch {fitting[-1]}, or ' if fitting else ''}diffusion.prediction 'clean' (with "
                "diffusion.process 'flow')."
            )
        suffers = "samples will stay noisy" if noise else "fine detail may suffer"
        lines.append(f"warning: {found}; {suffers}")
    if model.size == model.patch and model.size > 1:
        lines.append(
            f"warning: model.patch is {model.patch}, the whole image: with a single patch attention has nothing to do"
        )
    rank = model.learngenes + model.tailors
    if model.factor.ranks is None and model.factor.projections and 8 * rank < model.width:
        lines.append(
            f"warning: model.factor.learngenes and .tailors give every weight {rank} of {model.width} dimensions, "
            "fewer than an eighth; a model of that width hardly learns with so few"
        )
    lines += _beyond_rank(config)
    return lines


def _beyond_rank(config: Config) -> list[str]:
    """A line about weights whose components of one class are more than their rank can be."""
    model, found = config.model, {}
    for name, form in model.forms.items():
        kind = name.partition("/")[2]
        rank, given = min(model.projection_sizes[kind]), (form.shared or 0) + form.tailors
        if form.tailors and given > rank:
            found[kind] = f"{(form.shared or 0)} + {form.tailors} components of a rank of {rank}"
    if not found:
        return []
    name, first = next(iter(found.items()))
    more = f" (and {len(found) - 1} other projections)" if len(found) > 1 else ""
    return [
        f"warning: model.factor.learngenes and .tailors give {name} {first}{more}; what is beyond the rank costs time "
        "and adds nothing"
    ]
