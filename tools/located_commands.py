"""The commands of a program with where each comes from, what it costs, and how often it ran."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from npuc.backends.assembler import commands_of, format_instruction
from npuc.backends.elf import Program
from npuc.backends.instruction import FieldValue, Instruction, Reg
from npuc.backends.machine import Machine

if TYPE_CHECKING:
    from npuc.runtime.simulator.timeline import Timeline


@dataclass(frozen=True)
class LocatedCommand:
    """A command of a program.

    Attributes:
        program: name of the program.
        offset: in the text, in bytes.
        length: encoded, in bytes.
        instruction: the command.
        text: its assembly.
        operation: the IR operation that it was made from; empty where the compiler added it.
        module: the checkpoint module that it came from; empty where there is none.
        cycles: what it costs on an idle machine.
        stages: cycles of each pipeline stage.
        dram_bytes: moved from and to main memory.
        runs: how often it runs in a call of the program; 0 where nothing was timed.
        total_cycles: in which its queue was busy with it, all runs together.
    """

    program: str
    offset: int
    length: int
    instruction: Instruction
    text: str
    operation: str
    module: str
    cycles: int = 0
    stages: dict[str, int] = field(default_factory=dict[str, int])
    dram_bytes: int = 0
    runs: int = 0
    total_cycles: int = 0

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "program": self.program,
            "offset": self.offset,
            "bytes": self.length,
            "queue": self.instruction.queue,
            "command": self.instruction.command,
            "operation": self.operation,
            "module": self.module,
            "cycles": self.cycles,
            "stages": self.stages,
            "dram_bytes": self.dram_bytes,
            "runs": self.runs,
            "total_cycles": self.total_cycles,
            "fields": {name: plain(value) for name, value in self.instruction.fields.items()},
            "text": self.text,
        }


def plain(value: FieldValue) -> Any:
    """A field's value as JSON holds it."""
    if isinstance(value, Reg):
        return {"imm": value.imm, "reg": value.reg}
    return list(value) if isinstance(value, tuple) else value


def located_commands(
    name: str, program: Program, machine: Machine, timeline: Timeline | None = None
) -> Iterator[LocatedCommand]:
    """The commands of a program, in order of the text.

    Raises:
        UserError: ``malformed-program``.
    """
    starts = [offset for offset, _ in program.lines]
    labels = {offset: label for label, offset in program.symbols.items()}
    runs, spent = _executions(timeline)
    found = [*commands_of(machine, program.text), (len(program.text), None)]
    for (offset, instruction), (end, _) in pairwise(found):
        assert instruction is not None
        line = bisect_right(starts, offset) - 1
        operation, _, module = (program.lines[line][1] if line >= 0 else "").partition(" ")
        cost = machine.cost(instruction)
        yield LocatedCommand(
            program=name,
            offset=offset,
            length=end - offset,
            instruction=instruction,
            text=format_instruction(machine, instruction, labels),
            operation=operation,
            module=module,
            cycles=cost.cycles,
            stages=cost.stages,
            dram_bytes=cost.dram_bytes,
            runs=runs.get(offset, 0),
            total_cycles=spent.get(offset, 0),
        )


def _executions(timeline: Timeline | None) -> tuple[dict[int, int], dict[int, int]]:
    """Runs and busy cycles of each offset."""
    runs: dict[int, int] = {}
    spent: dict[int, int] = {}
    for intervals in timeline.queues.values() if timeline else ():
        for interval in intervals:
            runs[interval.offset] = runs.get(interval.offset, 0) + 1
            spent[interval.offset] = spent.get(interval.offset, 0) + interval.end - interval.start
    return runs, spent
