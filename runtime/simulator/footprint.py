"""The bytes that a port of a command reads or writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from npuc.backends.instruction import Reg
from npuc.ir.commands import Bound
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.plan import CopyPlan, PassPlan, PortPlan
from numpy.typing import NDArray
from torch import Tensor

Exempt = tuple[tuple[tuple[int, int], ...], int]
"""Positions that do not count: Σ index[axis] · step over (axis, step) is at or behind the limit."""


@dataclass(eq=False)
class Footprint:
    """The elements that a port of a command touches, with its registers resolved.

    Attributes:
        plan: the port.
        memory: the memory.
        sizes: extents of the axes, slices first in a pass; a copy's first one is clipped.
        offsets: bytes in the storage of the first elements: one, or one per row of a gather.
        exempt: positions that do not count as read.
    """

    plan: PortPlan
    memory: SimulatedMemory
    sizes: tuple[int, ...]
    offsets: tuple[int, ...]
    exempt: Sequence[Exempt] = ()

    @property
    def writes(self) -> bool:
        """Whether the port writes."""
        return self.plan.name in ("out", "dst")

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Bytes in the storage, 0 where an axis does not move."""
        return self.plan.storage_strides()

    @cached_property
    def _rectangle(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Extents and absolute strides of the axes that move, and the shift to the lowest element."""
        pairs = [(n, s) for n, s in zip(self.sizes, self.strides, strict=True) if n > 1 and s]
        shift = sum(s * (n - 1) for n, s in pairs if s < 0)
        return tuple(n for n, _ in pairs), tuple(abs(s) for _, s in pairs), shift

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """First slice, last slice + 1, lowest and highest + 1 local address: outside it there is nothing."""
        starts = [self.memory.place(offset) for offset in self.offsets]
        low, high = self.plan.span(self.plan.strides, self.sizes[0])
        low_slice, high_slice = self.plan.span(self.plan.slice_steps, self.sizes[0])
        return (
            min(s for s, _ in starts) + low_slice,
            max(s for s, _ in starts) + high_slice + 1,
            min(a for _, a in starts) + low,
            max(a for _, a in starts) + high + self.plan.item,
        )

    @cached_property
    def runs(self) -> tuple[NDArray[np.int64], int]:
        """Sorted first bytes of its contiguous runs, and their common length."""
        sizes, strides, shift = self._rectangle
        axes = sorted(zip(strides, sizes, strict=True))
        length = self.plan.item
        while axes and axes[0][0] <= length:
            stride, n = axes.pop(0)
            length += stride * (n - 1)
        starts = np.array(self.offsets, np.int64) + shift
        for stride, n in axes:
            starts = (starts[:, None] + np.arange(n) * stride).reshape(-1)
        return np.unique(starts), length

    def overlap(self, other: Footprint) -> tuple[int, int] | None:
        """The first run of bytes in both, as [low, high) in the storage."""
        if self.memory is not other.memory or not _boxes_meet(self.box, other.box):
            return None
        (mine, length), (theirs, their_length) = self.runs, other.runs
        before = np.searchsorted(theirs, mine + length) - 1  # their last one before mine ends
        found = theirs[np.maximum(before, 0)]
        hits = np.nonzero((before >= 0) & (found + their_length > mine))[0]
        if not hits.size:
            return None
        at = int(hits[0])
        low, high = max(int(mine[at]), int(found[at])), int(min(mine[at] + length, found[at] + their_length))
        return low, high

    def unwritten(self, written: Tensor) -> int | None:
        """The storage byte of an element that counts and was not written, None if there is none."""
        for offset in self.offsets:
            bad = self._view(written, offset) == 0
            inside = self._inside()
            if inside is not None:
                bad = bad & inside
            if bool(bad.any()):
                index = [int(i[0]) for i in torch.nonzero(bad, as_tuple=True)]
                return offset + sum(i * s for i, s in zip(index, (*self.strides, 1), strict=True) if i)
        return None

    def read(self, storage: Tensor) -> list[Tensor]:
        """The bytes of all elements in a storage of this memory's form, [axes…, item] from each offset."""
        return [self._view(storage, offset) for offset in self.offsets]

    def mark(self, written: Tensor) -> None:
        """Set the bytes of all elements in a bitmap."""
        sizes, strides, shift = self._rectangle
        for offset in self.offsets:
            written.as_strided((*sizes, self.plan.item), (*strides, 1), offset + shift).fill_(1)

    def _view(self, written: Tensor, offset: int) -> Tensor:
        """The bytes of all elements, [axes…, item], in the order of the nest."""
        shape = [n if s else 1 for n, s in zip(self.sizes, self.strides, strict=True)]
        shift = sum(s * (n - 1) for n, s in zip(self.sizes, self.strides, strict=True) if s < 0)
        steps = [abs(s) or 1 for s in self.strides]
        view = written.as_strided((*shape, self.plan.item), (*steps, 1), offset + shift)
        return view.flip([i for i, s in enumerate(self.strides) if s < 0])

    def _inside(self) -> Tensor | None:
        """Which elements count, [axes…, 1]; None where all do."""
        found: Tensor | None = None
        for axes, limit in self.exempt:
            position = torch.zeros([1] * (len(self.sizes) + 1), dtype=torch.int64)
            for axis, step in axes:
                shape = [1] * (len(self.sizes) + 1)
                shape[axis] = self.sizes[axis]
                position = position + (torch.arange(self.sizes[axis]) * step).view(shape)
            found = position < limit if found is None else found & (position < limit)
        return found


def pass_footprints(
    plan: PassPlan, memories: Mapping[str, SimulatedMemory], registers: Sequence[int]
) -> list[Footprint]:
    """What a pass reads and writes with these registers.

    Raises:
        UserError: out-of-bounds or misaligned.
    """
    mask = _exempt(plan.spec.mask, plan.mask_limit, plan, registers)
    limit = _exempt(plan.spec.limit, plan.limit, plan, registers)
    exempt = {"stream": (*mask, *limit), "operand": limit, "vrf": limit}
    found: list[Footprint] = []
    for name, port in plan.ports.items():
        memory = memories[port.memory.name]
        offset = port.locate(memory, port.base.imm + registers[port.base.reg])
        found.append(Footprint(port, memory, port.sizes, (offset,), exempt.get(name, ())))
    return found


def copy_footprints(
    plan: CopyPlan, memories: Mapping[str, SimulatedMemory], registers: Sequence[int]
) -> list[Footprint]:
    """What a copy reads and writes with these registers; nothing where its limit is 0.

    Raises:
        UserError: out-of-bounds or misaligned.
    """
    extent = plan.extent(registers)
    if extent == 0:
        return []
    found = [_copied(port, memories, registers, extent) for port in (plan.src, plan.dst)]
    if plan.index is not None:
        rows = _copied(plan.index, memories, registers, extent)
        flat, item = rows.memory.flat(torch.int32), rows.offsets[0] // 4
        values = cast(list[int], flat[item : item + rows.sizes[plan.spec.index_dim or 0]].tolist())
        scale, start = plan.spec.index_scale * plan.spec.item, found[0].offsets[0]
        found[0].offsets = tuple(start + value * scale for value in sorted(set(values)))
        found.append(rows)
    return found


def _copied(
    port: PortPlan, memories: Mapping[str, SimulatedMemory], registers: Sequence[int], extent: int
) -> Footprint:
    memory = memories[port.memory.name]
    offset = port.locate(memory, port.base.imm + registers[port.base.reg], extent)
    return Footprint(port, memory, (extent, *port.sizes[1:]), (offset,))


def _exempt(bound: Bound | None, limit: Reg, plan: PassPlan, registers: Sequence[int]) -> tuple[Exempt, ...]:
    """A bound's positions: axis 0 is the slices, nest dimension d is axis d + 1."""
    if bound is None:
        return ()
    ring = plan.spec.ring_dim
    axes = ((bound.dim + 1, 1), (0 if ring is None else ring + 1, bound.slice_step))
    return ((axes, limit.imm + registers[limit.reg]),)


def _boxes_meet(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
