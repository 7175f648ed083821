"""One model, several programs: scan over depth, rematerialisation, donation, accumulation."""

from __future__ import annotations

from cases import compile_step, kind, train_step
from harness import Found, Row, race
from record import Settings

from kind_jax.config import change

COMPILE_TARGET = 1.2


def measure(settings: Settings) -> Found:
    """Compile time by depth, and what each of the choices costs in time and memory at one depth."""
    shallow, deep = (1, 2) if settings.quick else (12, 28)
    small = {"width": 64 if settings.quick else 128, "tokens": 16 if settings.quick else 64, "batch": 4}
    compiling = race(
        [
            compile_step("scan, shallow", kind(**small, depth=shallow, scan_unroll=1)),
            compile_step("scan, deep", kind(**small, depth=deep, scan_unroll=1)),
            compile_step("unrolled, shallow", kind(**small, depth=shallow)),
        ],
        rounds=1 if settings.quick else min(settings.rounds, 5),  # seconds each
        warmup=0 if settings.quick else 1,
    )
    rows = [
        Row(what=f"compile time, scan: depth {deep} / {shallow}",
            ratio=compiling.ratio("scan, deep", "scan, shallow"), target=COMPILE_TARGET),
        Row(what=f"compile time, depth {shallow}: scan / unrolled",
            ratio=compiling.ratio("scan, shallow", "unrolled, shallow")),
    ]  # fmt: skip

    sizes = dict(small) if settings.quick else {"width": 256, "tokens": 64, "batch": 32}
    scanned = kind(**sizes, depth=shallow, classes=10, scan_unroll=1)
    variants = {
        "unrolled": change(scanned, model={"scan_unroll": 0}),
        "remat": change(scanned, model={"remat": True}),
        "accumulate 4": change(scanned, train={"accumulate": 4}),
    }
    contestants = [train_step("base", scanned), train_step("no donation", scanned, donate=False)]
    contestants += [train_step(name, config) for name, config in variants.items()]
    made = race(contestants, rounds=settings.rounds)
    for name in ("unrolled", "remat", "no donation", "accumulate 4"):
        rows.append(Row(what=f"{name} / scan, depth {shallow}: step time", ratio=made.ratio(name, "base")))
        # What is not donated is not temporary but a result: only the total compares.
        for what, total in (("temporary memory", False), ("total memory", True)):
            memory = made.memory(name, "base", total=total)
            if memory is not None:
                rows.append(Row(what=f"{name} / scan, depth {shallow}: {what}", ratio=memory))
    return Found(
        rows=tuple(rows),
        sizes={"compile": small, "step": sizes, "depths": [shallow, deep]},
        details={"compile": compiling.details(), "step": made.details()},
    )
