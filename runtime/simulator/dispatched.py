"""The commands that a program dispatches, in order; addresses and limits are functions of its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from npuc.backends.instruction import Reg
from npuc.ir.command_spec import Bound
from npuc.runtime.simulator.access import Access
from npuc.runtime.simulator.affine import Affine, NotAffine, Value
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.plan import CopyPlan, PassPlan, PortPlan
from npuc.runtime.simulator.program import LoadedProgram
from npuc.runtime.simulator.sequencer import Sequencer

MAX_COMMANDS = 20_000  # of a run that is worth preparing as a whole


@dataclass(eq=False)
class Dispatched:
    """A pass or copy as it is dispatched.

    Attributes:
        number: its place among what the run dispatches, from 1.
        position: its place in the program.
        plan: what it does.
        bases: per port its address.
        limits: of a pass the limits of mask and reduction, of a copy the extent of its first dimension.
        reads: where it reads; ports whose addresses depend on parameters or data are left out.
        write: where it writes; None if that depends on parameters.
        shifted: per port where it reads or writes a memory without slices at an address from parameters.
        within: of a pass the elements of its stationary operand that count, up to the mask's limit; the
            others are 0.
        uniform: whether it writes the same to all slices.
        needed: whether something reads its result in such a way that every slice must have it.
        sizes: extents of the axes, those of the slices first in a pass; less than those of the plan where
            nothing reads the rest of the result.
    """

    number: int
    position: int
    plan: PassPlan | CopyPlan
    bases: dict[str, Value]
    limits: tuple[Value, ...]
    reads: dict[str, Access] = field(default_factory=dict[str, Access])
    write: Access | None = None
    shifted: dict[str, Access] = field(default_factory=dict[str, Access])
    within: Bound | None = None
    uniform: bool = False
    needed: bool = False
    sizes: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        first = self.limits[0] if isinstance(self.plan, CopyPlan) else None
        self.sizes = self.target.sizes if not isinstance(first, int) else (first, *self.target.sizes[1:])

    @property
    def ports(self) -> dict[str, PortPlan]:
        """Its ports by name."""
        return ports_of(self.plan)

    @property
    def target(self) -> PortPlan:
        """The port that it writes."""
        return self.plan.ports["out"] if isinstance(self.plan, PassPlan) else self.plan.dst

    @property
    def unlimited(self) -> bool:
        """Whether it writes all that it can for all parameters."""
        return isinstance(self.plan, PassPlan) or not isinstance(self.limits[0], Affine)

    @property
    def addresses(self) -> list[Affine]:
        """Of its addresses those that depend on parameters."""
        found: list[Value | None] = []
        for name, port in self.ports.items():
            known = self.write if port is self.target else self.reads.get(name)
            found.append(self.bases[name] if known is None else known.shift)
        return [value for value in found if isinstance(value, Affine)]

    @property
    def fixed(self) -> bool:
        """Whether nothing about it depends on parameters."""
        return not self.addresses and not any(isinstance(limit, Affine) for limit in self.limits)

    @property
    def complete(self) -> bool:
        """Whether it overwrites its box in every slice."""
        return self.unlimited and self.write is not None and self.write.whole


def ports_of(plan: PassPlan | CopyPlan) -> dict[str, PortPlan]:
    """The ports of a plan by name."""
    if isinstance(plan, PassPlan):
        return plan.ports
    return {port.name: port for port in (plan.src, plan.dst, plan.index) if port is not None}


def dispatched(
    program: LoadedProgram,
    entry: str,
    parameters: int,
    memories: Mapping[str, SimulatedMemory],
    known: Sequence[int] = (),
) -> list[Dispatched]:
    """What an entry dispatches for any ``parameters`` values; copies that move nothing are left out.

    Args:
        known: the values of the first parameters, as far as they are known.

    Raises:
        NotAffine: addresses depend on the parameters in another way, or there are too many commands.
        UserError: as for the sequencer, out-of-bounds or misaligned.
    """
    values: list[Value] = [*known, *(Affine.parameter(i) for i in range(len(known), parameters))]
    return list(_dispatched(program, entry, values[:parameters], memories))


def _dispatched(
    program: LoadedProgram, entry: str, values: list[Value], memories: Mapping[str, SimulatedMemory]
) -> Iterator[Dispatched]:
    sequencer = Sequencer(program)
    registers = cast("list[Value]", sequencer.registers)
    number = 0
    for position in sequencer.trace(entry, cast("list[int]", values)):
        plan = program.items[position].plan
        if plan is None:
            continue
        number += 1
        if number > MAX_COMMANDS:
            raise NotAffine("too many commands")
        bases = {name: _value(port.base, registers) for name, port in ports_of(plan).items()}
        command = Dispatched(number, position, plan, bases, _limits(plan, registers))
        if isinstance(plan, CopyPlan) and command.limits[0] == 0:
            continue
        _locate(command, memories)
        yield command


def _value(reg: Reg, registers: list[Value]) -> Value:
    return registers[reg.reg] + reg.imm


def _limits(plan: PassPlan | CopyPlan, registers: list[Value]) -> tuple[Value, ...]:
    if isinstance(plan, PassPlan):
        return _value(plan.mask_limit, registers), _value(plan.limit, registers)
    size = plan.spec.size[0]
    if plan.limit is None:
        return (size,)
    extent = _value(plan.limit, registers)
    return (extent if isinstance(extent, Affine) else max(0, min(size, extent)),)


def _locate(command: Dispatched, memories: Mapping[str, SimulatedMemory]) -> None:
    """Fill in the accesses whose addresses are fixed; of copies of unknown extent the largest."""
    extent = None
    if isinstance(command.plan, CopyPlan) and not isinstance(command.limits[0], Affine):
        extent = command.limits[0]
    for name, port in command.ports.items():
        base = command.bases[name]
        gathers = isinstance(command.plan, CopyPlan) and command.plan.index is not None and name == "src"
        if gathers:
            continue
        memory = memories[port.memory.name]
        if isinstance(base, Affine):
            if not memory.distance:
                command.shifted[name] = Access.of(port, memory, base, extent)
            continue
        access = Access.of(port, memory, base, extent)
        if port is command.target:
            command.write = access
        else:
            command.reads[name] = access
