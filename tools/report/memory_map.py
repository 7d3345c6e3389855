"""Which bytes of the on-chip memories hold what, and when: lives of buffers in a timed run of a program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd, prod
from typing import NamedTuple

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.ir.npu import CommandOp
from npuc.passes.multi_buffer import copies_of
from npuc.passes.programs import buffer_bytes, calls_of
from npuc.tools.report.stages import origin_of
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation, SSAValue


class Span(NamedTuple):
    """Cycles [start, end) in which a command ran."""

    start: int
    end: int


class Life(NamedTuple):
    """A buffer from its first use to its last.

    Attributes:
        buffer: number of the buffer.
        address: of its first byte in each slice.
        start: first cycle.
        end: cycle after the last.
    """

    buffer: int
    address: int
    start: int
    end: int


@dataclass
class Buffer:
    """A buffer in an on-chip memory.

    Attributes:
        name: of the value.
        memory: where it lies.
        address: of its first copy, in each slice.
        bytes: of one copy, in each slice.
        copies: how many alternate over the iterations of the loop around it.
        stride: bytes between them.
        trips: iterations of the loop around it; 1 without.
        runs: how often the block that it stands in runs.
        type: of its elements, with the shape.
        origin: line of the IR at the start.
        commands: offsets of the commands that use it.
    """

    name: str
    memory: str
    address: int
    bytes: int
    copies: int
    stride: int
    trips: int
    runs: int
    type: str
    origin: int
    commands: list[int] = field(default_factory=list[int])


def lives(number: int, buffer: Buffer, spans: Mapping[int, Sequence[Span]]) -> Iterator[Life]:
    """The lives of a buffer: each run of the block around it uses it anew.

    Where commands run less often than the block, the buffer lives for as many of its runs.

    Args:
        number: of the buffer.
        spans: when each command ran, by its offset, in order.
    """
    used = [spans[offset] for offset in buffer.commands if spans.get(offset)]
    if not used:
        return
    count = gcd(buffer.runs, *(len(runs) for runs in used))
    for i in range(count):
        mine = [span for runs in used for span in runs[i * len(runs) // count : (i + 1) * len(runs) // count]]
        copy = i % max(buffer.trips, 1) % buffer.copies
        address = buffer.address + copy * buffer.stride
        yield Life(number, address, min(s.start for s in mine), max(s.end for s in mine))


def buffers_of(
    machine: Machine, program: ModuleOp, entry: str, offsets: Mapping[str, Sequence[int]]
) -> list[Buffer]:
    """The on-chip buffers of a program whose buffers have addresses.

    Args:
        machine: that it is for.
        program: functions of `tile` operations.
        entry: the function that runs.
        offsets: function → offsets of its passes and copies among the commands, in order of the text.
    """
    functions = {op.sym_name.data: op for op in program.body.block.ops if isinstance(op, FuncOp)}
    runs = _runs(functions, entry)
    held = _Held(functions)
    found: dict[SSAValue, Buffer] = {}
    for name, function in functions.items():
        for alloc in (op for op in function.walk() if isinstance(op, tile.AllocOp)):
            memory = tile.memory_of(alloc.result)
            if not machine.memories[memory].main and "address" in alloc.attributes and runs[name]:
                found[alloc.result] = _buffer(machine, alloc, runs[name])
    for name, function in functions.items():
        commands = [op for op in function.walk() if _is_queued(machine, op)]
        for op, offset in zip(commands, offsets[name], strict=True):
            buffers = op.buffers if isinstance(op, tile.PassOp | tile.CopyOp) else ()
            for value in dict.fromkeys(root for buffer in buffers for root in held.roots(buffer)):
                if value in found:
                    found[value].commands.append(offset)
    return list(found.values())


def _is_queued(machine: Machine, op: Operation) -> bool:
    """Whether an operation becomes a command of a queue; insert-sync adds some that only wait and signal."""
    if isinstance(op, CommandOp):
        return machine.command(op.instruction).kind != "control"
    return isinstance(op, tile.PassOp | tile.CopyOp)


def _buffer(machine: Machine, alloc: tile.AllocOp, runs: int) -> Buffer:
    stride = alloc.attributes.get("copy_stride")
    around = alloc.parent_op()
    return Buffer(
        name=alloc.result.name_hint or "buffer",
        memory=tile.memory_of(alloc.result),
        address=tile.integer(alloc.attributes["address"]),
        bytes=buffer_bytes(machine, alloc.result),
        copies=copies_of(alloc),
        stride=0 if stride is None else tile.integer(stride),
        trips=tile.integer(around.count) if isinstance(around, tile.ForOp) else 1,
        runs=runs * _trips(alloc),
        type=str(alloc.result.type),
        origin=origin_of(alloc),
    )


def _trips(op: Operation) -> int:
    """Iterations of all loops around an operation, in its function."""
    counts: list[int] = []
    parent = op.parent_op()
    while parent is not None:
        counts += [tile.integer(parent.count)] if isinstance(parent, tile.ForOp) else []
        parent = parent.parent_op()
    return prod(counts)


def _runs(functions: Mapping[str, FuncOp], entry: str) -> dict[str, int]:
    """How often each function runs in a call of the entry."""
    runs = dict.fromkeys(functions, 0)

    def enter(name: str, times: int) -> None:
        runs[name] += times
        for call in calls_of(functions[name]):
            enter(call.callee.string_value(), times * _trips(call))

    enter(entry, 1)
    return runs


class _Held:
    """Which buffers an argument of a function may stand for."""

    def __init__(self, functions: Mapping[str, FuncOp]) -> None:
        self.passed: dict[SSAValue, list[SSAValue]] = {}
        for function in functions.values():
            for call in calls_of(function):
                arguments = functions[call.callee.string_value()].body.block.args
                for argument, operand in zip(arguments, call.arguments, strict=True):
                    self.passed.setdefault(argument, []).append(operand)

    def roots(self, value: SSAValue) -> Iterator[SSAValue]:
        """The allocations behind a value."""
        if isinstance(value, BlockArgument):
            for operand in self.passed.get(value, ()):
                yield from self.roots(operand)
        else:
            yield value
