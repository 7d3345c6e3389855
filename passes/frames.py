"""A function's buffers and their lifetimes, and with how little memory functions can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from npuc.backends.machine import Machine
from npuc.backends.model import Memory
from npuc.ir import tile
from npuc.passes.algorithms.allocate import Buffer, DoesNotFit, Step, lifetimes, peak, place
from npuc.passes.algorithms.regions import align
from npuc.passes.command_fields import spare_bytes
from npuc.passes.multi_buffer import copies_of
from npuc.passes.programs import buffer_bytes, calls_of
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, SSAValue

MAIN_ALIGNMENT = 256


class Frame:
    """The buffers of one function, and when they and the function's calls live.

    Attributes:
        allocs: the buffers with names that tell them apart.
        calls: the same of the calls.
    """

    def __init__(self, machine: Machine, function: FuncOp) -> None:
        self.machine, self.function = machine, function
        found = [op for op in function.walk() if isinstance(op, tile.AllocOp)]
        self.allocs = {op: f"{op.result.name_hint or 'buffer'}#{n}" for n, op in enumerate(found)}
        self.calls = {op: f"@{op.callee.string_value()}#{n}" for n, op in enumerate(calls_of(function))}
        roots: dict[SSAValue, str] = {op.result: name for op, name in self.allocs.items()}
        steps = list(steps_of(function.body.block, roots, self.calls))
        self.live = lifetimes(steps)
        self._alternating = lifetimes(steps, set(self.allocs.values()))

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.sym_name.data

    def of(self, memory: Memory) -> list[tile.AllocOp]:
        """The buffers in a memory."""
        return [op for op in self.allocs if tile.memory_of(op.result) == memory.name]

    def buffer(self, op: tile.AllocOp, copies: int | None = None) -> Buffer:
        """A buffer to place, with as many copies as it has unless it is to have others."""
        copies = copies or copies_of(op)
        live = self.live if copies == 1 else self._alternating
        name, stride = self.allocs[op], self.stride(op)
        return Buffer(name, copies * stride, live.buffers[name], self._alignment(op))

    def stride(self, op: tile.AllocOp) -> int:
        """Bytes from a copy to the next."""
        return align(buffer_bytes(self.machine, op.result), self._alignment(op))

    def called(self, sizes: Mapping[str, int]) -> list[Buffer]:
        """What lies at the bottom during calls of functions that need so many bytes."""
        live = self.live.steps
        return [
            Buffer(name, sizes[op.callee.string_value()], live[name], address=0)
            for op, name in self.calls.items()
        ]

    def alive_during(self, op: tile.CallOp, memory: Memory) -> list[Buffer]:
        """The buffers in a memory that live on during a call."""
        call = self.live.steps[self.calls[op]]
        return [b for b in map(self.buffer, self.of(memory)) if b.live.meets(call)]

    def _alignment(self, op: tile.AllocOp) -> int:
        memory = self.machine.memories[tile.memory_of(op.result)]
        widest = max(kind.bits for kind in self.machine.element_types.values()) // 8
        return MAIN_ALIGNMENT if memory.main else max(memory.write_granule, memory.word, widest)


def lowest_peaks(frames: Iterable[Frame], memory: Memory, capacity: int) -> dict[str, int]:
    """The bytes of a memory that each function and its callees need at least; callees come first.

    Raises:
        DoesNotFit: a function needs more than ``capacity``.
    """
    sizes: dict[str, int] = {}
    for frame in frames:
        buffers = [*map(frame.buffer, frame.of(memory)), *frame.called(sizes)]
        sizes[frame.name] = peak(buffers, place(buffers, memory.name, capacity, f" (in @{frame.name})"))
    return sizes


def capacity_of(machine: Machine, memory: Memory) -> int:
    """Bytes of a memory that buffers may take."""
    return memory.size - spare_bytes(machine, memory)


def fits_on_chip(machine: Machine, functions: Sequence[FuncOp]) -> bool:
    """Whether a program's on-chip buffers can be placed with its commands in this order."""
    frames = [Frame(machine, function) for function in functions]
    try:
        for memory in machine.memories.values():
            if not memory.main:
                lowest_peaks(frames, memory, capacity_of(machine, memory))
    except DoesNotFit:
        return False
    return True


def steps_of(block: Block, roots: dict[SSAValue, str], calls: dict[tile.CallOp, str]) -> Iterator[Step]:
    """The block in program order."""
    for op in block.ops:
        uses = tuple(dict.fromkeys(roots[value] for value in op.operands if value in roots))
        if isinstance(op, tile.AllocOp):
            yield Step(defines=(roots[op.result],))
        elif isinstance(op, tile.ForOp):
            yield Step(body=tuple(steps_of(op.body.block, roots, calls)))
        elif uses or isinstance(op, tile.CallOp):
            yield Step(uses=uses, key=calls[op] if isinstance(op, tile.CallOp) else "")
