"""Addresses of all buffers: on-chip memories per program, main memory once for all programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.passes.algorithms.regions import align
from npuc.passes.frames import MAIN_ALIGNMENT, Frame, capacity_of
from npuc.passes.partition import ranks_of
from npuc.passes.place_buffers import Settler, make_fit
from npuc.passes.programs import buffer_bytes, callees_first, entries, programs
from npuc.passes.roots import Aliases
from npuc.passes.target_option import machine_of
from npuc.passes.timing_only import is_timing_only
from npuc.runtime.manifest import RANK_ALIGNMENT
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

MEMORY_ATTRIBUTE = "npuc.memory"
REGIONS = ("weights", "cache", "io", "scratch")
REGION_ALIGNMENT = 4096


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
            main = sys.maxsize if unbounded else machine.main.size - bases["scratch"]
            need = _place_buffers(machine, program, bases["scratch"], main, ranks_of(op))
            sizes["scratch"] = max(sizes["scratch"], need)
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


def _place_buffers(machine: Machine, program: ModuleOp, scratch: int, main: int, ranks: int) -> int:
    """Place a program's buffers; returns how many bytes it needs of the ``main`` behind ``scratch``."""
    frames = [Frame(machine, function) for function in callees_first(program)]
    memories = sorted(machine.memories.values(), key=lambda memory: (memory.main, memory.size))
    capacities = {m.name: main if m.main else capacity_of(machine, m) for m in memories}
    for memory in memories:
        make_fit(frames, memory, capacities[memory.name])
    for frame in frames:
        for op in frame.allocs:
            op.attributes.pop("address", None)
    settler = Settler(machine, Aliases.of(program), frames, ranks)
    bases = {machine.main.name: scratch}
    need = {m.name: settler.place(m, bases.get(m.name, 0), capacities[m.name]) for m in memories}
    return need[machine.main.name]
