"""Equivalent loop nests of a contraction; which one is best only the machine's cost model can say.

A nest's order decides what a machine fetches again and what it holds: with the columns (the loops in which
only the stationary operand moves) inside a part of the reduced loops, one fetch serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

STREAM, STATIONARY = 0, 1
SPLITS = (8, 16, 32, 64)
"""Lengths to which the innermost reduced loop may be cut."""


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
    for length in SPLITS:
        if inner.size > length and inner.size % length == 0:
            strides = tuple(s * length for s in inner.strides)
            blocks = replace(inner, size=inner.size // length, strides=strides)
            yield (*kept, *outer, blocks, *columns, replace(inner, size=length))
