"""A program's run as straight-line code: commands bound to memory once, executed again and again.

What a program dispatches depends on its parameters only in some addresses and limits (affine.py). So a run is
prepared once per entry: data flow is simplified (forwarding.py) and every command bound to views of memory.
For new parameters the few commands that depend on them are bound again, for known ones not even those.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from npuc.ir.command_spec import BIT_TYPES
from npuc.ir.commands import At, compile_copy, compile_pass
from npuc.ir.errors import UserError
from npuc.runtime.simulator.access import Access
from npuc.runtime.simulator.affine import Affine, NotAffine, Value
from npuc.runtime.simulator.dispatched import Dispatched, dispatched
from npuc.runtime.simulator.forwarding import Forwarding, Interval, live, rewritten_spec
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.plan import CopyPlan, PassPlan
from npuc.runtime.simulator.program import LoadedProgram

Operation = Callable[[], object]
KEPT_PARAMETERS = 256  # settings whose bound commands are kept


def prepare(
    program: LoadedProgram,
    entry: str,
    parameters: int,
    memories: Mapping[str, SimulatedMemory],
    local: Mapping[str, SimulatedMemory],
) -> StraightLine | None:
    """The straight-line code of an entry for any ``parameters`` values.

    None where the program is not of that kind, or has an error that executing it command by command shows.
    """
    try:
        found = dispatched(program, entry, parameters, memories)
        flow = Forwarding(local)
        for command in found:
            flow.add(command)
        return StraightLine(live(flow.commands, local), len(found), flow.relied, memories)
    except (NotAffine, UserError):
        return None


class StraightLine:
    """The commands of a run, bound to memories.

    Attributes:
        executed: how many commands the program dispatches.
        positions: of the operations' commands in the program.
    """

    def __init__(
        self,
        commands: Sequence[Dispatched],
        executed: int,
        relied: set[Interval],
        memories: Mapping[str, SimulatedMemory],
    ) -> None:
        self.executed = executed
        self.positions = [command.position for command in commands]
        self._memories = memories
        self._relied = _merged(relied)
        self._binders = [_Binder(command, memories) for command in commands]
        self._varying = [i for i, command in enumerate(commands) if not command.fixed]
        self._operations: list[Operation] = [
            _nothing if not command.fixed else binder.bind(())
            for command, binder in zip(commands, self._binders, strict=True)
        ]
        self._bound: dict[tuple[int, ...], list[Operation]] = {}

    def ready(self, parameters: tuple[int, ...]) -> bool:
        """Bind what depends on the parameters; False where the program must be run command by command."""
        found = self._bound.get(parameters)
        if found is None:
            try:
                found = [self._checked(self._binders[i], parameters) for i in self._varying]
            except (_Conflict, UserError):
                return False
            if len(self._bound) >= KEPT_PARAMETERS:
                self._bound.clear()
            self._bound[parameters] = found
        for i, operation in zip(self._varying, found, strict=True):
            self._operations[i] = operation
        return True

    def run(self) -> None:
        """Execute what is `ready`.

        Raises:
            Stopped: a command found an error in the data.
        """
        at = 0
        try:
            for at, operation in enumerate(self._operations):  # noqa: B007
                operation()
        except UserError as error:
            raise Stopped(error, self.positions[at]) from error

    def _checked(self, binder: _Binder, parameters: tuple[int, ...]) -> Operation:
        operation = binder.bind(parameters)
        written = binder.writes_to(parameters)
        intervals = self._relied.get(written[0], ([], []))
        before = bisect_right(intervals[0], written[2] - 1) - 1
        if before >= 0 and intervals[1][before] > written[1]:
            raise _Conflict
        return operation


class Stopped(Exception):
    """An error in the data, and the position of the command that found it."""

    def __init__(self, error: UserError, position: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.position = position


class _Conflict(Exception):
    """A command writes where others were rewritten to read later."""


class _Binder:
    """Binds a command to the memories, given the parameters."""

    def __init__(self, command: Dispatched, memories: Mapping[str, SimulatedMemory]) -> None:
        self.command = command
        self._memories = memories

    def bind(self, parameters: Sequence[int]) -> Operation:
        """The command, ready to execute.

        Raises:
            UserError: out-of-bounds or misaligned.
        """
        plan = self.command.plan
        return self._pass(plan, parameters) if isinstance(plan, PassPlan) else self._copy(plan, parameters)

    def writes_to(self, parameters: Sequence[int]) -> Interval:
        """Where it writes."""
        access = self._access(self.command.target.name, parameters)
        return (access.memory.name, *access.box)

    def _pass(self, plan: PassPlan, parameters: Sequence[int]) -> Operation:
        spec = rewritten_spec(self.command)
        operands = {
            name: self._at(name, port.dtype, parameters) for name, port in spec.ports().items()
        }
        function = compile_pass(spec).bind(operands)
        mask_limit, limit = (value_at(value, parameters) for value in self.command.limits)
        if spec.mask is None and spec.limit is None:
            return function
        return partial(function, mask_limit, limit)

    def _copy(self, plan: CopyPlan, parameters: Sequence[int]) -> Operation:
        extent = max(0, min(value_at(self.command.limits[0], parameters), plan.spec.size[0]))
        if not extent:
            return _nothing
        command, size = self.command, (extent, *plan.spec.size[1:])
        spec = replace(plan.spec, size=size)
        if "src" in command.reads:
            spec = replace(spec, src=command.reads["src"].strides)
        dtype = BIT_TYPES[spec.item]
        index = None
        if plan.index is not None:
            flat, start = self._at("index", torch.int32, parameters, extent)
            index = flat[start : start + size[spec.index_dim or 0]]
        src, dst = (self._at(name, dtype, parameters, extent) for name in ("src", "dst"))
        return compile_copy(spec).bind(src, dst, index)

    def _at(
        self, name: str, dtype: torch.dtype, parameters: Sequence[int], extent: int | None = None
    ) -> At:
        access = self._access(name, parameters, extent)
        return At(access.memory.flat(dtype), access.offset)

    def _access(self, name: str, parameters: Sequence[int], extent: int | None = None) -> Access:
        command = self.command
        known = command.reads.get(name) or (command.write if name == command.target.name else None)
        if known is not None:
            return known
        port = command.ports[name]
        address = value_at(command.bases[name], parameters)
        return Access.of(port, self._memories[port.memory.name], address, extent)


def value_at(value: Value, parameters: Sequence[int]) -> int:
    """A value for these parameters."""
    return value.at(parameters) if isinstance(value, Affine) else value


def _nothing() -> None:
    pass


def _merged(intervals: set[Interval]) -> dict[str, tuple[list[int], list[int]]]:
    """Per memory the starts and ends of disjoint intervals, in order."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for memory, low, high in sorted(intervals):
        starts, ends = found.setdefault(memory, ([], []))
        if ends and low <= ends[-1]:
            ends[-1] = max(ends[-1], high)
        else:
            starts.append(low)
            ends.append(high)
    return found
