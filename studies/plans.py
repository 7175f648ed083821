"""Rewrites the plans in the documents with what ``kind-jax plan`` says now: make plans.

A page has a block between two comments, with the commands and a table of their figures. Both are written here, from
``PAGES``, so that neither can say anything else than the command does. A plan of the largest models takes a minute and
some gigabytes; tests/plan/test_pages.py compares one small row, and all of them with -m slow.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kind_jax.plan.estimate import readable, readable_time

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- make plans -->", "<!-- end of plans -->"
WIDTH = 120  # of a command, before it goes on in another line

Figures = dict[str, Any]  # what --out writes


@dataclasses.dataclass(frozen=True)
class Plan:
    """One row: its name, and the arguments of ``kind-jax plan``."""

    name: str
    arguments: str


@dataclasses.dataclass(frozen=True)
class Page:
    """The block of one document."""

    path: Path
    columns: tuple[str, ...]
    cells: Callable[[Figures], list[str]]
    plans: tuple[Plan, ...]


def _chip(figures: Figures, name: str) -> str:
    """Images a second on one chip, and of what a step is made up."""
    verdict = next(v for v in figures["chips"] if v["chip"]["name"] == name)
    if not verdict["fits"]:
        return "too small"
    times = f"{readable_time(verdict['compute_seconds'])} + {readable_time(verdict['collective_seconds'])}"
    return f"{verdict['images_per_second']:,.0f} ({times})"


SHOWN = {"a100": "A100 80 GB", "h100": "H100", "b200": "B200", "v5e": "v5e", "v5p": "v5p", "v6e": "v6e"}


def _scaling(figures: Figures) -> list[str]:
    memory = figures["memory"]
    return [
        _mesh(figures), str(figures["batch"]), _state(memory), readable(memory["temporary"]), _received(figures),
        _flops(figures), *(_chip(figures, name) for name in SHOWN),
    ]  # fmt: skip


def _imagenet(figures: Figures) -> list[str]:
    memory, (verdict,) = figures["memory"], figures["chips"]
    chip = verdict["chip"]
    return [
        _mesh(figures), str(figures["batch"]), _state(memory), readable(memory["temporary"]),
        f"{readable(memory['total'])} of {readable(chip['memory'])} ({chip['name']})", _flops(figures),
        readable_time(verdict["compute_seconds"]), readable_time(verdict["collective_seconds"]),
        f"{verdict['images_per_second']:,.0f}", f"{verdict['overlapped_images_per_second']:,.0f}",
    ]  # fmt: skip


def _assembling(figures: Figures) -> list[str]:
    memory = figures["memory"]
    fits = [SHOWN[v["chip"]["name"]] for v in figures["chips"] if v["fits"] and v["chip"]["name"] in SHOWN]
    verdict = next(v for v in figures["chips"] if v["chip"]["name"] == "v5p")
    days = verdict["step_seconds"] * figures["steps"] / 86_400
    return [
        _state(memory), readable(memory["fixed"]), readable(memory["total"]), _flops(figures),
        ", ".join(fits) if len(fits) < len(SHOWN) else "all", readable_time(verdict["step_seconds"]),
        f"{figures['steps']:,}", f"{days:.2f}",
    ]  # fmt: skip


def _mesh(figures: Figures) -> str:
    return "x".join(str(figures["mesh"][axis]) for axis in ("data", "fsdp"))


def _state(memory: dict[str, int]) -> str:
    return readable(sum(memory[part] for part in ("parameters", "average", "optimizer", "counters")))


def _received(figures: Figures) -> str:
    """Bytes that a device receives in a step."""
    return readable(sum(kind["received"] for kind in figures["collectives"].values()))


def _flops(figures: Figures) -> str:
    return f"{figures['flops'] / 1e12:,.4g}"


PAGES = (
    Page(
        ROOT / "docs" / "scaling.md",
        ("model", "mesh", "batch", "state", "temporary", "received", "TFLOPs", *SHOWN.values()),
        _scaling,
        (
            Plan("S/2, one device", "--config dit_s2 --mesh 1x1 --train.batch 64"),
            Plan("B/2, one box", "--config dit_b2 --mesh 1x8"),
            Plan("B/2, one box, the bank whole", "--config dit_b2 --mesh 8x1"),
            Plan("L/2, one box", "--config dit_l2 --mesh 1x8"),
            Plan("XL/2, 64 chips", "--config dit_xl2 --mesh 4x16 --train.batch 1024"),
            Plan("XL/2, 256 chips", "--config dit_xl2 --mesh 16x16"),
            Plan("XL/2, 256 chips", "--config dit_xl2 --mesh 16x16 --train.batch 4096"),
            Plan("B/2, one box, class-grouped", "--config dit_b2 --mesh 1x8 --data.per-class 32"),
            Plan("L/2, one box, class-grouped", "--config dit_l2 --mesh 1x8 --data.per-class 32"),
            Plan("XL/2, 256 chips, class-grouped", "--config dit_xl2 --mesh 16x16 --data.per-class 16"),
            Plan(
                "XL/2, 256 chips, class-grouped",
                "--config dit_xl2 --mesh 16x16 --train.batch 4096 --data.per-class 256",
            ),
            Plan(
                "XL/2, 1000 classes, class-grouped",
                "--config dit_xl2 --mesh 16x16 --train.batch 4096 --data.per-class 256 --model.num-classes 1000",
            ),
            Plan(
                "XL/2, dense",
                "--config dit_xl2 --mesh 16x16 --train.batch 4096 --model.factor.projections",
            ),
        ),
    ),
    Page(
        ROOT / "docs" / "imagenet.md",
        (
            "setting", "mesh", "batch", "state", "temporary", "total", "TFLOPs a device", "computing", "communication",
            "images/s", "overlapped",
        ),
        _imagenet,
        (
            Plan("B/2, one GPU", "--config dit_b2_imagenet --mesh 1x1 --chip h100 --train.accumulate 8"),
            Plan("L/2, superclasses", "--config dit_l2_superclass --mesh 1x1 --chip h100 --train.accumulate 8"),
            Plan("XL/2, superclasses", "--config dit_xl2_superclass --mesh 1x1 --chip h100 --train.accumulate 16"),
            Plan(
                "L/2, one large GPU",
                "--config dit_l2_imagenet --mesh 1x1 --chip h200 --train.batch 64 --train.accumulate 4",
            ),
            Plan("B/2, 8 GPUs", "--config dit_b2_imagenet --mesh 8x1 --chip h100"),
            Plan("L/2, 8 GPUs", "--config dit_l2_imagenet --mesh 1x8 --chip h100"),
            Plan("XL/2, 8 GPUs", "--config dit_xl2_imagenet --mesh 1x8 --chip h100"),
            Plan("B/2, v5e-16", "--config dit_b2_imagenet --mesh 1x16 --chip v5e --model.remat"),
            Plan("L/2, v5e-16", "--config dit_l2_imagenet --mesh 1x16 --chip v5e"),
            Plan("XL/2, v5e-16", "--config dit_xl2_imagenet --mesh 1x16 --chip v5e --train.accumulate 4"),
            Plan("B/2 to 461 novel classes", "--config dit_b2_novel --mesh 1x8 --chip h100"),
            Plan(
                "B/2 to ten of them",
                "--config dit_b2_novel --mesh 1x1 --chip h100 --data.classes 0 1 2 3 4 5 6 7 8 9 "
                "--model.num-classes 10 --train.accumulate 8",
            ),
            Plan("B/2 to one class of faces", "--config dit_b2_faces --mesh 1x1 --chip h100"),
        ),
    ),
    Page(
        ROOT / "docs" / "assembling.md",
        ("trained", "state", "frozen", "total", "TFLOPs", "fits in", "step on v5p", "steps", "days on 16 v5p"),
        _assembling,
        tuple(
            Plan(f"{name}, {part}", f"--config {config}_{phase} --mesh 16x1 --train.accumulate 8")
            for name, config in (("ViT-B", "vit_b16"), ("ViT-L", "vit_l16"), ("ViT-H", "vit_h14"))
            for part, phase in (
                ("meta model", "meta"), *((f"module {k}", f"module --module.index {k}") for k in (0, 1, 3)),
                ("fine-tuned whole", "assembled"),
            )
        ),
    ),
)  # fmt: skip


def figures(plan: Plan) -> Figures:
    """Run ``kind-jax plan`` in a process of its own, as a user does."""
    ours = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "plan.json"
        done = subprocess.run(
            [sys.executable, "-m", "kind_jax", "plan", *shlex.split(plan.arguments), "--out", out],
            cwd=ROOT, env=environment | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not out.is_file():  # a plan that fits no chip has figures, too
            raise RuntimeError(f"kind-jax plan {plan.arguments}\n{done.stdout}{done.stderr}")
        return json.loads(out.read_text())


def row(page: Page, plan: Plan) -> str:
    """The line of the table, computed now."""
    return _line([plan.name, *page.cells(figures(plan))])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def frame(page: Page) -> tuple[str, str]:
    """What stands before the rows: the commands as a code block, and the head of the table."""
    commands = "\n".join(_wrapped(f"kind-jax plan {plan.arguments}") for plan in page.plans)
    head = f"{_line(list(page.columns))}\n|{'---|' * len(page.columns)}"
    return f"```sh\n{commands}\n```", head


def _wrapped(command: str) -> str:
    if len(command) <= WIDTH:
        return command
    at = command.rindex(" --", 0, WIDTH)
    return f"{command[:at]} \\\n   {command[at:]}"


def block(page: Page) -> str:
    """What stands between the comments of a page at present."""
    return page.path.read_text().partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]


def rewrite(page: Page) -> None:
    """Compute all rows of a page and put them in."""
    commands, head = frame(page)
    rows = []
    for plan in page.plans:
        rows.append(row(page, plan))
        print(rows[-1], flush=True)
    before, _, rest = page.path.read_text().partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not end:
        raise RuntimeError(f"{page.path} has no '{END}' behind '{BEGIN}'")
    text = "\n".join([head, *rows])
    page.path.write_text(f"{before}{BEGIN}\n{commands}\n\n{text}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[page.path.stem for page in PAGES], help="one page; default: all")
    only = parser.parse_args().only
    for page in PAGES:
        if only in (None, page.path.stem):
            rewrite(page)


if __name__ == "__main__":
    main()
