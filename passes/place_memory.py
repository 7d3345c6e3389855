"""Main memory of the artifact: weights, caches, inputs and outputs, the same for all programs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from npuc.ir import graph, tile
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.algorithms.regions import align
from npuc.passes.pack_weights import REGION_ALIGNMENT, WEIGHT_ALIGNMENT, storage_bits
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, MemRefType, ModuleOp, i32
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass


@dataclass(frozen=True)
class PlaceCachesPass(ModulePass):
    """Gives every declared cache its layout and offset in the cache region."""

    name = "place-caches"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        geometry = geometry_of(machine_of(self.target))
        batches, lengths = zip(*(_sizes(bucket) for bucket in buckets_of(op)), strict=True)
        offset = 0
        for declared in list(op.body.block.ops):
            if isinstance(declared, graph.CacheDeclOp):
                placed = _placed(declared, geometry, max(batches), max(lengths), offset)
                op.body.block.insert_ops_before([placed], declared)
                layers = len(tile.ints(declared.layers))
                offset += align(layers * tile.integer(placed.layer_stride), REGION_ALIGNMENT)
                declared.detach()
                declared.erase()
        op.attributes["npuc.cache_bytes"] = IntegerAttr(offset, 64)


@dataclass(frozen=True)
class PlaceInputsPass(ModulePass):
    """Gives the entries' arguments offsets in the io region, and fixes the memory map.

    Region bases follow each other: weights, cache, io, scratch.
    """

    name = "place-inputs"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        io_bytes = 0
        for bucket in buckets_of(op):
            for function in bucket.body.block.ops:
                if isinstance(function, FuncOp) and function.sym_name.data in ("all", "last"):
                    io_bytes = max(io_bytes, _place_arguments(function))
        sizes = {
            "weights": tile.integer(op.attributes["npuc.weight_bytes"]),
            "cache": tile.integer(op.attributes["npuc.cache_bytes"]),
            "io": align(io_bytes, REGION_ALIGNMENT),
            "scratch": 0,
        }
        base, regions = 0, {}
        for name, size in sizes.items():
            regions[name] = DictionaryAttr({"base": IntegerAttr(base, 64), "bytes": IntegerAttr(size, 64)})
            base += size
        op.attributes["npuc.memory"] = DictionaryAttr(regions)


def buckets_of(module: ModuleOp) -> list[ModuleOp]:
    """The nested modules, one per bucket."""
    return [op for op in module.body.block.ops if isinstance(op, ModuleOp)]


def _sizes(bucket: ModuleOp) -> tuple[int, int]:
    sizes = bucket.attributes["bucket"]
    assert isinstance(sizes, DictionaryAttr)
    return tile.integer(sizes.data["batch"]), tile.integer(sizes.data["length"])


def _placed(
    declared: graph.CacheDeclOp, geometry: Geometry, slots: int, length: int, offset: int
) -> tile.CacheOp:
    """Per layer and slot: keys [heads, length, size], then values."""
    heads, padded = tile.integer(declared.heads), geometry.padded(length)
    types, sizes = [], []
    for size in (tile.integer(declared.key_size), tile.integer(declared.value_size)):
        shape = (heads, padded, size)
        types.append(tile.buffer_type(shape, declared.type, geometry.main))
        sizes.append(align(prod(shape) * storage_bits(declared.type) // 8, WEIGHT_ALIGNMENT))
    layout = {
        "slots": slots,
        "offset": offset,
        "layer_stride": slots * sum(sizes),
        "slot_stride": sum(sizes),
        "value_offset": sizes[0],
    }
    layers = tile.ints(declared.layers)
    return tile.CacheOp(declared.sym_name.data, layers, types[0], types[1], layout)


def _place_arguments(function: FuncOp) -> int:
    """Notes each argument's offset in the io region; returns the end of the last."""
    offset, offsets = 0, {}
    for argument in function.body.block.args:
        kind = argument.type
        assert isinstance(kind, MemRefType)
        bits = 32 if kind.element_type == i32 else storage_bits(kind.element_type)
        name = argument.name_hint or f"arg{argument.index}"
        offsets[name] = IntegerAttr(offset, 64)
        offset = align(offset + prod(kind.get_shape()) * bits // 8, WEIGHT_ALIGNMENT)
    function.attributes["npuc.io"] = DictionaryAttr(offsets)
    return offset


