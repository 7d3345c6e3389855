"""Equivalent loop nests of a contraction; which one is best only the machine's cost model can say.

A nest's order decides what a machine fetches again and what it holds: with the columns (the loops in which
only the stationary operand moves) inside a part of the reduced loops, one fetch serves all of them. It also
decides what lies together in the stream: where the innermost reduced loop is short, some rows, which lie
behind each other, fill what the machine multiplies at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

STREAM, STATIONARY = 0, 1
SPLITS = (8, 16, 32, 64)
"""Lengths to which the innermost reduced loop may be cut."""
TOGETHER = (2, 4, 8, 16, 32)
"""Numbers of rows that may lie inside the outer reduced loops."""


@dataclass(frozen=True)
class Axis:
    """One loop.

    Attributes:
        size: its extent.
        strides: elements that a step moves in each port, the stream first, the stationary operand second.
        reduced: whether products are summed over it.
        ring: whether it walks over the slices.
    """

    size: int
    strides: tuple[int, ...]
    reduced: bool = False
    ring: bool = False

    @property
    def column(self) -> bool:
        """Whether only the stationary operand moves."""
        moves = self.strides[STATIONARY] and not self.strides[STREAM]
        return bool(moves) and not self.reduced and not self.ring

    def split(self, length: int) -> tuple[Axis, Axis]:
        """The loop over blocks of so many steps, and the one inside a block."""
        strides = tuple(s * length for s in self.strides)
        return replace(self, size=self.size // length, strides=strides), replace(self, size=length)

    def follows(self, inner: Axis) -> bool:
        """Whether the stream goes on with the next step of this loop where that of the inner one ends."""
        run = inner.size * inner.strides[STREAM]
        return self.strides[STREAM] == run and not self.strides[STATIONARY] and not self.ring


def orders(axes: Sequence[Axis]) -> Iterator[tuple[Axis, ...]]:
    """The nests worth asking for, the plainest first."""
    kept = [a for a in axes if not a.reduced and not a.column]
    columns = [a for a in axes if a.column]
    reduced = [a for a in axes if a.reduced]
    yield (*kept, *columns, *reduced)
    if not reduced:
        return
    *outer, inner = reduced
    if outer:
        yield (*kept, *outer, *columns, inner)
    yield (*columns, *kept, *reduced)
    for length in _divisors(inner, SPLITS):
        blocks, block = inner.split(length)
        yield (*kept, *outer, blocks, *columns, block)
    rows = next((a for a in kept if a.size > 1 and a.follows(inner)), None)
    if not outer or rows is None:
        return
    others = [a for a in kept if a is not rows]
    for length in (*_divisors(rows, TOGETHER), rows.size):
        blocks, block = rows.split(length)
        yield (*others, blocks, *outer, block, *columns, inner)
        yield (*others, blocks, *outer, *columns, block, inner)


def _divisors(axis: Axis, lengths: Sequence[int]) -> list[int]:
    """Those of some lengths that divide a loop into several parts."""
    return [n for n in lengths if axis.size > n and axis.size % n == 0]
