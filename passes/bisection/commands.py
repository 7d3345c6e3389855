"""Programs of commands beside what they were made from: where the first result or wait differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from npuc.backends.instruction import Instruction
from npuc.ir import tile
from npuc.ir.commands import At, torch_type
from npuc.ir.errors import UserError
from npuc.ir.interpret_tile import Observer
from npuc.ir.lockstep import Lockstep
from npuc.ir.npu import CONTROL, CommandOp, ProgramOp, uses
from npuc.passes.addressed_memory import AddressedMemory
from npuc.passes.bisection.traces import number_of, numbers
from npuc.passes.checking import Figures, compare
from npuc.passes.emit import IoTensor, instructions_of, io_of
from npuc.passes.evaluation import Call, written_buffer
from npuc.passes.simulation import Chip
from npuc.runtime.simulator.footprint import Footprint, copy_footprints, pass_footprints
from npuc.runtime.simulator.function import PreparedProgram
from npuc.runtime.simulator.hazards import Hazard
from npuc.runtime.simulator.plan import PassPlan
from npuc.runtime.simulator.program import Item, LoadedProgram
from torch import Tensor
from xdsl.dialects.builtin import MemRefType, ModuleOp
from xdsl.ir import Operation

SAME = Figures(0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Written:
    """What a pass or copy over addressed buffers has left in the buffer it writes to."""

    op: Operation
    kind: MemRefType
    offset: int
    value: Tensor


class WrongCommand(NamedTuple):
    """The first command that does not do what it should.

    Attributes:
        program: that it belongs to.
        number: its position among the program's commands.
        figures: how far its result is from the expected one.
        reason: what is wrong, if it is not the result alone.
    """

    program: LoadedProgram
    number: int
    figures: Figures
    reason: str = ""

    @property
    def item(self) -> Item:
        """The command."""
        return self.program.items[self.number]


@dataclass(frozen=True)
class Run:
    """A program ready to run on a chip."""

    chip: Chip
    program: LoadedProgram
    io: dict[str, IoTensor]
    call: Call
    entry: str

    def positions(self) -> Iterator[int]:
        """Executes a command each time that the next position is asked for; control commands too."""
        prepared = self.prepared
        for position in prepared.sequencer.trace(self.entry, self.chip.prepare(self.call, self.io)):
            prepared.execute(position)
            yield position

    @property
    def prepared(self) -> PreparedProgram:
        """The program on its core."""
        return self.chip.simulator.cores[0].prepare(self.program)

    def writes(self, position: int) -> list[Footprint]:
        """What the command there writes, with the registers as they are."""
        plan = self.program.items[position].plan
        if plan is None:
            return []
        find = pass_footprints if isinstance(plan, PassPlan) else copy_footprints
        memories, registers = self.chip.simulator.cores[0].memories, self.prepared.sequencer.registers
        return [f for f in find(plan, memories, registers) if f.writes]  # type: ignore[arg-type]

    def hazards(self) -> list[Hazard]:
        """What the sanitizer finds."""
        params, simulator = self.chip.prepare(self.call, self.io), self.chip.simulator
        run = simulator.run if self.chip.ranks == 1 else simulator.run_ranks
        return run(self.program, self.entry, params, hazards=True).hazards


def written_by(chip: Chip, program: ModuleOp, call: Call, entry: str) -> list[Written]:
    """What each pass and copy of a program whose buffers have addresses writes, in order."""
    found: list[Written] = []

    def observer(memory: AddressedMemory) -> Observer:
        def observe(op: Operation, places: Sequence[At]) -> None:
            assert isinstance(op, tile.PassOp | tile.CopyOp)
            number = written_buffer(op)
            kind, place = op.buffers[number].type, places[number]
            assert isinstance(kind, MemRefType)
            found.append(Written(op, kind, place.offset, memory.content(place, kind).clone()))

        return observe

    chip.interpret(program, call, entry, observer)
    return found


def first_wrong_command(
    expected: Sequence[Written], run: Run, sources: Sequence[int | None], tolerance: float
) -> WrongCommand | None:
    """Runs commands beside the passes and copies that they were made from.

    Args:
        expected: what those write.
        run: the commands.
        sources: of each command, the number of the operation that it was made from.
        tolerance: of a buffer's content, relative.
    """
    memories = run.chip.simulator.cores[0].memories
    ranks = Lockstep(run.chip.ranks), 0
    memory = AddressedMemory.of(memories, run.chip.module, run.call.runtime, ranks, run.chip.cores)
    rest = iter(expected)

    def check(position: int) -> WrongCommand | None:
        item = run.program.items[position]
        if item.plan is None or sources[position] is None:
            return None
        wanted = next(rest, None)
        if wanted is None or number_of(wanted.op) != sources[position]:
            return WrongCommand(run.program, position, SAME, "it is not its turn")
        flat = memories[tile.memory_of(wanted.kind)].flat(torch_type(str(wanted.kind.element_type)))
        figures = compare(
            numbers(memory.content(At(flat, wanted.offset), wanted.kind)), numbers(wanted.value)
        )
        return WrongCommand(run.program, position, figures) if figures.max_rel_error > tolerance else None

    return _walk(run, check)


def first_different_command(expected: Run, run: Run) -> WrongCommand | None:
    """Runs two programs of one structure side by side: the first command with other results."""
    other = expected.positions()

    def check(position: int) -> WrongCommand | None:
        item = run.program.items[position]
        if next(other, None) != position:
            return WrongCommand(run.program, position, SAME, "it is not its turn")
        mine, theirs = run.prepared.sequencer.registers, expected.prepared.sequencer.registers
        if mine != theirs and item.plan is None:
            register = next(i for i, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1])
            reason = f"r{register} holds {mine[register]}, expected {theirs[register]}"
            return WrongCommand(run.program, position, SAME, reason)
        for footprint in expected.writes(position):
            storage = run.chip.simulator.cores[0].memories[footprint.memory.name].storage
            pairs = zip(footprint.read(storage), footprint.read(footprint.memory.storage), strict=True)
            for found, wanted in pairs:
                if not torch.equal(found, wanted):
                    return WrongCommand(run.program, position, _figures(item, found, wanted))
        return None

    return _walk(run, check)


def first_changed(program: LoadedProgram, expected: bytes, found: bytes) -> int | None:
    """The first command of a program whose bytes are not those expected."""
    if len(expected) != len(found):
        return None
    ends = [*(item.offset for item in program.items[1:]), len(expected)]
    spans = ((item.offset, end) for item, end in zip(program.items, ends, strict=True))
    return next((i for i, (a, b) in enumerate(spans) if expected[a:b] != found[a:b]), None)


def _figures(item: Item, found: Tensor, wanted: Tensor) -> Figures:
    """How different the bytes of two results are, as numbers of the command's type."""
    fields = item.instruction.fields
    dtype = torch_type(str(fields.get("out.type", fields.get("type", "i8"))))
    return compare(*(x.reshape(-1).view(dtype).float() for x in (found, wanted)))


def _walk(run: Run, check: Callable[[int], WrongCommand | None]) -> WrongCommand | None:
    """Checks after every command; one that cannot be executed is wrong."""
    position = -1
    try:
        for position in run.positions():
            found = check(position)
            if found is not None:
                return found
    except UserError as error:
        offset = next((i for i, item in enumerate(run.program.items) if item.where == error.where), position)
        return WrongCommand(run.program, max(offset, 0), SAME, error.message)
    return None


def numbers_of_commands(module: ModuleOp, name: str) -> list[int | None]:
    """Of each command of a program the number of the operation that it was made from."""
    op = _program(module, name)
    return [number_of(inner) for inner in op.body.block.ops if isinstance(inner, CommandOp)]


def with_synchronization(
    chip: Chip, module: ModuleOp, name: str, numbered: dict[int, Operation]
) -> tuple[LoadedProgram, dict[str, IoTensor]]:
    """A program of a module of commands, with the waits and signals of the operations they were made from."""
    op = _program(module, name)
    holder = op.parent_op()
    assert isinstance(holder, ModuleOp)
    instructions, symbols = instructions_of(chip.machine, op)
    sources = [numbered.get(n) if n is not None else None for n in numbers_of_commands(module, name)]
    changed = [_synchronized(i, source) for i, source in zip(instructions, sources, strict=True)]
    return chip.simulator.load(changed, symbols), io_of(chip.machine, holder)


def _synchronized(instruction: Instruction, source: Operation | None) -> Instruction:
    if instruction.queue == CONTROL or source is None:
        return instruction
    if isinstance(source, CommandOp):
        return replace(instruction, waits=source.instruction.waits, signals=source.instruction.signals)
    waits, signals = (uses(source.attributes.get(name)) for name in ("waits", "signals"))
    return replace(instruction, waits=waits, signals=signals)


def first_unsynchronized(expected: LoadedProgram, found: LoadedProgram) -> WrongCommand | None:
    """The first command with other waits or signals than it should have."""
    for number, pair in enumerate(zip(found.items, expected.items, strict=False)):
        for name in ("waits", "signals"):
            mine, theirs = (sorted(getattr(item.instruction, name)) for item in pair)
            if mine != theirs:
                reason = f"{name} are {_listed(mine)}, expected {_listed(theirs)}"
                return WrongCommand(found, number, SAME, reason)
    return None


def _listed(pairs: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{count} of semaphore {semaphore}" for semaphore, count in pairs) or "none"


def _program(module: ModuleOp, name: str) -> ProgramOp:
    return next(op for op in module.walk() if isinstance(op, ProgramOp) and op.sym_name.data == name)
