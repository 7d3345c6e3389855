"""The caches' layout in main memory, the same for all programs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from npuc.ir import graph, tile
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.algorithms.regions import align
from npuc.passes.pack_weights import REGION_ALIGNMENT, WEIGHT_ALIGNMENT, layers_by_callee, storage_bits
from npuc.passes.pad_shards import DEALT_ATTRIBUTE
from npuc.passes.specialized import buckets_of, sizes_of
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, SymbolRefAttr
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException


@dataclass(frozen=True)
class PlaceCachesPass(ModulePass):
    """Gives every declared cache its layout and offset in the cache region."""

    name = "place-caches"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        geometry = geometry_of(machine_of(self.target))
        if not buckets_of(op):
            raise PassFailedException("place-caches: the module has no buckets")
        batches, _, lengths = zip(*(sizes_of(bucket) for bucket in buckets_of(op)), strict=True)
        users = _split_by_kind(op)
        offset = 0
        for declared in list(op.body.block.ops):
            if isinstance(declared, graph.CacheDeclOp):
                for name, layers in users.get(declared.sym_name.data, {}).items():
                    placed = _placed(declared, name, layers, geometry, (max(batches), max(lengths), offset))
                    if DEALT_ATTRIBUTE in declared.attributes:
                        placed.attributes[DEALT_ATTRIBUTE] = declared.attributes[DEALT_ATTRIBUTE]
                    op.body.block.insert_ops_before([placed], declared)
                    offset += align(len(layers) * tile.integer(placed.layer_stride), REGION_ALIGNMENT)
                declared.detach()
                declared.erase()
        op.attributes["npuc.cache_bytes"] = IntegerAttr(offset, 64)


def _split_by_kind(module: ModuleOp) -> dict[str, dict[str, tuple[int, ...]]]:
    """Gives each layer kind a cache of its own: declared name → {cache of a kind: its layers}.

    Layers of one kind then lie one after the other, whatever kinds stand between them in the model.
    """
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for bucket in buckets_of(module):
        layers = layers_by_callee(bucket)
        for function in bucket.body.block.ops:
            if not isinstance(function, FuncOp):
                continue
            for op in function.walk():
                if isinstance(op, graph.KvUpdateOp):
                    kind, shared = function.sym_name.data, op.cache.string_value()
                    own = f"{shared}.{kind}"
                    op.attributes["cache"] = SymbolRefAttr(own)
                    found.setdefault(shared, {})[own] = layers[kind]
    return found


def _placed(
    declared: graph.CacheDeclOp,
    name: str,
    layers: tuple[int, ...],
    geometry: Geometry,
    place: tuple[int, int, int],
) -> tile.CacheOp:
    """Per layer and slot: keys [length, heads, size], then values; `place` = slots, length, offset.

    What a token adds is one run of bytes.
    """
    slots, length, offset = place
    heads, padded = tile.integer(declared.heads), geometry.padded(length)
    types, sizes = [], []
    for size in (tile.integer(declared.key_size), tile.integer(declared.value_size)):
        shape = (padded, heads, size)
        types.append(tile.buffer_type(shape, declared.type, geometry.main))
        sizes.append(align(prod(shape) * storage_bits(declared.type) // 8, WEIGHT_ALIGNMENT))
    layout = {
        "slots": slots,
        "offset": offset,
        "layer_stride": slots * sum(sizes),
        "slot_stride": sum(sizes),
        "value_offset": sizes[0],
    }
    return tile.CacheOp(name, layers, types[0], types[1], layout)
