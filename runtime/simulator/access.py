"""Where a dispatched command reads or writes, and reading through a copy of the data.

Unlike a footprint (footprint.py), an access may be rewritten: to read where the data came from, or to read
one slice where all slices hold the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from npuc.runtime.simulator.affine import Affine, Value
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.plan import PortPlan

Step = tuple[int, int]
"""Slices and bytes in the slice."""


@dataclass(frozen=True)
class Access:
    """The elements of a nest in a memory.

    Attributes:
        memory: the memory.
        item: bytes of an element.
        start: slice and local address of nest index 0.
        sizes: extents of the axes, slices first in a pass.
        steps: what a step along each axis moves.
        shift: bytes added to all addresses, if they depend on parameters.
    """

    memory: SimulatedMemory
    item: int
    start: Step
    sizes: tuple[int, ...]
    steps: tuple[Step, ...]
    shift: Affine | None = None

    @staticmethod
    def of(port: PortPlan, memory: SimulatedMemory, address: Value, extent: int | None = None) -> Access:
        """The access of a port; ``extent`` clips axis 0.

        An address that depends on parameters is not checked; the memory must then be one without slices.

        Raises:
            UserError: out-of-bounds or misaligned.
        """
        if isinstance(address, Affine):
            return replace(Access._of(port, memory, (0, 0), extent), shift=address)
        return Access._of(port, memory, memory.place(port.locate(memory, address, extent)), extent)

    @staticmethod
    def _of(port: PortPlan, memory: SimulatedMemory, start: Step, extent: int | None) -> Access:
        sizes = port.sizes if extent is None else (extent, *port.sizes[1:])
        steps = zip(port.slice_steps, port.strides, strict=True)
        moving = [step if n > 1 else (0, 0) for step, n in zip(steps, sizes, strict=True)]
        return Access(memory, port.item, start, sizes, tuple(moving))

    @property
    def offset(self) -> int:
        """The element of nest index 0 in the memory's storage."""
        return (self.start[0] * self.memory.distance + self.start[1]) // self.item

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements in the storage that a step along each axis moves."""
        return tuple((q * self.memory.distance + r) // self.item for q, r in self.steps)

    @cached_property
    def box(self) -> tuple[int, int]:
        """Lowest and highest + 1 local address, without the shift."""
        moves = [step * (n - 1) for (_, step), n in zip(self.steps, self.sizes, strict=True)]
        low = self.start[1] + sum(m for m in moves if m < 0)
        return low, self.start[1] + sum(m for m in moves if m > 0) + self.item

    @cached_property
    def slice_axis(self) -> int | None:
        """The axis that walks over all slices, if one does and no other moves between slices."""
        axes = [i for i, (slices, _) in enumerate(self.steps) if slices]
        if len(axes) != 1 or self.start[0] != 0:
            return None
        axis = axes[0]
        return axis if self.steps[axis] == (1, 0) and self.sizes[axis] == self.memory.slices else None

    @cached_property
    def whole(self) -> bool:
        """Whether it touches every byte of its box in every slice."""
        if self.memory.slices > 1 and self.slice_axis is None:
            return False
        length = self.item
        for step, n in sorted((abs(step), n) for (_, step), n in zip(self.steps, self.sizes, strict=True)):
            if step and step != length:
                return False
            length = length * n if step else length
        return True

    def fits(self, by: int) -> bool:
        """Whether it lies in the memory, aligned, for a value of its shift."""
        low, high = self.box
        return 0 <= low + by and high + by <= self.memory.size and by % self.item == 0

    @property
    def top(self) -> int:
        """The highest slice + 1."""
        return (
            self.start[0]
            + sum(max(q, 0) * (n - 1) for (q, _), n in zip(self.steps, self.sizes, strict=True))
            + 1
        )

    def clipped(self, sizes: Sequence[int]) -> Access:
        """The elements of a smaller nest."""
        return self if tuple(sizes) == self.sizes else replace(self, sizes=tuple(sizes))

    def in_one_slice(self) -> Access:
        """The same elements of slice 0: for data that is the same in all slices."""
        return replace(self, start=(0, self.start[1]), steps=tuple((0, step) for _, step in self.steps))

    def through(self, target: Access, source: Access) -> Access | None:
        """Where the data comes from, if it was moved from ``source`` to ``target`` (two ports of one nest).

        None where that is no strided access, or where some elements were not moved.
        """
        axes = _axes(target, source)
        if axes is None or self.item != target.item:
            return None
        first = self.start[0] - target.start[0], self.start[1] - target.start[1]
        digits = [_digits(step, axes) for step in (first, *self.steps)]
        if any(found is None for found in digits):
            return None
        base, *moves = [found for found in digits if found is not None]
        for i, axis in enumerate(axes):
            ends = [move[i] * (n - 1) for move, n in zip(moves, self.sizes, strict=True)]
            low, high = sum(e for e in ends if e < 0), sum(e for e in ends if e > 0)
            if not 0 <= base[i] + low <= base[i] + high < axis.size:
                return None
        slice_, local = _sum(base, axes)
        start = source.start[0] + slice_, source.start[1] + local
        steps = tuple(_sum(move, axes) for move in moves)
        return Access(source.memory, self.item, start, self.sizes, steps, source.shift)

    def distance(self, other: Access) -> Value:
        """From its shift to that of another access."""
        return (other.shift or 0) + (self.shift or 0) * -1


@dataclass(frozen=True)
class _Axis:
    """An axis of a move: what a step moves in the target and in the source."""

    size: int
    target: Step
    source: Step

    def joins(self, inner: _Axis) -> bool:
        """Whether this axis and the one inside it are one."""
        return all(
            mine == (inner_step[0] * inner.size, inner_step[1] * inner.size)
            for mine, inner_step in ((self.target, inner.target), (self.source, inner.source))
        )


def _axes(target: Access, source: Access) -> list[_Axis] | None:
    """The axes of a move, the one over the slices first, then by falling steps in the target."""
    found = [
        _Axis(n, to, frm)
        for n, to, frm in zip(target.sizes, target.steps, source.steps, strict=True)
        if n > 1
    ]
    if any(to.target == (0, 0) or min(to.target) < 0 or all(to.target) for to in found):
        return None
    found.sort(key=lambda axis: axis.target, reverse=True)
    merged: list[_Axis] = []
    for axis in found:
        if merged and merged[-1].joins(axis):
            axis = _Axis(merged.pop().size * axis.size, axis.target, axis.source)
        merged.append(axis)
    return merged


def _digits(step: Step, axes: Sequence[_Axis]) -> list[int] | None:
    """How often to step along each axis to move by ``step`` in the target."""
    slices, local = step
    found: list[int] = []
    for axis in axes:
        if axis.target[0]:
            count = _truncated(slices, axis.target[0])
            slices -= count * axis.target[0]
        else:
            count = _truncated(local, axis.target[1])
            local -= count * axis.target[1]
        found.append(count)
    return None if slices or local else found


def _truncated(value: int, step: int) -> int:
    return value // step if value >= 0 else -(-value // step)


def _sum(digits: Sequence[int], axes: Sequence[_Axis]) -> Step:
    pairs = list(zip(digits, axes, strict=True))
    return sum(d * axis.source[0] for d, axis in pairs), sum(d * axis.source[1] for d, axis in pairs)
