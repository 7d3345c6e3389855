"""A machine: what its description says, with checks, costs and encodings of commands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from npuc.backends import builder, codec
from npuc.backends.declarations import Description, Position, fail
from npuc.backends.description import parse_description
from npuc.backends.instruction import FieldValue, Instruction
from npuc.backends.model import (
    Command,
    Cost,
    ElementType,
    Limit,
    Link,
    Memory,
    Queue,
)
from npuc.backends.view import View, assign_units
from npuc.ir.errors import UserError
from npuc.ir.files import decoded, read_text

FAULTY = "machine-description"
"""Kind of the error of a description that is at fault."""
CONTROL = Path(__file__).parent / "common" / "control.npu"


@dataclass(frozen=True, repr=False)
class Machine:
    """A machine, immutable.

    Attributes:
        clock_ghz: cycles per nanosecond.
        levels: how many of each level the next outer one holds (chip: chips of a system).
        element_types: without the pseudo type ``none``.
        queues: without the sequencer's own queue ``control``.
        registers: of the sequencer, 64 bits each; register 0 is zero.
        params: named numbers of the description.
        sources: citations of clock, levels, counts and parameters, by name.
    """

    name: str
    doc: str
    file: str
    clock_ghz: float
    levels: Mapping[str, int]
    memories: Mapping[str, Memory]
    links: Mapping[str, Link]
    element_types: Mapping[str, ElementType]
    queues: Mapping[str, Queue]
    registers: int
    semaphores: int
    params: Mapping[str, float]
    commands: Mapping[str, Command]
    sources: Mapping[str, str]
    docs: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<Machine {self.name}>"

    @property
    def slices(self) -> int:
        """Slices of one core; 1 where the machine has none."""
        return self.levels["slice"]

    @property
    def cores_per_chip(self) -> int:
        """Cores of one chip."""
        return self.levels["cluster"] * self.levels["core"]

    @property
    def chips(self) -> int:
        """Chips of a system whose cores can run a program together."""
        return self.levels["chip"] if self.chip_link is not None else 1

    def chips_of(self, cores: int) -> int:
        """How many chips so many cores are on."""
        return -(-cores // self.cores_per_chip)

    @cached_property
    def chip_link(self) -> Link | None:
        """The link between two chips, over which copies reach each other's main memory."""
        return next((link for link in self.links.values() if link.ends == ("chip", "chip")), None)

    @cached_property
    def main(self) -> Memory:
        """The main memory."""
        return next(memory for memory in self.memories.values() if memory.main)

    def with_main_memory(self, size: int) -> Machine:
        """The machine with at least so many bytes of main memory, for programs that are only timed."""
        main = replace(self.main, size=max(size, self.main.size))
        return replace(self, memories={**self.memories, main.name: main})

    @cached_property
    def opcodes(self) -> dict[int, Command]:
        """Commands by opcode."""
        return {command.opcode: command for command in self.commands.values()}

    @cached_property
    def queue_codes(self) -> dict[str, int]:
        """Encodings of the queues; ``control`` is 0."""
        return {name: code for code, name in enumerate(("control", *self.queues))}

    @cached_property
    def queue_names(self) -> dict[int, str]:
        """Queues by encoding."""
        return {code: name for name, code in self.queue_codes.items()}

    @cached_property
    def default_bits(self) -> dict[str, dict[str, int]]:
        """Command → field → bits of the field's default."""
        return {name: codec.default_bits(self, command) for name, command in self.commands.items()}

    def command(self, instruction: Instruction) -> Command:
        """The instruction's command.

        Raises:
            UserError: when the machine has no such command.
        """
        found = self.commands.get(instruction.command)
        if found is None:
            raise UserError(
                "unknown-command",
                f"{self.name} has no command '{instruction.command}'",
                where=instruction.location,
                remedy=f"its commands are {', '.join(self.commands)}",
            )
        return found

    def field(self, instruction: Instruction, name: str) -> FieldValue:
        """A field's value: padded to its count, or its declared default where the instruction lacks it."""
        return self.view(instruction).value(name)

    def view(self, instruction: Instruction) -> View:
        """The instruction as a loop nest with measures."""
        return View(self, self.command(instruction), instruction)

    def normalise(self, instruction: Instruction) -> Instruction:
        """The instruction as decode gives it: full tuples, no default fields, f32 values, no location."""
        return self.decode(self.encode(instruction), 0)[0]

    def chain_fits(self, command: str, ops: tuple[str, ...]) -> bool:
        """Whether the command's vector units can execute the operations in this order in one pass."""
        return assign_units(self.commands[command].units, ops) is not None

    def check(self, instruction: Instruction) -> list[str]:
        """All violated constraints: each a sentence that names the command, the field and both values.

        Values that a register offsets are judged by their immediate part.
        """
        problems = codec.encoding_problems(self, instruction)
        if not problems:
            view = self.view(instruction)
            command = view.command
            for limit in command.limits:
                if limit.condition is None or limit.condition(view):
                    problems += _limit_problems(view, limit)
            if command.units and assign_units(command.units, view.chain_ops()) is None:
                problems.append(_chain_problem(view))
        return [f"{instruction.command}: {problem}" for problem in problems]

    def cost(self, instruction: Instruction) -> Cost:
        """What the instruction costs on an idle machine; control commands cost nothing here."""
        view = self.view(instruction)
        command = view.command
        stages: dict[str, int] = {}
        for stage in command.stages:
            if stage.cycles is not None and (stage.condition is None or stage.condition(view)):
                stages[stage.name] = math.ceil(stage.cycles(view))
        base = command.base(view) if command.base else 0
        drain = command.drain(view) if command.drain else 0
        cycles = math.ceil(base + drain) + max(stages.values(), default=0)
        return Cost(cycles, stages, 0 if command.kind == "control" else view.dram_bytes())

    def encode(self, instruction: Instruction) -> bytes:
        """The instruction's bytes; see codec.encode."""
        return codec.encode(self, instruction)

    def decode(self, data: bytes, offset: int = 0) -> tuple[Instruction, int]:
        """The instruction at an offset and its length in bytes; see codec.decode."""
        return codec.decode(self, data, offset)


def _limit_problems(view: View, limit: Limit) -> list[str]:
    if not limit.over:
        return [] if limit.holds(view) else [_limit_problem(view, limit, "")]
    found: list[str] = []
    for index in range(len(view.value(limit.over))):  # type: ignore[arg-type]
        view.index = index
        if not limit.holds(view):
            found.append(_limit_problem(view, limit, f"[{index}]"))
    view.index = 0
    return found


def _limit_problem(view: View, limit: Limit, index: str) -> str:
    values = ", ".join(
        f"{text}{index if text == limit.over else ''} = {value(view)}" for text, value in limit.leaves
    )
    return f"'{limit.text}' fails with {values}: {limit.reason}"


def _chain_problem(view: View) -> str:
    ops = view.chain_ops()
    for length in range(1, len(ops) + 1):
        if assign_units(view.command.units, ops[:length]) is None:
            fits = ", ".join(ops[: length - 1]) or "nothing"
            return f"chain.op[{length - 1}] = {ops[length - 1]} finds no free vector unit after {fits}"
    return "chain.op fits no vector units"


def load_machine(path: str | Path) -> Machine:
    """Load a machine description, together with the common control commands.

    Raises:
        UserError: when the file cannot be read, or with file, line and column of what is wrong in it.
    """
    return build_machine(parse_description(read_text(path, FAULTY), str(path)))


def parse_machine(data: bytes, file: str) -> Machine:
    """The machine of a description's bytes; `file` is named in errors.

    Raises:
        UserError: as `load_machine`.
    """
    return build_machine(parse_description(decoded(data, file, FAULTY), file))


def build_machine(description: Description) -> Machine:
    """Build a machine from its parsed description."""
    top = Position(description.file, 1, 1)
    clock, counts = description.clock, description.counts
    if not description.name or clock is None or counts.keys() != {"registers", "semaphores"}:
        fail(
            top,
            "machine, clock, registers or semaphores is missing",
            "declare all four, e.g. 'machine toy \"…\"', 'clock 1.0 GHz assumed', 'registers 64 assumed'",
        )
    common = parse_description(read_text(CONTROL), str(CONTROL))
    levels = builder.build_levels(description)
    memories = {
        n: builder.build_memory(m, levels) for n, m in builder.unique(description.memories, "memory").items()
    }
    if sum(memory.main for memory in memories.values()) != 1:
        fail(top, "not exactly one memory is the main one", "write 'memory NAME main \"…\"' for one of them")
    formats = builder.unique([*common.formats, *description.formats], "format")
    params = builder.unique(description.params, "parameter")
    parts = builder.Parts(
        memories,
        {n: builder.build_type(t) for n, t in builder.unique(description.types, "type").items()},
        {n: builder.build_queue(q) for n, q in builder.unique(description.queues, "queue").items()},
        {n: builder.build_format(f) for n, f in formats.items()},
        {name: param.value for name, param in params.items()},
        int(counts["registers"].value),
        int(counts["semaphores"].value),
    )
    commands = builder.unique([*common.commands, *description.commands], "command")
    built = {name: builder.build_command(decl, parts) for name, decl in commands.items()}
    _check_opcodes(description, built)
    numbers = [clock, *description.levels, *counts.values(), *description.params]
    return Machine(
        description.name, description.doc, description.file, clock.value, levels, memories,
        {n: builder.build_link(d) for n, d in builder.unique(description.links, "link").items()},
        parts.types, parts.queues, parts.registers, parts.semaphores, parts.params, built,
        {number.name: number.source for number in numbers}, {n: p.doc for n, p in params.items()},
    )  # fmt: skip


def _check_opcodes(description: Description, commands: Mapping[str, Command]) -> None:
    seen: dict[int, str] = {}
    for command in commands.values():
        if command.opcode in seen:
            at = next(c.position for c in reversed(description.commands) if c.opcode == command.opcode)
            fail(
                at,
                f"opcode {command.opcode:#04x} is that of '{seen[command.opcode]}' and '{command.name}'",
                "choose another one; 0x01 … 0x0f are the common control commands",
            )
        seen[command.opcode] = command.name
