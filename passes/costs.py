"""What passes and copies cost on a machine, asked before they are commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf, prod

from npuc.backends.instruction import Instruction
from npuc.backends.machine import Machine
from npuc.backends.model import Cost
from npuc.ir import tile
from npuc.passes.command_fields import (
    Address,
    NoSuchCommand,
    Operand,
    copy_instruction,
    operand_of,
    pass_instruction,
)
from xdsl.ir import SSAValue

Spec = tile.PassSpec | tile.CopySpec
Walk = tuple[tuple[int, ...], tuple[int, ...]]
ABOUT = 1.05
"""What costs so many times as much as something else costs about as much."""
Choice = tuple[str, str]
"""A command and one of its queues."""


def choices(machine: Machine, spec: Spec) -> Iterator[Choice]:
    """The commands that a pass or copy may become, on each of their queues."""
    kind = "pass" if isinstance(spec, tile.PassSpec) else "copy"
    for command in machine.commands.values():
        if command.kind == kind:
            yield from ((command.name, queue) for queue in command.queues)


def instruction_of(
    machine: Machine,
    spec: Spec,
    choice: Choice,
    operands: Mapping[str, Operand],
    limits: Mapping[str, Address],
) -> Instruction:
    """The instruction of a pass or copy.

    Raises:
        NoSuchCommand: the command cannot express it.
    """
    if isinstance(spec, tile.PassSpec):
        return pass_instruction(machine, choice, spec, operands, limits)
    return copy_instruction(machine, choice, spec, operands, limits)


def operands_of(machine: Machine, spec: Spec, buffers: Sequence[SSAValue]) -> dict[str, Operand]:
    """The operands of a pass or copy over buffers that all lie at address 0."""
    found: dict[str, Operand] = {}
    for name, port in spec.ports.items():
        placed = operand_of(machine, buffers[port.buffer], 0)
        bits = machine.element_types[placed.type].bits if placed.type in machine.element_types else 8
        found[name] = replace(placed, address=port.offset * bits // 8)
    return found


def prototype(machine: Machine, spec: Spec, choice: Choice, operands: Mapping[str, Operand]) -> Instruction:
    """The instruction as far as its cost is concerned; raises as instruction_of."""
    limits: dict[str, Address] = {"mask": 0, "limit": 0}
    if isinstance(spec, tile.PassSpec) and spec.mask is not None:
        limits["mask"] = spec.mask.limit
    if spec.limit is not None:
        limits["limit"] = spec.limit.limit if spec.limit.index < 0 else -1
    return instruction_of(machine, spec, choice, operands, limits)


def cheapest(machine: Machine, spec: Spec, operands: Mapping[str, Operand]) -> int | None:
    """The fewest cycles in which the machine can run it; None where it cannot."""
    return min((cost.cycles for cost in _costs(machine, spec, operands)), default=None)


def cycles_together(machine: Machine, spec: Spec, buffers: Sequence[SSAValue], cores: int) -> float:
    """The fewest cycles when so many cores of a chip do the same and share its main memory and link.

    Infinite where no command can.
    """
    found = cheapest_together(machine, spec, operands_of(machine, spec, buffers), cores)
    remote, link = _bytes_of_other_chips(machine, spec, buffers), machine.chip_link
    return max(found, remote * cores / link.bandwidth) + link.latency if remote and link else found


def cheapest_together(machine: Machine, spec: Spec, operands: Mapping[str, Operand], cores: int) -> float:
    """Likewise, of what touches no other chip."""
    return min((time_together(machine, c, cores) for c in _costs(machine, spec, operands)), default=inf)


def copy_cycles(
    machine: Machine, size: tuple[int, ...], walks: Mapping[str, tuple[str, Walk]], bits: int, cores: int
) -> float:
    """What a copy takes that so many cores make at the same time.

    Args:
        size: its nest.
        walks: of `src` and `dst`, the memory and the strides: in elements, and in slices.
        bits: of an element, about.
    """
    kind = min(machine.element_types.values(), key=lambda kind: abs(kind.bits - bits)).name
    ports = {name: tile.Port(i, 0, *walk) for i, (name, (_, walk)) in enumerate(walks.items())}
    operands = {name: Operand(memory, kind, 0) for name, (memory, _) in walks.items()}
    return cheapest_together(machine, tile.CopySpec(size, ports), operands, cores)


def time_together(machine: Machine, cost: Cost, cores: int) -> float:
    """Cycles of a command that so many cores run at the same time, those of one chip sharing its memory."""
    sharing = min(cores, machine.cores_per_chip)
    return max(cost.cycles, cost.dram_bytes * sharing / (machine.main.bandwidth or inf))


def _bytes_of_other_chips(machine: Machine, spec: Spec, buffers: Sequence[SSAValue]) -> float:
    """What a command reads from other chips: of a buffer that each of them has, all but one's part."""
    for value in buffers:
        if isinstance(shared := value.owner, tile.SharedOp) and shared.system is not None:
            element = machine.element_types[operand_of(machine, value, 0).type]
            return prod(spec.size) * element.bits / 8 * (shared.chips - 1) / shared.chips
    return 0


def _costs(machine: Machine, spec: Spec, operands: Mapping[str, Operand]) -> Iterator[Cost]:
    """What it costs as each command that can run it."""
    for choice in choices(machine, spec):
        try:
            instruction = prototype(machine, spec, choice, operands)
        except NoSuchCommand:
            continue
        if not machine.check(instruction):
            yield machine.cost(instruction)
