"""The function layer: a core that executes commands for their values, in program order.

That is what the machine computes when the program is free of hazards (hazards.py). Each command keeps the
bound functions of the register values that its addresses have had, so that repeating a command costs the
arithmetic and little else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import torch
from npuc.backends.instruction import Reg
from npuc.backends.machine import Machine
from npuc.ir.command_spec import BIT_TYPES
from npuc.ir.commands import At, compile_copy, compile_pass
from npuc.ir.errors import UserError
from npuc.ir.pass_binding import Scratch
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.place import Place
from npuc.runtime.simulator.plan import CopyPlan, PassPlan, PortPlan
from npuc.runtime.simulator.program import Item, LoadedProgram
from npuc.runtime.simulator.sequencer import HALTED, Sequencer
from npuc.runtime.simulator.straight_line import Member, Stopped, StraightLine, prepare

CACHED_BINDINGS = 1024  # register values of one command whose views are kept
Handler = Callable[[], None]


class Core:
    """One core: its memories, and the programs prepared for them.

    Attributes:
        machine: the machine.
        own: its own memories by name.
        memories: all memories by name; those that are not its own may be shared with other cores.
        place: where it is among the cores that run a program together.
        meet: waits for the other cores of its chip or system; does nothing where a core runs alone.
    """

    def __init__(
        self, machine: Machine, shared: Mapping[str, SimulatedMemory], place: Place | None = None
    ) -> None:
        self.machine = machine
        self.place = place or Place()
        self.own = {name: SimulatedMemory(m) for name, m in machine.memories.items() if name not in shared}
        self.memories: dict[str, SimulatedMemory] = {**shared, **self.own}
        self.meet: Callable[[str], object] = lambda scope: None
        self._prepared: dict[int, PreparedProgram] = {}

    def prepare(self, program: LoadedProgram) -> PreparedProgram:
        """The program bound to this core; made once."""
        found = self._prepared.get(id(program))
        if found is None:
            found = self._prepared[id(program)] = PreparedProgram(self, program)
        return found


class PreparedProgram:
    """A program bound to a core's memories."""

    def __init__(self, core: Core, program: LoadedProgram) -> None:
        self.core = core
        self.program = program  # also keeps its id from being reused
        self.sequencer = Sequencer(program)
        self._scratch = Scratch()
        self.handlers: list[Handler | None] = [self._handler(item) for item in program.items]
        pairs = zip(program.items, self.handlers, strict=True)
        self._runs = [self._meeting(item, handler) for item, handler in pairs]
        self._straight: dict[tuple[str, int], StraightLine | None] = {}

    def run_straight(self, entry: str, parameters: Sequence[int]) -> int:
        """As `run`, but as straight-line code where that can be; leaves nothing in the core's own memories.

        Raises:
            UserError: as `run`.
        """
        key = entry, len(parameters)
        if key not in self._straight:
            memories, local = self.core.memories, self.core.own
            member = Member(self.core.place.known, lambda scope: self.core.meet(scope))
            found = prepare(self.program, entry, len(parameters), memories, local, member)
            self._straight[key] = found
        straight = self._straight[key]
        known = self.core.place.known[: len(parameters)]
        if tuple(parameters[: len(known)]) != known:
            straight = None  # prepared for this place only
        if straight is None or not straight.ready(parameters):
            return self.run(entry, parameters)
        try:
            straight.run()
        except Stopped as stop:
            raise located(stop.error, self.program.items, stop.position) from None
        return straight.executed

    def run(self, entry: str, parameters: Sequence[int]) -> int:
        """Execute from an entry to halt; returns the number of passes and copies executed.

        Raises:
            UserError: with the command's offset and location: out-of-bounds, misaligned, bad-command, …
        """
        controls, handlers = self.sequencer.controls, self._runs
        position, executed = self.sequencer.start(entry, parameters), 0
        try:
            while position != HALTED:
                control = controls[position]
                if control is None:
                    handlers[position]()  # type: ignore[misc]
                    executed += 1
                    position += 1
                else:
                    position = control()
        except UserError as error:
            raise located(error, self.program.items, position) from None
        return executed

    def execute(self, position: int) -> None:
        """Execute one pass or copy with the registers as they are, without waiting for other cores.

        Raises:
            UserError: as `run`.
        """
        handler = self.handlers[position]
        if handler is not None:
            try:
                handler()
            except UserError as error:
                raise located(error, self.program.items, position) from None

    def _handler(self, item: Item) -> Handler | None:
        if isinstance(item.plan, PassPlan):
            return self._pass_handler(item.plan)
        return None if item.plan is None else self._copy_handler(item.plan)

    def _meeting(self, item: Item, handler: Handler | None) -> Handler | None:
        """What a run does for a command: a copy may wait for other cores first."""
        if handler is None or not isinstance(item.plan, CopyPlan) or not item.plan.meet:
            return handler
        scope = item.plan.meet

        def run() -> None:
            self.core.meet(scope)
            handler()

        return run

    def _pass_handler(self, plan: PassPlan) -> Handler:
        registers, memories = self.sequencer.registers, self.core.memories
        (mask_imm, mask_reg), (limit_imm, limit_reg) = plan.mask_limit, plan.limit
        pick = _picker([port.base for port in plan.ports.values()])
        bound: dict[Any, Callable[..., None]] = {}

        def bind(key: Any) -> Callable[..., None]:
            operands = {
                name: _operand(port, memories, registers, spec.dtype)
                for (name, port), spec in zip(plan.ports.items(), _specs(plan), strict=True)
            }
            _keep(bound, key, compile_pass(plan.spec).bind(operands, self._scratch))
            return bound[key]

        def run() -> None:
            key = pick(registers)
            function = bound.get(key)
            if function is None:
                function = bind(key)
            function(mask_imm + registers[mask_reg], limit_imm + registers[limit_reg])

        return run

    def _copy_handler(self, plan: CopyPlan) -> Handler:
        registers = self.sequencer.registers
        ports = [plan.src, plan.dst, *([] if plan.index is None else [plan.index])]
        pick = _picker([port.base for port in ports])
        bound: dict[Any, Callable[..., None] | None] = {}

        def run() -> None:
            extent = plan.extent(registers)
            if extent == 0:
                return
            key = pick(registers)
            if key not in bound:
                _keep(bound, key, self._bind_copy(plan, plan.spec.size[0]))
            function = bound[key]
            if function is None:  # the whole nest leaves a memory, the clipped one may not
                function = self._bind_copy(plan, extent, whole=False)
                assert function is not None
            function(extent)

        return run

    def _bind_copy(self, plan: CopyPlan, extent: int, *, whole: bool = True) -> Callable[..., None] | None:
        """The copy of the first ``extent`` steps; None if ``whole`` and only a clipped one may fit."""
        registers, memories = self.sequencer.registers, self.core.memories
        spec = replace(plan.spec, size=(extent, *plan.spec.size[1:]))
        dtype = BIT_TYPES[spec.item]
        index = None
        try:
            src = _operand(plan.src, memories, registers, dtype, extent)
            dst = _operand(plan.dst, memories, registers, dtype, extent)
            if plan.index is not None:
                flat, at = _operand(plan.index, memories, registers, torch.int32, extent)
                index = flat[at : at + spec.size[spec.index_dim or 0]]
        except UserError:
            if whole and plan.limit is not None:
                return None
            raise
        return compile_copy(spec).bind(src, dst, index)


def located(error: UserError, items: Sequence[Item], position: int) -> UserError:
    """The error with the place of the command that caused it, unless it has one."""
    if error.where or not 0 <= position < len(items):
        return error
    return UserError(error.kind, error.message, where=items[position].where, remedy=error.remedy)


def _specs(plan: PassPlan) -> list[Any]:
    """The element layouts of the plan's ports, in their order."""
    found = plan.spec.ports()
    return [found[name] for name in plan.ports]


def _operand(
    port: PortPlan,
    memories: Mapping[str, SimulatedMemory],
    registers: Sequence[int],
    dtype: torch.dtype,
    extent: int | None = None,
) -> At:
    memory = memories[port.memory.name]
    start = port.locate(memory, port.base.imm + registers[port.base.reg], extent)
    return At(memory.flat(dtype), start // port.item)


def _picker(bases: Sequence[Reg]) -> Callable[[list[int]], Any]:
    """The function of the registers that gives the values of those in use."""
    used = sorted({base.reg for base in bases if base.reg})
    return itemgetter(*used) if used else lambda registers: None


def _keep(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= CACHED_BINDINGS:
        cache.clear()
    cache[key] = value
