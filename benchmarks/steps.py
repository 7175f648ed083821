"""Whole training steps of KIND: against more classes, against a dense DiT, and by the order of its products."""

from __future__ import annotations

from typing import Any

from cases import dense, kind, train_step
from harness import Found, Race, Row, race
from record import Settings

from kind_jax.config import change

CLASSES_TARGET, DENSE_TARGET, MEMORY_TARGET = 1.10, 0.85, 1.15


def _sizes(settings: Settings, **sizes: Any) -> dict[str, Any]:
    """``sizes``, or tiny ones."""
    return sizes | ({"width": 64, "depth": 1, "tokens": 16, "batch": 4} if settings.quick else {})


def classes(settings: Settings) -> Found:
    """The step's cost must not depend on how many classes the model knows."""
    sizes = _sizes(settings, width=384, depth=4, tokens=64, batch=32, tailors=4)
    few, many = kind(**sizes, classes=10), kind(**sizes, classes=600)
    plain = change(many, optimizer={"lazy_tailors": False})
    made = race(
        [train_step("10", few), train_step("600", many), train_step("600, plain Adam", plain)], rounds=settings.rounds
    )
    rows = [
        Row(what="600 classes / 10 classes", ratio=made.ratio("600", "10"), target=CLASSES_TARGET),
        Row(what="600 classes / the same with lazy_tailors off", ratio=made.ratio("600", "600, plain Adam")),
    ]
    return Found(rows=tuple(rows + _memory(made, [("600", "10", None)])), sizes=sizes, details=made.details())


def kind_vs_dense(settings: Settings) -> Found:
    """Half of the components in every projection, against the dense model of the same width and depth."""
    sizes = _sizes(settings, width=384, depth=6, tokens=64, batch=32)
    contestants = [train_step("dense", dense(kind(**sizes)))]
    for tailors in (4, 5 * sizes["width"] // 64):
        for order, together in (("", None), (", class-grouped", 2 if settings.quick else 8)):
            config = change(kind(**sizes, tailors=tailors), data={"per_class": together})
            contestants.append(train_step(f"KIND, N_T {tailors}{order}", config))
    made = race(contestants, rounds=settings.rounds)
    names = [contestant.name for contestant in contestants[1:]]
    rows = [
        Row(what=f"{name} / dense, step time", ratio=made.ratio(name, "dense"), target=DENSE_TARGET) for name in names
    ]
    rows += _memory(made, [(name, "dense", MEMORY_TARGET) for name in names])
    return Found(rows=tuple(rows), sizes=sizes, details=made.details())


def contraction(settings: Settings) -> Found:
    """Whether ``model.contraction`` auto is as fast as the better order at each number of learngenes."""
    sizes = _sizes(settings, width=384, depth=6, tokens=64, batch=32)
    rows, details = [], {}
    for quarters in (2,) if settings.quick else (1, 2, 3):
        share = f"{quarters}/4"
        config = kind(**sizes, learngenes=quarters * sizes["width"] // 4)
        orders = ("auto", "factored", "folded")
        made = race(
            [train_step(order, change(config, model={"contraction": order})) for order in orders],
            rounds=settings.rounds,
        )
        rows += [
            Row(what=f"auto / {order}, N_G {share} of the width", ratio=made.ratio("auto", order))
            for order in orders[1:]
        ]
        details[share] = made.details()
    return Found(rows=tuple(rows), sizes=sizes, details=details)


def _memory(made: Race, pairs: list[tuple[str, str, float | None]]) -> list[Row]:
    """Rows on temporary memory, where the platform tells it."""
    found = [(f"{a} / {b}, temporary memory", made.memory(a, b), target) for a, b, target in pairs]
    return [Row(what=what, ratio=ratio, target=target) for what, ratio, target in found if ratio is not None]
