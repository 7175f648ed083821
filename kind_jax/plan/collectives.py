"""What a compiled program sends between devices, read from its text.

Every collective counts as often as the loops around it run. Of an asynchronous pair only the ``-done`` counts: its type
is the result, while a ``-start`` has the operands in its type too.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import numpy as np

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


@dataclasses.dataclass(frozen=True)
class Flow:
    """Which devices exchange something, and how.

    Attributes:
      kind: one of KINDS.
      members: numbers of the devices of one group; all groups of a collective are alike. Of a collective-permute, its
        pairs one after another: who sends, who receives.
    """

    kind: str
    members: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collectives:
    """All communication of a program.

    Attributes:
      flows: what each flow brings to a device.
      unknown_loops: loops with collectives whose number of iterations XLA does not know; these count as one.
    """

    flows: dict[Flow, Traffic]
    unknown_loops: int

    @property
    def by_kind(self) -> dict[str, Traffic]:
        """Only the kinds that occur."""
        found: dict[str, Traffic] = {}
        for flow, traffic in self.flows.items():
            found[flow.kind] = found.get(flow.kind, Traffic()) + traffic
        return {kind: found[kind] for kind in KINDS if kind in found}

    @property
    def total(self) -> Traffic:
        return sum(self.flows.values(), start=Traffic())


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Computation:
    traffic: list[tuple[Flow, Traffic]] = dataclasses.field(default_factory=list)
    calls: list[tuple[str, int | None]] = dataclasses.field(default_factory=list)  # None: nobody knows how often


def count(text: str) -> Collectives:
    """Count the collectives of ``compiled.as_text()``."""
    computations, entry = _parse(text)

    @functools.cache
    def of(name: str) -> tuple[dict[Flow, Traffic], int]:
        found: dict[Flow, Traffic] = {}
        unknown = 0
        for flow, traffic in computations[name].traffic:
            found[flow] = found.get(flow, Traffic()) + traffic
        for callee, trips in computations[name].calls:
            inside, deeper = of(callee) if callee in computations else ({}, 0)
            unknown += deeper + (trips is None and bool(inside))
            for flow, traffic in inside.items():
                found[flow] = found.get(flow, Traffic()) + traffic.times(1 if trips is None else trips)
        return found, unknown

    flows, unknown = of(entry)
    return Collectives(flows=flows, unknown_loops=unknown)


def crossing(flow: Flow, output: int, box: int) -> float:
    """Bytes that a device must receive from other boxes, where ``box`` devices in a row stand in one.

    Members in one box share what comes in: each fetches its part and passes it on inside. That is what a hierarchical
    algorithm does, and several rings at once.

    Args:
      output: bytes of the results on one device.
    """
    boxes = [member // box for member in flow.members]
    if flow.kind == "collective-permute":
        return float(output) if boxes[::2] != boxes[1::2] else 0.0
    n = len(set(boxes))
    together = len(boxes) / n
    return {
        "all-reduce": 2 * (n - 1) / n * output / together,
        "all-gather": (n - 1) / n * output / together,
        "reduce-scatter": float((n - 1) * output),
        "all-to-all": (n - 1) / n * output,
    }[flow.kind]


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, current = "", _Computation()
    members: dict[str, tuple[int, ...]] = {}  # devices that take part, by the name of the instruction
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
                group = members.get(start[1] if start else "", tuple(range(devices)))
            else:
                group = members[instruction["name"]] = _members(rest, devices)
            if not code.endswith("-start"):
                current.traffic.append((Flow(kind, group), _traffic(kind, _size(shape), len(group))))
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


def _members(rest: str, devices: int) -> tuple[int, ...]:
    """The first group of devices, in any of the notations of XLA; all devices where none is given."""
    if pairs := re.search(r"source_target_pairs=\{(\{[\d,{} ]*\})\}", rest):
        return tuple(int(n) for n in re.findall(r"\d+", pairs[1]))
    if iota := re.search(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)", rest):
        return _first_of_iota(iota[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return tuple(int(n) for n in listed[1].split(","))
    if axes := re.search(r"replica_groups=mesh\[(.*?)\].*? \{([^}]*)\}", rest):
        return _first_of_mesh(axes[1], axes[2])
    return tuple(range(devices))


@functools.cache
def _first_of_iota(text: str) -> tuple[int, ...]:
    """Of ``[groups,size]<=[dims]T(order)``: numbers counted up, transposed, cut into groups."""
    groups, dims, *order = ([int(n) for n in part.split(",")] for part in re.findall(r"[\[(]([\d,]+)[\])]", text))
    numbers = np.arange(math.prod(dims)).reshape(dims).transpose(order[0] if order else range(len(dims)))
    return tuple(numbers.reshape(groups)[0].tolist())


@functools.cache
def _first_of_mesh(sizes: str, axes: str) -> tuple[int, ...]:
    """Of ``'i'=2,'j'=4`` and ``'j':(before)size``: devices that differ along the axes, or a part of one, alone."""
    shape = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", sizes)}
    numbers = np.arange(math.prod(shape.values())).reshape(list(shape.values()))
    chosen: dict[str, slice] = dict.fromkeys(shape, slice(0, 1))
    for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes):
        step = shape[name] // (int(before) * int(size)) if size else 1
        chosen[name] = slice(0, step * int(size) if size else None, step)
    return tuple(numbers[tuple(chosen.values())].ravel().tolist())


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
