"""The results of an accelerator as one Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerator_log import Case, Log
from harness import Ratio

from kind_jax.plan.estimate import readable, readable_time

COLUMNS = (
    "section", "case", "outcome", "time", "images/s", "time against", "MFU", "memory: program", "memory: peak",
    "memory: planned", "time: planned",
)  # fmt: skip


def table(log: Log, header: Mapping[str, Any]) -> str:
    """A line for each case; what ``kind_jax.plan`` predicted stands beside what was measured."""
    lines = [_machine(header), "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for case in log:
        if case.section == "plan" and case.status == "ok" and log.find("train", case.name):
            continue  # beside its training step
        plan = case if case.section == "plan" else log.find("plan", case.name) if case.section == "train" else None
        cells = [case.section, case.name, _outcome(case), *_measured(case), *_planned(plan)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_notes(log, header)]
    return "\n".join(lines) + "\n"


def _machine(header: Mapping[str, Any]) -> str:
    machine, versions = header["machine"], header["versions"]
    return (
        f"{machine['device']} ({machine['platform']}), jax {versions['jax']}, PyTorch {versions['torch'] or 'none'}, "
        f"commit {header['commit'] or 'unknown'}, `{header['command']}`"
    )


def _outcome(case: Case) -> str:
    note = case.note.replace("|", "/")
    if "errors" in case.figures and case.status == "ok":
        note = ", ".join(f"{name} {error:.1e}" for name, error in case.figures["errors"].items())
    if case.section == "attention" and case.status == "ok":
        calls = case.figures["fused_attention"]
        note = f"{calls['forward']} fused calls forward, {calls['backward']} backward"
    return f"{case.status}: {note}" if note else case.status


def _measured(case: Case) -> list[str]:
    f = case.figures
    if case.section == "plan" or "seconds" not in f:
        return [""] * 6
    mfu, program, peak = f.get("mfu"), f.get("program_bytes"), f.get("peak_bytes")
    return [
        readable_time(f["seconds"]),
        f"{f['images_per_second']:,.4g}",
        f"{f['against']}: {Ratio(**f['ratio'])}" if "ratio" in f else "",
        "" if mfu is None else f"{100 * mfu:.1f} %",
        "" if program is None else readable(program),
        "" if peak is None else f"{'≤ ' if f.get('peak_is_bound') else ''}{readable(peak)}",
    ]


def _planned(plan: Case | None) -> list[str]:
    if plan is None or "memory_bytes" not in plan.figures:
        return ["", ""]
    seconds = plan.figures["seconds"]
    return [readable(plan.figures["memory_bytes"]), "" if seconds is None else readable_time(seconds)]


def _notes(log: Log, header: Mapping[str, Any]) -> list[str]:
    """What a reader must know, and only that."""
    notes = []
    if header["settings"]["quick"]:
        notes.append("Tiny sizes: the figures of time and memory mean nothing.")
    if header["machine"]["peak_flops"] is None:
        notes.append(f"The peak of {header['machine']['device']!r} is not in kind_jax/chips.py, so there is no MFU.")
    if header["machine"]["compilation_cache"]:
        notes.append(
            "A persistent compilation cache was on: seconds of compilation in the JSON file may be of reading."
        )
    if any(case.section == "plan" for case in log):
        notes.append("Planned time: at 40 % of the peak. Planned memory: compiled for the CPU, an upper bound.")
    counts = {status: sum(case.status == status for case in log) for status in dict.fromkeys(c.status for c in log)}
    return [*notes, f"{', '.join(f'{n} {status}' for status, n in counts.items())}."]
