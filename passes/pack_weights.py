"""Chooses the layout of every weight in the target's main memory, one per kind of use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from npuc.backends.machine import Machine
from npuc.ir import graph, tile
from npuc.ir.tile_placements import HostAttr, SlicedAttr, SpreadAttr
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.algorithms.linear_tiles import LinearShape, LinearTile, NoTile
from npuc.passes.algorithms.regions import align
from npuc.passes.command_fields import element_name
from npuc.passes.placing import placement_of
from npuc.passes.rewriting import take_attributes
from npuc.passes.specialized import buckets_of
from npuc.passes.target_option import machine_of
from npuc.passes.tile_choice import choose_tile
from xdsl.context import Context
from xdsl.dialects.builtin import (
    DictionaryAttr,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    f32,
    i1,
    i32,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation, OpResult
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

REGION_ALIGNMENT = 4096
WEIGHT_ALIGNMENT = 256

_Source = graph.ParamOp | graph.IotaOp | graph.ConstantOp


@dataclass(frozen=True)
class PackWeightsPass(ModulePass):
    """Creates one `tile.packed` per weight and use, shared by all buckets, and gives it an address.

    Weights of one layer kind form a block of fixed offsets; layers of the kind lie `stride` apart.
    """

    name = "pack-weights"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        packer = _Packer(op, machine, geometry_of(machine))
        packer.pack(buckets_of(op))
        packer.place()


@dataclass
class _Packer:
    module: ModuleOp
    machine: Machine
    geometry: Geometry
    rows: dict[tuple[str, LinearShape], set[int]] = field(
        default_factory=dict[tuple[str, LinearShape], set[int]]
    )
    tiles: dict[tuple[object, ...], LinearTile] = field(default_factory=dict[tuple[object, ...], LinearTile])
    packed: dict[tuple[object, ...], tile.PackedOp] = field(default_factory=dict)
    groups: dict[tuple[int, ...] | None, list[tile.PackedOp]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ops = self.module.body.block.ops
        self.weights = {w.sym_name.data: w for w in ops if isinstance(w, graph.WeightOp)}

    def pack(self, buckets: Sequence[ModuleOp]) -> None:
        """Packs every weight of the buckets."""
        for bucket in buckets:
            self._note_rows(bucket)
        for bucket in buckets:
            self.pack_bucket(bucket)

    def pack_bucket(self, bucket: ModuleOp) -> None:
        layers = layers_by_callee(bucket)
        for function in bucket.body.block.ops:
            if isinstance(function, FuncOp):
                for op in list(function.walk()):
                    if isinstance(op, graph.ParamOp | graph.IotaOp | graph.ConstantOp):
                        self._pack(op, layers.get(function.sym_name.data))

    def _pack(self, op: _Source, layers: tuple[int, ...] | None) -> None:
        if isinstance(op, graph.ConstantOp) and prod(graph.static_shape(op.result)) == 1:
            return  # becomes an immediate
        symbol = op.symbol.string_value() if isinstance(op, graph.ParamOp) else self._synthesize(op)
        shape = self.weights[symbol].type.get_shape()
        if self.weights[symbol].layer_list is None:
            layers = None
        params: dict[str, graph.ParamOp] = {}
        for use in list(op.result.uses):
            recipe, packed_shape = self._recipe(use.operation, use.index, op.result, symbol, shape)
            packed = self._packed(symbol, graph.element_of(op.result), recipe, packed_shape, layers)
            name = packed.sym_name.data
            if name not in params:
                params[name] = graph.ParamOp(name, _placed_type(op.result))
                take_attributes(params[name], op)
                block = op.parent_block()
                assert block is not None
                block.insert_ops_before([params[name]], op)
            use.operation.operands[use.index] = params[name].result
        op.detach()
        op.erase()

    def _synthesize(self, op: graph.IotaOp | graph.ConstantOp) -> str:
        """A constant table as a weight whose source is a recipe instead of a file.

        Indices along a sliced dimension count on into the padding, so that a mask sees them as too large.
        """
        kind = op.result.type
        assert isinstance(kind, TensorType)
        shape, placement = kind.get_shape(), placement_of(op.result)
        if isinstance(op, graph.IotaOp) and isinstance(placement, SlicedAttr):
            shape = (*shape[:-1], placement.chunk.data * self.geometry.slices)
        source: dict[str, Attribute] = {"shape": tile.int_array(shape)}
        if isinstance(op, graph.IotaOp):
            source |= {"op": StringAttr("iota"), "dim": op.dim}
        else:
            source |= {"op": StringAttr("dense"), "value": op.value}
        attr = DictionaryAttr(source)
        for name, weight in self.weights.items():
            if weight.sources.data[0] == attr and weight.type.element_type == kind.element_type:
                return name
        name = f"{'iota' if isinstance(op, graph.IotaOp) else 'constant'}{len(self.weights)}"
        weight = graph.WeightOp(name, TensorType(kind.element_type, shape), [attr])
        self.module.body.block.insert_ops_before([weight], self._first_bucket())
        self.weights[name] = weight
        return name

    def _first_bucket(self) -> Operation:
        return buckets_of(self.module)[0]

    def _recipe(
        self, user: Operation, index: int, value: OpResult, symbol: str, shape: tuple[int, ...]
    ) -> tuple[list[DictionaryAttr], tuple[int, ...]]:
        """Packing steps and packed shape of a weight of `shape` in one role."""
        if isinstance(user, graph.LinearOp) and index == 1:
            return self._linear_recipe(user, symbol, shape)
        if isinstance(user, graph.EmbeddingOp) and index == 0:
            width = self.geometry.padded(shape[1])
            return [_step("pad", shape=(shape[0], width))], (shape[0], width)
        placement = placement_of(value)
        if isinstance(placement, SlicedAttr):
            chunk, slices = placement.chunk.data, self.geometry.slices
            lead = prod(shape[:-1])
            steps = [
                _step("reshape", shape=(lead, shape[-1])),
                _step("pad", shape=(lead, slices * chunk)),
                _step("reshape", shape=(lead, slices, chunk)),
                _step("permute", perm=(1, 0, 2)),
            ]
            return steps, (slices, lead, chunk)
        count = prod(shape)
        whole = align(count, max(self.geometry.granule // 2, 1))
        return [_step("reshape", shape=(count,)), _step("pad", shape=(whole,))], (whole,)

    def _linear_recipe(
        self, user: graph.LinearOp, symbol: str, shape: tuple[int, ...]
    ) -> tuple[list[DictionaryAttr], tuple[int, ...]]:
        """W[N,K] → [tiles, parts, slices, rows, K of a part]: what a slice loads at once is one run."""
        layer = self._linear_shape(user, shape)
        chosen = self._tile(user, symbol, layer)
        slices, repeats = self.geometry.slices, layer.repeats
        rows, width = chosen.tiles * chosen.rows, chosen.parts * chosen.depth
        steps = [_step("pad", shape=(slices * layer.columns, repeats * layer.inner))]
        if (rows, width) != (layer.columns, layer.inner):
            steps.append(_step("reshape", shape=(slices, layer.columns, repeats, layer.inner)))
            steps.append(_step("pad", shape=(slices, rows, repeats, width)))
        cut = (slices, chosen.tiles, chosen.rows, repeats, chosen.parts, chosen.depth)
        packed = (chosen.tiles, chosen.parts, slices, chosen.rows, repeats * chosen.depth)
        steps += [_step("reshape", shape=cut), _step("permute", perm=(1, 4, 0, 2, 3, 5))]
        return [*steps, _step("reshape", shape=packed)], packed

    def _linear_shape(self, user: graph.LinearOp, shape: tuple[int, ...]) -> LinearShape:
        """The layer as a slice sees it."""
        unit = max(self.geometry.granule // 2, 1)
        stream = placement_of(user.input)
        sliced = isinstance(stream, SlicedAttr | SpreadAttr)
        inner = stream.chunk.data if isinstance(stream, SlicedAttr) else align(shape[1], unit)
        if isinstance(stream, SpreadAttr):
            inner = self.geometry.chunk(shape[1])
        repeats = self.geometry.slices if sliced else 1
        bits = storage_bits(graph.element_of(user.input))  # of the weight too when they are multiplied
        return LinearShape(self.geometry.chunk(shape[0]), inner, repeats, bits // 8, unit)

    def _tile(self, user: graph.LinearOp, symbol: str, layer: LinearShape) -> LinearTile:
        """The tile that is best for all buckets together: they share the packed weight."""
        rows = tuple(sorted(self.rows[symbol, layer]))
        element, stored = (
            element_name(self.machine, storage_type(graph.element_of(v))) for v in (user.input, user.weight)
        )
        key = layer, element, stored, rows
        if key not in self.tiles:
            try:
                self.tiles[key] = choose_tile(self.machine, layer, element, rows, stored)
            except NoTile as error:
                raise PassFailedException(f"pack-weights: {symbol}: {error}") from None
        return self.tiles[key]

    def _note_rows(self, bucket: ModuleOp) -> None:
        """How many rows the linear layers of a bucket multiply with each weight."""
        for op in bucket.walk():
            if isinstance(op, graph.LinearOp) and isinstance(op.weight.owner, graph.ParamOp):
                symbol = op.weight.owner.symbol.string_value()
                layer = self._linear_shape(op, self.weights[symbol].type.get_shape())
                self.rows.setdefault((symbol, layer), set()).add(prod(graph.static_shape(op.input)[:-1]))

    def _packed(
        self,
        symbol: str,
        element: Attribute,
        recipe: list[DictionaryAttr],
        shape: tuple[int, ...],
        layers: tuple[int, ...] | None,
    ) -> tile.PackedOp:
        element = storage_type(element)
        key = (symbol, tuple(recipe), element, layers)
        if key not in self.packed:
            number = self.counts.setdefault(symbol, 0)
            self.counts[symbol] += 1
            kind = tile.buffer_type(shape, element, self.geometry.main)
            op = tile.PackedOp(f"{symbol}#{number}", symbol, kind, recipe, layers)
            self.module.body.block.insert_ops_before([op], self._first_bucket())
            self.packed[key] = op
            self.groups.setdefault(layers, []).append(op)
        return self.packed[key]

    def place(self) -> None:
        """Offsets in the weights region: blocks per layer kind, everything aligned."""
        base = 0
        for layers, group in self.groups.items():
            offset = base
            for op in group:
                op.attributes["offset"] = IntegerAttr(offset, 64)
                offset = align(offset + packed_bytes(op), WEIGHT_ALIGNMENT)
            stride = align(offset - base, WEIGHT_ALIGNMENT)
            for op in group:
                op.attributes["stride"] = IntegerAttr(stride if layers is not None else 0, 64)
            base += stride * (len(layers) if layers is not None else 1)
        self.module.attributes["npuc.weight_bytes"] = IntegerAttr(align(base, REGION_ALIGNMENT), 64)


def packed_bytes(op: tile.PackedOp) -> int:
    """Bytes of one layer of a packed weight."""
    return prod(op.type.get_shape()) * storage_bits(op.type.element_type) // 8


def storage_type(element: Attribute) -> Attribute:
    """How values of a type are stored on chip: predicates and indices as f32."""
    return f32 if element in (i1, i32) else element


def storage_bits(element: Attribute) -> int:
    """Width of a stored element in bits."""
    element = storage_type(element)
    width = getattr(element, "bitwidth", None)
    if not isinstance(width, int):
        raise PassFailedException(f"pack-weights: no storage width for element type {element}")
    return width


def _placed_type(value: OpResult) -> TensorType[Attribute]:
    """The type of a weight's value; a weight that is streamed from main memory is placed there."""
    kind = value.type
    assert isinstance(kind, TensorType)
    return TensorType(kind.element_type, kind.get_shape(), placement_of(kind) or HostAttr())


def layers_by_callee(bucket: ModuleOp) -> dict[str, tuple[int, ...]]:
    """The model layers that each layer-kind function runs for, in order."""
    layers: dict[str, tuple[int, ...]] = {}
    for op in bucket.walk():
        if isinstance(op, graph.LayersOp):
            callee = op.callee.string_value()
            layers[callee] = layers.get(callee, ()) + op.layer_list
    return layers


def _step(op: str, **values: Sequence[int]) -> DictionaryAttr:
    entries: dict[str, Attribute] = {k: tile.int_array(v) for k, v in values.items()}
    return DictionaryAttr({"op": StringAttr(op), **entries})
