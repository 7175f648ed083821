"""What a compiled program sends between devices, read from its text.

Every collective counts as often as the loops around it run. Of an asynchronous pair only the ``-done`` counts: its type
is the result, while a ``-start`` has the operands in its type too.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$")
_CALLEES = re.compile(r"\b(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z\d]*)\[([\d,<= ]*)\]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """Collectives of one kind, on one device, in one call of the program.

    Attributes:
      count: how many run.
      output: bytes of their results.
      received: bytes that a device must receive for them at least, with no switch that reduces on its way.
    """

    count: int = 0
    output: int = 0
    received: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            count=self.count + other.count,
            output=self.output + other.output,
            received=self.received + other.received,
        )

    def times(self, n: int) -> Traffic:
        return Traffic(count=self.count * n, output=self.output * n, received=self.received * n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collectives:
    """All communication of a program.

    Attributes:
      by_kind: only the kinds that occur.
      unknown_loops: loops with collectives whose number of iterations XLA does not know; these count as one.
    """

    by_kind: dict[str, Traffic]
    unknown_loops: int

    @property
    def total(self) -> Traffic:
        return sum(self.by_kind.values(), start=Traffic())


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Computation:
    traffic: list[tuple[str, Traffic]] = dataclasses.field(default_factory=list)
    calls: list[tuple[str, int | None]] = dataclasses.field(default_factory=list)  # None: nobody knows how often


def count(text: str) -> Collectives:
    """Count the collectives of ``compiled.as_text()``."""
    computations, entry = _parse(text)

    @functools.cache
    def of(name: str) -> tuple[dict[str, Traffic], int]:
        found: dict[str, Traffic] = {}
        unknown = 0
        for kind, traffic in computations[name].traffic:
            found[kind] = found.get(kind, Traffic()) + traffic
        for callee, trips in computations[name].calls:
            inside, deeper = of(callee) if callee in computations else ({}, 0)
            unknown += deeper + (trips is None and bool(inside))
            for kind, traffic in inside.items():
                found[kind] = found.get(kind, Traffic()) + traffic.times(1 if trips is None else trips)
        return found, unknown

    found, unknown = of(entry)
    return Collectives(by_kind={kind: found[kind] for kind in KINDS if kind in found}, unknown_loops=unknown)


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, current = "", _Computation()
    members: dict[str, int] = {}  # devices that take part, by the name of the instruction
    devices = math.prod(int(n) for n in re.findall(r"(?:num_partitions|replica_count)=(\d+)", text[:100_000]))
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = computations[head["name"]] = _Computation()
            entry = head["name"] if head["entry"] else entry
        elif instruction := _INSTRUCTION.match(line):
            shape, rest = _split(instruction["rest"])
            code, _, arguments = rest.partition("(")
            _note_calls(current, code, rest)
            kind = code.removesuffix("-start").removesuffix("-done")
            if kind not in KINDS:
                continue
            if code.endswith("-done"):
                start = re.search(r"%([\w.\-]+)", arguments)
                group = members.get(start[1] if start else "", devices)
            else:
                group = members[instruction["name"]] = _members(rest, devices)
            if not code.endswith("-start"):
                current.traffic.append((kind, _traffic(kind, _size(shape), group)))
    return computations, entry


def _note_calls(current: _Computation, code: str, rest: str) -> None:
    if code in ("async-done", "async-update"):  # what they wait for was counted where it started
        return
    trips: int | None = 1
    if code == "while":
        known = _TRIPS.search(rest)
        trips = int(known[1]) if known else None
    callees = _CALLEES.findall(rest)
    for branches in _BRANCHES.findall(rest):
        callees += [name.strip().lstrip("%") for name in branches.split(",")]
    current.calls.extend((callee, trips) for callee in callees)


def _split(rest: str) -> tuple[str, str]:
    """The type of an instruction, which may be a tuple with comments and layouts in it, and what follows."""
    if not rest.startswith("("):
        shape, _, after = rest.partition(" ")
        return shape, after
    depth = 0
    for i, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if not depth:
            return rest[: i + 1], rest[i + 2 :]
    return rest, ""


def _size(shape: str) -> int:
    """Bytes of an array or of all arrays of a tuple."""
    bits = 0
    for dtype, dims in _ARRAY.findall(shape):
        number = re.search(r"\d+", dtype)  # bf16, f8e4m3fn, s32, c64; a token has no bits
        width = 8 if dtype == "pred" else int(number[0]) if number else 0
        bits += width * math.prod(int(n) for n in re.findall(r"\d+", dims))
    return bits // 8


def _members(rest: str, devices: int) -> int:
    """Devices in one replica group, in any of the notations of XLA; all devices where none is given."""
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return listed[1].count(",") + 1
    if axes := re.search(r"replica_groups=mesh\[(.*?)\].*? \{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        # A part of an axis is written 'axis':(before)size.
        named = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", axes[2])
        return math.prod(int(part or sizes[name]) for name, part in named)
    return devices


def _traffic(kind: str, output: int, members: int) -> Traffic:
    """Bytes that any algorithm must bring to a device (Chan et al., 2007, Collective communication, section 4)."""
    share = (members - 1) / members
    received = {
        "all-reduce": 2 * share * output,
        "all-gather": share * output,
        "reduce-scatter": (members - 1) * output,
        "all-to-all": share * output,
        "collective-permute": output,
    }
    return Traffic(count=1, output=output, received=float(received[kind]))
