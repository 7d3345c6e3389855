"""Binding a dispatched command to memories, given the values that depend on the run's parameters."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from npuc.ir.command_spec import BIT_TYPES
from npuc.ir.commands import At, CopyKernel, PassSpec, compile_copy, compile_pass
from npuc.ir.pass_binding import BoundPass, Call, Scratch
from npuc.runtime.simulator.access import Access
from npuc.runtime.simulator.affine import Affine, Value
from npuc.runtime.simulator.dispatched import Dispatched
from npuc.runtime.simulator.forwarding import rewritten_spec
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.plan import CopyPlan, PassPlan

Values = Mapping[Affine, int]
Intervals = Mapping[str, tuple[Sequence[int], Sequence[int]]]
"""Per memory the starts and ends of disjoint intervals, in order."""

KEPT = 64  # bound operations of one command


class Conflict(Exception):
    """A command writes where others were rewritten to read later."""


class Binder:
    """Binds a command.

    Attributes:
        values: of its addresses and limits those that depend on parameters.
    """

    def __init__(
        self, command: Dispatched, memories: Mapping[str, SimulatedMemory], scratch: Scratch
    ) -> None:
        self.command = command
        self.addresses = command.addresses
        self.values = [*self.addresses, *(v for v in command.limits if isinstance(v, Affine))]
        self._memories = memories
        self._scratch = scratch
        self._kept: dict[tuple[int, ...], BoundPass | Call] = {}
        self._kernels: dict[tuple[int, ...], CopyKernel] = {}

    def bound(self, values: Values, relied: Intervals) -> Call:
        """The command, ready to execute; kept, where binding is costly.

        Raises:
            UserError: out-of-bounds or misaligned.
            Conflict: it writes into one of the intervals.
        """
        is_pass = isinstance(self.command.plan, PassPlan)
        key = tuple(values[value] for value in (self.addresses if is_pass else self.values))
        found = self._kept.get(key)
        if found is None:
            if self.command.write is None:
                _check_apart(*self._access(self.command.target.name, values), relied)
            if len(self._kept) >= KEPT:
                self._kept.clear()
            found = self._kept[key] = self._located(values)
        return self._limited(found, values).run if isinstance(found, BoundPass) else found

    def bind(self) -> list[Call]:
        """The calls of a command that does not depend on parameters.

        Raises:
            UserError: out-of-bounds or misaligned.
        """
        found = self._located({})
        return self._limited(found, {}).calls if isinstance(found, BoundPass) else [found]

    def _located(self, values: Values) -> BoundPass | Call:
        """The command at its addresses."""
        plan = self.command.plan
        return self._pass(values) if isinstance(plan, PassPlan) else self._copy(plan, values)

    def _limited(self, bound: BoundPass, values: Values) -> BoundPass:
        """A pass with its limits set."""
        bound.limits.mask, bound.limits.limit = (_value(limit, values) for limit in self.command.limits)
        return bound

    @cached_property
    def _spec(self) -> PassSpec:
        return rewritten_spec(self.command)

    def _pass(self, values: Values) -> BoundPass:
        ports = self._spec.ports()
        operands = {name: self._at(name, port.dtype, values) for name, port in ports.items()}
        return compile_pass(self._spec).bind(operands, self._scratch)

    def _copy(self, plan: CopyPlan, values: Values) -> Call:
        first, *rest = self.command.sizes
        extent = max(0, min(_value(self.command.limits[0], values), first))
        if not extent:
            return _nothing
        kernel, index = self._kernel((extent, *rest)), None
        dtype = BIT_TYPES[kernel.spec.item]
        if plan.index is not None:
            flat, start = self._at("index", torch.int32, values, extent)
            index = flat[start : start + kernel.spec.size[kernel.spec.index_dim or 0]]
        src, dst = (self._at(name, dtype, values, extent) for name in ("src", "dst"))
        return kernel.bind(src, dst, index)

    def _kernel(self, size: tuple[int, ...]) -> CopyKernel:
        found = self._kernels.get(size)
        if found is None:
            assert isinstance(self.command.plan, CopyPlan)
            spec = replace(self.command.plan.spec, size=size)
            if "src" in self.command.reads:
                spec = replace(spec, src=self.command.reads["src"].strides)
            found = self._kernels[size] = compile_copy(spec)
        return found

    def _at(self, name: str, dtype: torch.dtype, values: Values, extent: int | None = None) -> At:
        access, by = self._access(name, values, extent)
        return At(access.memory.flat(dtype), access.offset + by // access.item)

    def _access(self, name: str, values: Values, extent: int | None = None) -> tuple[Access, int]:
        """An access of the command, and the bytes to shift it by."""
        command = self.command
        known = command.write if name == command.target.name else command.reads.get(name)
        if known is not None:
            return known, 0 if known.shift is None else values[known.shift]
        whole = command.shifted.get(name)
        if whole is not None and whole.shift is not None and whole.fits(values[whole.shift]):
            return whole, values[whole.shift]
        port, address = command.ports[name], _value(command.bases[name], values)
        return Access.of(port, self._memories[port.memory.name], address, extent), 0


def _check_apart(written: Access, by: int, relied: Intervals) -> None:
    starts, ends = relied.get(written.memory.name, ((), ()))
    low, high = (end + by for end in written.box)
    before = bisect_right(starts, high - 1) - 1
    if before >= 0 and ends[before] > low:
        raise Conflict


def _value(value: Value, values: Values) -> int:
    return values[value] if isinstance(value, Affine) else value


def _nothing() -> None:
    pass
