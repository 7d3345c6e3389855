"""Programs ready to run: every command decoded and planned once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from npuc.backends.elf import Program
from npuc.backends.instruction import Instruction
from npuc.backends.machine import Machine
from npuc.ir.errors import UserError
from npuc.runtime.simulator.plan import CopyPlan, PassPlan, plan_command


@dataclass(frozen=True)
class Item:
    """A command of a program.

    Attributes:
        offset: byte offset in the text.
        instruction: the command, located.
        plan: what it does; None for control commands.
    """

    offset: int
    instruction: Instruction
    plan: PassPlan | CopyPlan | None

    @property
    def where(self) -> str:
        """The command's place, for messages."""
        place = f"{self.instruction.command} at {self.offset:#x}"
        return f"{place}, {self.instruction.location}" if self.instruction.location else place


@dataclass(frozen=True)
class LoadedProgram:
    """A decoded program.

    Attributes:
        machine: the machine it is for.
        items: the commands in text order.
        index: byte offset → position in ``items``.
        symbols: entry → byte offset.
    """

    machine: Machine
    items: tuple[Item, ...]
    index: Mapping[int, int]
    symbols: Mapping[str, int]

    def entry(self, name: str) -> int:
        """The position of an entry's first command.

        Raises:
            UserError: unknown-entry.
        """
        offset = self.symbols.get(name)
        if offset is None or offset not in self.index:
            raise UserError(
                "unknown-entry",
                f"the program has no entry '{name}'",
                remedy=f"its entries are {', '.join(sorted(self.symbols)) or 'none'}",
            )
        return self.index[offset]


def load_program(machine: Machine, program: Program) -> LoadedProgram:
    """Decode a program.

    Raises:
        UserError: wrong-target, malformed-program (from the decoder), bad-command, unsupported-type or
            misaligned, with the command's offset and location.
    """
    if program.target and program.target != machine.name:
        raise UserError(
            "wrong-target",
            f"the program is for {program.target}, the simulated machine is {machine.name}",
            remedy=f"simulate {program.target} or compile for {machine.name}",
        )
    starts = [offset for offset, _ in program.lines]
    found: list[tuple[int, Instruction]] = []
    offset = 0
    while offset < len(program.text):
        instruction, size = machine.decode(program.text, offset)
        line = bisect_right(starts, offset) - 1
        if line >= 0:
            instruction = replace(instruction, location=program.lines[line][1])
        found.append((offset, instruction))
        offset += size
    return _loaded(machine, found, program.symbols)


def load_instructions(
    machine: Machine, instructions: Sequence[Instruction], symbols: Mapping[str, int] | None = None
) -> LoadedProgram:
    """Load commands that are not encoded; they lie at the offsets that encoding would give them.

    Args:
        machine: the machine they are for.
        instructions: in text order; calls by byte offset.
        symbols: entry → byte offset; by default ``main`` is the first command.

    Raises:
        UserError: as `load_program`.
    """
    found: list[tuple[int, Instruction]] = []
    offset = 0
    for instruction in instructions:
        found.append((offset, instruction))
        offset += machine.command(instruction).format.length
    return _loaded(machine, found, {"main": 0} if symbols is None else symbols)


def _loaded(
    machine: Machine, found: Sequence[tuple[int, Instruction]], symbols: Mapping[str, int]
) -> LoadedProgram:
    items: list[Item] = []
    plans: dict[str, PassPlan | CopyPlan] = {}
    for offset, instruction in found:
        item = Item(offset, instruction, None)
        if machine.command(instruction).kind != "control":
            key = repr((instruction.command, instruction.fields))  # equal commands share a plan
            try:
                plan = plans.get(key) or plan_command(machine, instruction)
            except UserError as error:
                raise UserError(error.kind, error.message, where=item.where, remedy=error.remedy) from None
            plans[key] = plan
            item = replace(item, plan=plan)
        items.append(item)
    index = {item.offset: i for i, item in enumerate(items)}
    return LoadedProgram(machine, tuple(items), index, dict(symbols))
