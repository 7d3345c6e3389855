"""Addresses of the programs' inputs and outputs, and the memory map."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from npuc.ir import tile
from npuc.passes.algorithms.regions import align
from npuc.passes.pack_weights import REGION_ALIGNMENT, WEIGHT_ALIGNMENT, storage_bits
from npuc.passes.place_caches import buckets_of
from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, MemRefType, ModuleOp, i32
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass


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


