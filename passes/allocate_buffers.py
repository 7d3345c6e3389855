"""Addresses of all buffers: on-chip memories per program, main memory once for all programs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.backends.model import Memory
from npuc.ir import tile
from npuc.passes.algorithms.allocate import Buffer, DoesNotFit, Step, lifetimes, place
from npuc.passes.algorithms.regions import align
from npuc.passes.command_fields import spare_bytes
from npuc.passes.partition import ranks_of
from npuc.passes.programs import buffer_bytes, callees_first, calls_of, entries, programs
from npuc.passes.target_option import machine_of
from npuc.passes.timing_only import is_timing_only
from npuc.runtime.manifest import RANK_ALIGNMENT
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

MEMORY_ATTRIBUTE = "npuc.memory"
REGIONS = ("weights", "cache", "io", "scratch")
REGION_ALIGNMENT = 4096
MAIN_ALIGNMENT = 256
SLACKS = (64, 16, 4, 0)


@dataclass(frozen=True)
class AllocateBuffersPass(ModulePass):
    """Sets `address` of every `tile.alloc` and of every main-memory argument of an entry.

    The module gets `npuc.memory`, base and bytes of the regions of main memory, a program gets `io`, address
    and type of its inputs and outputs. A callee's buffers lie at the bottom of each memory, above them those
    of its caller that are alive during the call. Where a memory is too small, buffers lose second copies.

    Of a module without weights the main memory may be any size: it cannot be run, but timed.
    """

    name = "allocate-buffers"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        found = programs(op)
        sizes = {"weights": _weight_bytes(machine, op), "cache": _cache_bytes(op)}
        sizes["io"] = max((_io_offsets(machine, program)[1] for program in found), default=0)
        shared, sizes["io"] = _shared_offsets(machine, op, sizes["io"])
        bases: dict[str, int] = {}
        base = 0
        for region in REGIONS:
            bases[region] = base
            base += align(sizes.get(region, 0), REGION_ALIGNMENT)
        for buffer, offset in shared.items():
            buffer.attributes["address"] = IntegerAttr(bases["io"] + offset, 64)
        on_chip = min(ranks_of(op), machine.cores_per_chip)
        unbounded = is_timing_only(op)
        if not unbounded:
            _check_main_memory(machine, on_chip, bases["scratch"], sizes)
        sizes["scratch"] = 0
        for program in found:
            _place_arguments(machine, program, bases["io"])
            functions = callees_first(program)
            for memory in machine.memories.values():
                capacity = sys.maxsize if memory.main and unbounded else memory.size
                need = _allocate(machine, functions, memory, bases["scratch"], capacity)
                sizes["scratch"] = max(sizes["scratch"], need if memory.main else 0)
        end = bases["scratch"] + sizes["scratch"]
        _set_windows(shared, machine.cores_per_chip * align(end, RANK_ALIGNMENT))
        if not unbounded:
            _check_main_memory(machine, on_chip, end, sizes)
        op.attributes[MEMORY_ATTRIBUTE] = DictionaryAttr(
            {name: tile.int_array((bases[name], sizes[name])) for name in REGIONS}
        )


def _check_main_memory(machine: Machine, ranks: int, end: int, sizes: dict[str, int]) -> None:
    """Raises PassFailedException where the parts of a chip's ranks, up to `end` each, do not fit."""
    total = _total(ranks, end)
    if total <= machine.main.size:
        return
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
    listed += f", for each of {ranks} ranks" if ranks > 1 else ""
    raise PassFailedException(
        f"allocate-buffers: memory {machine.main.name} has {machine.main.size} bytes, {total} are needed: "
        f"{listed}; compile with smaller buckets, for smaller weights, or with --no-weights for timing only"
    )


def _total(ranks: int, end: int) -> int:
    return (ranks - 1) * align(end, RANK_ALIGNMENT) + end


def memory_map(module: ModuleOp) -> dict[str, tuple[int, int]]:
    """Base and bytes of each region of main memory, from the attribute that this pass sets."""
    attr = module.attributes.get(MEMORY_ATTRIBUTE)
    if not isinstance(attr, DictionaryAttr):
        raise PassFailedException("the module has no attribute npuc.memory; run allocate-buffers first")
    return {name: (tile.ints(pair)[0], tile.ints(pair)[1]) for name, pair in attr.data.items()}


def rank_stride(module: ModuleOp) -> int:
    """Bytes from a rank's part of main memory to the next one's; what ranks share is in rank 0's."""
    return align(max(base + size for base, size in memory_map(module).values()), RANK_ALIGNMENT)


def main_memory_bytes(module: ModuleOp) -> int:
    """Bytes of main memory that all ranks need together."""
    return _total(ranks_of(module), max(base + size for base, size in memory_map(module).values()))


def _set_windows(shared: Iterable[tile.SharedOp], chip_stride: int) -> None:
    """Says of buffers of all chips how far apart those of two chips are."""
    for buffer in shared:
        if buffer.system:
            buffer.attributes["window"] = IntegerAttr(chip_stride, 64)


def _shared_offsets(machine: Machine, module: ModuleOp, end: int) -> tuple[dict[tile.SharedOp, int], int]:
    """Offset in the io region of each buffer that ranks share, by number, and the end of all."""
    found = [op for op in module.walk() if isinstance(op, tile.SharedOp)]
    sizes: dict[int, int] = {}
    for op in found:
        number = tile.integer(op.number)
        chips = op.chips
        sizes[number] = max(sizes.get(number, 0), buffer_bytes(machine, op.result) // chips)
    offsets: dict[int, int] = {}
    for number, size in sorted(sizes.items()):
        offsets[number] = align(end, MAIN_ALIGNMENT)
        end = offsets[number] + size
    return {op: offsets[tile.integer(op.number)] for op in found}, end


def _weight_bytes(machine: Machine, module: ModuleOp) -> int:
    end = 0
    for op in module.body.block.ops:
        if isinstance(op, tile.PackedOp):
            layers = len(tile.ints(op.layers)) if op.layers is not None else 1
            start = tile.integer(op.offset) + (layers - 1) * tile.integer(op.stride)
            end = max(end, start + buffer_bytes(machine, op.type))
    return end


def _cache_bytes(module: ModuleOp) -> int:
    caches = [op for op in module.body.block.ops if isinstance(op, tile.CacheOp)]
    ends = [tile.integer(c.offset) + len(tile.ints(c.layers)) * tile.integer(c.layer_stride) for c in caches]
    return max(ends, default=0)


def _arguments(machine: Machine, program: ModuleOp) -> Iterator[tuple[BlockArgument, str]]:
    """The entries' main-memory arguments with their names; each entry has logits of its own."""
    for function in entries(program):
        for argument in function.body.block.args:
            if isinstance(argument.type, MemRefType) and tile.memory_of(argument) == machine.main.name:
                name = argument.name_hint or f"arg{argument.index}"
                yield argument, f"{name}_{function.sym_name.data}" if name == "logits" else name


def _io_offsets(machine: Machine, program: ModuleOp) -> tuple[dict[str, int], int]:
    """Offset of each argument name in the io region, and the bytes of all."""
    sizes: dict[str, int] = {}
    for argument, name in _arguments(machine, program):
        sizes[name] = max(sizes.get(name, 0), buffer_bytes(machine, argument))
    offsets: dict[str, int] = {}
    end = 0
    for name, size in sizes.items():
        offsets[name] = end
        end = align(end + size, MAIN_ALIGNMENT)
    return offsets, end


def _place_arguments(machine: Machine, program: ModuleOp, base: int) -> None:
    """Set the argument attribute `tile.address`, and the program's `io`: address and type by name."""
    offsets, _ = _io_offsets(machine, program)
    io: dict[str, Attribute] = {}
    for argument, name in _arguments(machine, program):
        function = argument.block.parent_op()
        assert isinstance(function, FuncOp)
        address = IntegerAttr(base + offsets[name], 64)
        dictionaries = list(function.arg_attrs or [DictionaryAttr({})] * len(argument.block.args))
        own = {**dictionaries[argument.index].data, "tile.address": address}
        dictionaries[argument.index] = DictionaryAttr(own)
        function.arg_attrs = ArrayAttr(dictionaries)
        io[name] = DictionaryAttr({"address": address, "type": argument.type})
    program.attributes["npuc.io"] = DictionaryAttr(io)


def _allocate(
    machine: Machine, functions: Sequence[FuncOp], memory: Memory, scratch: int, capacity: int
) -> int:
    """Place a program's buffers in one memory, with as much slack as fits; returns the bytes needed.

    Where not even no slack fits, a buffer with several copies is reduced to one, and so on: first those that
    have their like in the same loop, which can take turns with them; then those of outer loops, where least
    is to be gained; of them the largest.
    """
    for slack in SLACKS[:-1]:
        try:
            return _Allocator(machine, memory, scratch, slack, capacity).place(functions).write()
        except DoesNotFit:
            continue
    while True:
        allocator = _Allocator(machine, memory, scratch, SLACKS[-1], capacity)
        try:
            return allocator.place(functions).write()
        except DoesNotFit as error:
            copied = [op for f in functions for op in _allocs(f, memory) if copies_of(op) > 1]
            if not copied:
                where = allocator.current.sym_name.data
                raise PassFailedException(f"allocate-buffers: {error} (in @{where})") from None
            kinds = Counter((op.parent_block(), op.result.type) for op in copied)
            dropped = max(
                copied,
                key=lambda op: (
                    kinds[op.parent_block(), op.result.type] > 1,
                    -_depth(op),
                    buffer_bytes(machine, op.result),
                ),
            )
            del dropped.attributes["copies"]


def _depth(op: Operation) -> int:
    """How many loops are around an operation."""
    parent = op.parent_op()
    return 0 if parent is None else _depth(parent) + isinstance(parent, tile.ForOp)


def fits_on_chip(machine: Machine, functions: Sequence[FuncOp]) -> bool:
    """Whether a program's on-chip buffers can be placed with its commands in this order."""
    try:
        for memory in machine.memories.values():
            if not memory.main:
                _Allocator(machine, memory, 0, SLACKS[-1], memory.size).place(functions)
    except DoesNotFit:
        return False
    return True


@dataclass
class _Allocator:
    """Places buffers in one memory, function by function, callees first.

    Attributes:
        capacity: bytes of the memory.
        frames: bytes that each function done and its callees need.
        current: the function being placed.
        addresses: of each buffer, with the distance of its copies.
    """

    machine: Machine
    memory: Memory
    scratch: int
    slack: int
    capacity: int
    frames: dict[str, int] = field(default_factory=dict[str, int])
    addresses: dict[tile.AllocOp, tuple[int, int]] = field(
        default_factory=dict[tile.AllocOp, tuple[int, int]]
    )

    def place(self, functions: Sequence[FuncOp]) -> _Allocator:
        """Find addresses for all functions' buffers; raises DoesNotFit."""
        for function in functions:
            self.current = function
            self._function(function)
        return self

    def write(self) -> int:
        """Set the addresses in the IR; returns the bytes needed."""
        for op, (address, stride) in self.addresses.items():
            op.attributes["copy_stride"] = IntegerAttr(stride, 64)
            op.attributes["address"] = IntegerAttr(address, 64)
        return max(self.frames.values(), default=0)

    def _function(self, function: FuncOp) -> None:
        memory = self.memory
        names = {op: f"{op.result.name_hint or 'buffer'}#{n}" for n, op in enumerate(_allocs(function))}
        calls = {op: f"@{op.callee.string_value()}#{n}" for n, op in enumerate(calls_of(function))}
        roots: dict[SSAValue, str] = {op.result: name for op, name in names.items()}
        alternating = {names[op] for op in names if copies_of(op) > 1}
        live = lifetimes(list(steps_of(function.body.block, roots, calls)), alternating)
        widest = max(kind.bits for kind in self.machine.element_types.values()) // 8
        alignment = MAIN_ALIGNMENT if memory.main else max(memory.write_granule, memory.word, widest)
        buffers: list[Buffer] = []
        own = _allocs(function, memory)
        strides = {op: align(buffer_bytes(self.machine, op.result), alignment) for op in own}
        for op, stride in strides.items():
            buffers.append(Buffer(names[op], stride * copies_of(op), live.buffers[names[op]], alignment))
        for call, key in calls.items():
            callee = self.frames[call.callee.string_value()]
            buffers.append(Buffer(key, callee, live.steps[key], address=0))
        base = self.scratch if memory.main else 0
        capacity = self.capacity - base - spare_bytes(self.machine, memory)
        placed = place(buffers, memory.name, capacity, self.slack)
        for op, stride in strides.items():
            self.addresses[op] = base + placed[names[op]], stride
        frame = max((placed[b.name] + b.size for b in buffers), default=0)
        self.frames[function.sym_name.data] = frame


def _allocs(function: FuncOp, memory: Memory | None = None) -> list[tile.AllocOp]:
    """The function's buffers, of one memory if it is given."""
    found = [op for op in function.walk() if isinstance(op, tile.AllocOp)]
    return [op for op in found if memory is None or tile.memory_of(op.result) == memory.name]


def copies_of(alloc: tile.AllocOp) -> int:
    """How many copies of the buffer alternate over the iterations of the loop around it."""
    attr = alloc.attributes.get("copies")
    return tile.integer(attr) if attr is not None else 1


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
