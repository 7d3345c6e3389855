"""Placing buffers in one memory so that buffers alive at the same time do not overlap.

Program order is a tree of `Step`s; `lifetimes` turns it into half-open intervals of program points and
`place` turns intervals into addresses. The placement is greedy with best fit, the strategy of Pisarchyk
and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020), tried in several orders of
which the one with the lowest peak wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

REPORTED_BUFFERS = 5


class Interval(NamedTuple):
    """A half-open interval of bytes or of program points."""

    start: int
    stop: int

    def meets(self, other: Interval) -> bool:
        """Whether the two have a point in common."""
        return self.start < other.stop and other.start < self.stop


@dataclass(frozen=True)
class Step:
    """One point of a program, or a loop.

    Attributes:
        defines: buffers that begin here.
        uses: buffers read or written here.
        body: the steps of a loop's body; empty for a plain step.
        key: names the step in ``Lifetimes.steps``.
    """

    defines: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    body: tuple[Step, ...] = ()
    key: str = ""


@dataclass
class Lifetimes:
    """Live interval of each buffer, and the point of each step that has a key."""

    buffers: dict[str, Interval] = field(default_factory=dict)
    steps: dict[str, Interval] = field(default_factory=dict)


@dataclass
class _Loop:
    """A loop being walked: its first point and the buffers that live until its end."""

    start: int
    kept: list[str] = field(default_factory=list)


@dataclass
class _Walk:
    whole_loop: Collection[str]
    result: Lifetimes = field(default_factory=Lifetimes)
    depth: dict[str, int] = field(default_factory=dict)
    point: int = 0

    def visit(self, steps: Iterable[Step], loops: tuple[_Loop, ...]) -> None:
        for step in steps:
            self.point += 1
            for name in step.defines:
                self._define(name, loops)
            for name in step.uses:
                self._extend(name)
                for loop in loops[self.depth[name] :]:
                    loop.kept.append(name)
            if step.key:
                self.result.steps[step.key] = Interval(self.point, self.point + 1)
            if step.body:
                self._loop(step, loops)

    def _define(self, name: str, loops: tuple[_Loop, ...]) -> None:
        start = self.point
        self.depth[name] = len(loops)
        if loops and name in self.whole_loop:
            start = loops[-1].start
            loops[-1].kept.append(name)
        self.result.buffers[name] = Interval(start, self.point + 1)

    def _extend(self, name: str) -> None:
        start, stop = self.result.buffers[name]
        self.result.buffers[name] = Interval(start, max(stop, self.point + 1))

    def _loop(self, step: Step, loops: tuple[_Loop, ...]) -> None:
        loop = _Loop(self.point)
        self.visit(step.body, (*loops, loop))
        self.point += 1
        for name in loop.kept:
            self._extend(name)


def lifetimes(steps: Sequence[Step], whole_loop: Collection[str] = ()) -> Lifetimes:
    """Live intervals in program order.

    A buffer lives from its definition to its last use. One defined outside a loop and used inside lives
    to the loop's end; one defined inside lives within an iteration, unless it is in ``whole_loop`` (it has
    several copies that alternate): then it lives as long as the innermost loop around it.
    """
    walk = _Walk(whole_loop)
    walk.visit(steps, ())
    return walk.result


@dataclass(frozen=True)
class Buffer:
    """Something to place: ``size`` bytes at a multiple of ``alignment``, alive during ``live``.

    With ``address`` it is already placed and only keeps others away.
    """

    name: str
    size: int
    live: Interval
    alignment: int = 1
    address: int | None = None


class DoesNotFit(Exception):
    """The buffers alive at one point need more than the memory has.

    Attributes:
        memory, need, capacity: which memory, the bytes needed at the peak, the bytes it has.
        largest: the largest buffers alive at the peak, with their bytes.
    """

    def __init__(
        self, memory: str, need: int, capacity: int, largest: list[tuple[str, int]], where: str = ""
    ) -> None:
        self.memory, self.need, self.capacity, self.largest = memory, need, capacity, largest
        listed = ", ".join(f"{name} {size}" for name, size in largest)
        needed = f"memory {memory} has {capacity} bytes, {need} are needed at once"
        super().__init__(f"{needed}; largest buffers: {listed}{where}")


ORDERS: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
    lambda b: (-b.size, b.live.start),
    lambda b: (-b.size * (b.live.stop - b.live.start), b.live.start),
    lambda b: (b.live.start, -b.size),
)
"""In which buffers are placed: large ones first, those that take most bytes for longest, as they begin."""


def place(buffers: Sequence[Buffer], memory: str, capacity: int, where: str = "") -> dict[str, int]:
    """Addresses by buffer name, with the lowest peak found.

    Args:
        buffers: what to place.
        memory, where: for the error.
        capacity: the bytes there are.

    Raises:
        DoesNotFit: no order tried keeps the peak within ``capacity``.
    """
    point, least = _densest_point(buffers)
    if least > capacity:
        raise _does_not_fit(buffers, point, least, (memory, capacity, where))
    candidates = [_place_in_order(sorted(buffers, key=order)) for order in ORDERS]
    best = min(candidates, key=lambda placed: peak(buffers, placed))
    need = peak(buffers, best)
    if need > capacity:
        raise _does_not_fit(buffers, point, need, (memory, capacity, where))
    return best


def _densest_point(buffers: Iterable[Buffer]) -> tuple[int, int]:
    """The point at which most bytes are alive, and how many these are."""
    change: Counter[int] = Counter()
    for buffer in buffers:
        change[buffer.live.start] += buffer.size
        change[buffer.live.stop] -= buffer.size
    points = sorted(change)
    alive = accumulate(change[point] for point in points)
    return max(zip(points, alive, strict=True), key=lambda pair: pair[1], default=(0, 0))


def _place_in_order(buffers: Iterable[Buffer]) -> dict[str, int]:
    placed: list[tuple[Buffer, int]] = []
    later: list[Buffer] = []
    for buffer in buffers:
        if buffer.address is None:
            later.append(buffer)
        else:
            placed.append((buffer, buffer.address))
    for buffer in later:
        taken = sorted((a, a + b.size) for b, a in placed if b.live.meets(buffer.live) and b.size)
        placed.append((buffer, _best_gap(taken, buffer)))
    return {buffer.name: address for buffer, address in placed}


def _best_gap(taken: Sequence[tuple[int, int]], buffer: Buffer) -> int:
    """The start of the smallest sufficient gap between the taken byte intervals, else the end of all."""
    best: tuple[int, int] | None = None
    end = 0
    for start, stop in taken:
        address = _aligned(end, buffer.alignment)
        if address + buffer.size <= start and (best is None or start - end < best[0]):
            best = (start - end, address)
        end = max(end, stop)
    return best[1] if best is not None else _aligned(end, buffer.alignment)


def _aligned(address: int, alignment: int) -> int:
    return -(-address // alignment) * alignment


def peak(buffers: Iterable[Buffer], placed: Mapping[str, int]) -> int:
    """The end of the last buffer."""
    return max((placed[b.name] + b.size for b in buffers), default=0)


def _does_not_fit(buffers: Sequence[Buffer], point: int, need: int, of: tuple[str, int, str]) -> DoesNotFit:
    memory, capacity, where = of
    alive = [b for b in buffers if b.live.start <= point < b.live.stop]
    largest = sorted(alive, key=lambda b: (-b.size, b.name))[:REPORTED_BUFFERS]
    return DoesNotFit(memory, need, capacity, [(b.name, b.size) for b in largest], where)
