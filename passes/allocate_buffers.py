"""Addresses of all buffers: on-chip memories per program, main memory once for all programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.passes.algorithms.allocate import Buffer, DoesNotFit, Step, lifetimes, place
from npuc.passes.algorithms.regions import align
from npuc.passes.command_fields import spare_bytes
from npuc.passes.programs import buffer_bytes, callees_first, calls_of, entries, programs
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

REGIONS = ("weights", "cache", "io", "scratch")
REGION_ALIGNMENT = 4096
MAIN_ALIGNMENT = 256
SLACKS = (64, 16, 4, 0)

Frames = dict[str, dict[str, int]]
"""Function → memory → bytes that it and its callees need."""


@dataclass(frozen=True)
class AllocateBuffersPass(ModulePass):
    """Sets `address` of every `tile.alloc` and of every main-memory argument of an entry.

    The module gets `npuc.memory`, base and bytes of the regions of main memory, a program gets `io`, address
    and type of its inputs and outputs. A callee's buffers lie at
    the bottom of each memory; a caller's that are alive during the call lie above. Where a memory is too
    small for buffers with several copies, they are reduced to one copy each.
    """

    name = "allocate-buffers"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        found = programs(op)
        sizes = {"weights": _weight_bytes(machine, op), "cache": _cache_bytes(op)}
        sizes["io"] = max((_io_offsets(machine, program)[1] for program in found), default=0)
        bases: dict[str, int] = {}
        base = 0
        for region in REGIONS:
            bases[region] = base
            base += align(sizes.get(region, 0), REGION_ALIGNMENT)
        scratch = 0
        for program in found:
            _place_arguments(machine, program, bases["io"])
            frames = _allocate(machine, program, bases["scratch"])
            scratch = max(scratch, *(frame[machine.main.name] for frame in frames.values()))
        sizes["scratch"] = scratch
        total = bases["scratch"] + scratch
        if total > machine.main.size:
            listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise PassFailedException(
                f"allocate-buffers: memory {machine.main.name} has {machine.main.size} bytes, "
                f"{total} are needed: {listed}"
            )
        op.attributes["npuc.memory"] = DictionaryAttr(
            {name: tile.int_array((bases[name], sizes[name])) for name in REGIONS}
        )


def memory_map(module: ModuleOp) -> dict[str, tuple[int, int]]:
    """Base and bytes of each region of main memory, from the attribute that this pass sets."""
    attr = module.attributes.get("npuc.memory")
    if not isinstance(attr, DictionaryAttr):
        raise PassFailedException("the module has no attribute npuc.memory; run allocate-buffers first")
    return {name: (tile.ints(pair)[0], tile.ints(pair)[1]) for name, pair in attr.data.items()}


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
    program.attributes["io"] = DictionaryAttr(io)


def _allocate(machine: Machine, program: ModuleOp, scratch: int) -> Frames:
    """Place a program's buffers with as much slack as fits, with single copies if nothing else does."""
    functions = callees_first(program)
    for slack in SLACKS:
        allocator = _Allocator(machine, scratch, slack)
        try:
            for function in functions:
                allocator.place(function)
            return allocator.frames
        except DoesNotFit:
            continue
    allocator = _Allocator(machine, scratch, 0)
    for function in functions:
        for op in function.walk():
            op.attributes.pop("copies", None)
        try:
            allocator.place(function)
        except DoesNotFit as error:
            raise PassFailedException(f"allocate-buffers: {error} (in @{function.sym_name.data})") from None
    return allocator.frames


@dataclass
class _Allocator:
    """Places the buffers of a program, function by function, callees first."""

    machine: Machine
    scratch: int
    slack: int
    frames: Frames = field(default_factory=dict[str, dict[str, int]])

    def place(self, function: FuncOp) -> None:
        """Set the addresses of a function whose callees are done; raises DoesNotFit."""
        allocs = [op for op in function.walk() if isinstance(op, tile.AllocOp)]
        names = {op: f"{op.result.name_hint or 'buffer'}#{number}" for number, op in enumerate(allocs)}
        calls = {op: f"@{op.callee.string_value()}#{number}" for number, op in enumerate(calls_of(function))}
        roots: dict[SSAValue, str] = {op.result: name for op, name in names.items()}
        alternating = {names[op] for op in allocs if copies_of(op) > 1}
        live = lifetimes(list(steps_of(function.body.block, roots, calls)), alternating)
        frame: dict[str, int] = {}
        for memory in self.machine.memories.values():
            own = {names[op]: op for op in allocs if tile.memory_of(op.result) == memory.name}
            alignment = MAIN_ALIGNMENT if memory.main else max(memory.write_granule, memory.word)
            buffers: list[Buffer] = []
            for name, op in own.items():
                stride = align(buffer_bytes(self.machine, op.result), alignment)
                op.attributes["copy_stride"] = IntegerAttr(stride, 64)
                buffers.append(Buffer(name, stride * copies_of(op), live.buffers[name], alignment))
            for call, key in calls.items():
                callee = self.frames[call.callee.string_value()]
                buffers.append(Buffer(key, callee[memory.name], live.steps[key], address=0))
            capacity = memory.size - (self.scratch if memory.main else spare_bytes(memory))
            placed = place(buffers, memory.name, capacity, self.slack)
            for name, op in own.items():
                base = self.scratch if memory.main else 0
                op.attributes["address"] = IntegerAttr(base + placed[name], 64)
            frame[memory.name] = max((placed[b.name] + b.size for b in buffers), default=0)
        self.frames[function.sym_name.data] = frame


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
