"""Gives every slice rows of its own, where a bucket has enough of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from npuc.ir import dist, graph
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.live_bytes import live_bytes, room
from npuc.passes.pack_weights import storage_bits
from npuc.passes.roles import HEADS, is_head
from npuc.passes.row_dims import Mixed, RowDims, row_dims
from npuc.passes.specialize import BUFFERS
from npuc.passes.specialized import buckets_of, sizes_of
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, UnitAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

SPREAD = "npuc.spread"
"""Attribute of a bucket whose rows are spread over the slices."""


@dataclass(frozen=True)
class SpreadRowsPass(ModulePass):
    """Marks the buckets whose rows are spread over the slices: row r belongs to slice r mod S.

    What treats each row by itself then does 1/S of the rows in every slice, attention and rotary embedding
    included; `graph.rows` need no tiles for it.
    """

    name = "spread-rows"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        geometry = geometry_of(machine_of(self.target))
        for bucket in buckets_of(op):
            dims = _spreadable(bucket, geometry)
            if dims is not None:
                bucket.attributes[SPREAD] = UnitAttr()
                _widen(dims, sizes_of(bucket).new_tokens)


def spread_functions(bucket: ModuleOp) -> list[FuncOp]:
    """The functions whose rows may be spread: those that run before the head."""
    functions = [op for op in bucket.body.block.ops if isinstance(op, FuncOp)]
    return [f for f in functions if f.sym_name.data not in HEADS and not is_head(f)]


def _spreadable(bucket: ModuleOp, geometry: Geometry) -> RowDims | None:
    """The row dimensions of a bucket's tensors if its rows can be spread, else None."""
    batch, rows, length = sizes_of(bucket)
    slices = geometry.slices
    even = rows % slices == 0 and length % slices == 0
    if slices == 1 or batch > 1 or not even or not geometry.registers:
        return None
    found: RowDims = {}
    for function in spread_functions(bucket):
        try:
            dims = row_dims(function)
        except Mixed:
            return None
        ops = [op for op in function.walk() if any(v in dims for v in op.operands)]
        if not all(_fits(op, rows, length, geometry) for op in ops):
            return None
        if not _fits_in_memory(function, dims, (rows, length), geometry):
            return None
        found |= dims
    return found


def _fits(op: Operation, rows: int, length: int, geometry: Geometry) -> bool:
    """Whether the lowering of spread rows has a way to do an operation."""
    if isinstance(op, graph.LinearOp):
        inner = graph.static_shape(op.input)[-1]
        held = rows // geometry.slices * inner * storage_bits(graph.element_of(op.input)) // 8
        return inner % geometry.chunk(inner) == 0 and held <= geometry.stationary_bytes
    if isinstance(op, dist.AllReduceOp):
        return rows % op.mesh.ranks == 0
    if isinstance(op, graph.AttentionOp):
        heads, key_heads = graph.static_shape(op.query)[1], graph.static_shape(op.keys)[1]
        pairs = heads // key_heads * rows // geometry.slices
        held = pairs * length * storage_bits(graph.element_of(op.result)) // 8
        one_mask = graph.static_shape(op.mask)[1] == 1 if op.mask is not None else False
        return one_mask and held <= geometry.stationary_bytes // 2 and 8 * pairs <= geometry.register_bytes
    return True


def _fits_in_memory(function: FuncOp, dims: RowDims, sizes: tuple[int, int], geometry: Geometry) -> bool:
    """Whether a slice can hold its rows of all that is alive around attention; the rest can be cut later."""
    rows, length = sizes[0] // geometry.slices, sizes[1]

    def size(value: SSAValue) -> int:
        if isinstance(value.owner, graph.ParamOp | graph.ConstantOp | graph.KvUpdateOp):
            return 0
        shape = list(graph.static_shape(value))
        if value in dims:
            shape[dims[value]] = rows
        return prod(shape) * storage_bits(graph.element_of(value)) // 8

    def beside(op: Operation) -> int:
        if isinstance(op, graph.AttentionOp):
            heads, key_heads = graph.static_shape(op.query)[1], graph.static_shape(op.keys)[1]
            return 4 * heads // key_heads * rows * length
        bits = storage_bits(graph.element_of(op.results[0])) if op.results else 8
        return BUFFERS.get(type(op), 0) * size(op.results[0]) * 32 // bits if op.results else 0

    live = live_bytes(function.body.block, size)
    worst = 0
    for op, alive in live.items():
        if isinstance(op, graph.RowsOp):
            worst = max(worst, alive + max(beside(inner) for inner in op.body.block.ops))
    return worst <= room(geometry)


def _widen(dims: RowDims, rows: int) -> None:
    """Makes all rows one tile."""
    for value, dim in dims.items():
        kind = value.type
        assert isinstance(kind, TensorType)
        shape = [*kind.get_shape()[:dim], rows, *kind.get_shape()[dim + 1 :]]
        if shape != list(kind.get_shape()):
            wide = TensorType(kind.element_type, shape, kind.encoding)
            Rewriter.replace_value_with_new_type(value, wide)
