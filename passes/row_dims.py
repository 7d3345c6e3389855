"""Along which dimension the rows (tokens) of tensors run, in functions that treat every row by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from npuc.ir import dist, graph
from npuc.passes.roles import is_layer
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, BlockArgument, Operation, SSAValue

RowDims = dict[SSAValue, int]
ROWS = 1
"""Where rows are in [batch, rows, …]: how tokens come in, layers hand them on and caches take them."""


class Mixed(Exception):
    """An operation mixes rows, or what it does to them is not known; the message names it."""


def row_dims(function: FuncOp) -> RowDims:
    """The row dimension of every tensor that has one; others are the same for all rows.

    Rows come from outside: tokens and their positions, or what a layer gets and hands on. What else a layer
    gets has rows if a `graph.rows` takes tiles of it.

    Raises:
        Mixed: where rows are not treated each by itself.
    """
    found: RowDims = {}
    arguments = function.body.block.args
    carried = len(function.function_type.outputs) if is_layer(function) else len(arguments)
    for argument in arguments:
        if argument.index < carried:
            found[argument] = ROWS
        for use in argument.uses:
            if isinstance(use.operation, graph.RowsOp) and use.operation.dims[0][use.index] >= 0:
                found[argument] = use.operation.dims[0][use.index]
    _follow(function.body.block, found)
    return found


def _follow(block: Block, found: RowDims) -> None:
    for op in block.ops:
        if not any(operand in found for operand in op.operands):
            continue
        rule = _RULES.get(type(op))
        if rule is None:
            raise Mixed(op.name)
        for result, dim in zip(op.results, rule(op, found), strict=False):
            if dim >= 0:
                found[result] = dim


def _check(op: Operation, fine: bool) -> None:
    if not fine:
        raise Mixed(op.name)


def _embedding(op: graph.EmbeddingOp, found: RowDims) -> list[int]:
    _check(op, isinstance(op.ids, BlockArgument))
    return [found[op.ids]]


def _kept(op: Operation, found: RowDims) -> list[int]:
    """The last dimension alone changes."""
    dim = found.get(op.operands[0], -1)
    _check(op, 0 <= dim < len(graph.static_shape(op.operands[0])) - 1)
    return [dim]


def _broadcast(op: Operation, found: RowDims) -> list[int]:
    """Dimensions meet from the right, as in numpy."""
    rank = len(graph.static_shape(op.results[0]))
    dims = {
        rank - len(graph.static_shape(v)) + found[v]
        for v in op.operands
        if v in found and graph.static_shape(v)[found[v]] > 1
    }
    _check(op, len(dims) == 1)
    (dim,) = dims
    _check(op, all(v in found or _size_at(v, dim - rank) == 1 for v in op.operands))
    return [dim]


def _size_at(value: SSAValue, dim: int) -> int:
    """A size counted from the right; what is missing repeats."""
    shape = graph.static_shape(value)
    return shape[dim] if len(shape) >= -dim else 1


def _reduce(op: graph.ReduceOp, found: RowDims) -> list[int]:
    dim, dims = found[op.input], graph.ints(op.dims)
    _check(op, dim not in dims)
    return [dim if op.keepdims.value.data else dim - sum(d < dim for d in dims)]


def _softmax(op: graph.SoftmaxOp, found: RowDims) -> list[int]:
    _check(op, op.dim.value.data != found[op.input])
    return [found[op.input]]


def _reshape(op: graph.ReshapeOp, found: RowDims) -> list[int]:
    old, new, dim = graph.static_shape(op.input), graph.static_shape(op.result), found[op.input]
    before = prod(old[:dim])
    places = [d for d in range(len(new)) if prod(new[:d]) == before and new[d] == old[dim]]
    _check(op, bool(places))
    return [places[0]]


def _transpose(op: graph.TransposeOp, found: RowDims) -> list[int]:
    return [graph.ints(op.perm).index(found[op.input])]


def _slice(op: graph.SliceOp, found: RowDims) -> list[int]:
    dim = found[op.input]
    _check(op, graph.static_shape(op.input)[dim] == graph.static_shape(op.result)[dim])
    _check(op, graph.ints(op.steps)[dim] == 1)
    return [dim]


def _concat(op: graph.ConcatOp, found: RowDims) -> list[int]:
    dims = {found.get(value, -1) for value in op.inputs}
    _check(op, len(dims) == 1 and op.dim.value.data not in dims)
    return list(dims)


def _pad(op: graph.PadOp, found: RowDims) -> list[int]:
    dim = found[op.input]
    _check(op, graph.static_shape(op.input)[dim] == graph.static_shape(op.result)[dim])
    return [dim]


def _rope(op: graph.RopeOp, found: RowDims) -> list[int]:
    _check(op, all(found.get(v) == 1 for v in (op.cos, op.sin)) and found.get(op.input) == 2)
    return [2]


def _attention(op: graph.AttentionOp, found: RowDims) -> list[int]:
    _check(op, found.get(op.query) == 2 and op.keys not in found and op.values not in found)
    _check(op, op.mask is not None and found.get(op.mask) == 2)
    return [1]


def _kv_update(op: graph.KvUpdateOp, found: RowDims) -> list[int]:
    flat = all(len(graph.static_shape(v)) == 3 and found.get(v) == ROWS for v in op.operands)
    _check(op, flat)
    return []


def _rows(op: graph.RowsOp, found: RowDims) -> list[int]:
    dims, output_dims = op.dims
    for value, argument, dim in zip(op.inputs, op.body.block.args, dims, strict=True):
        _check(op, found.get(value, dim) == dim)
        if dim >= 0:
            found[argument] = dim
    _follow(op.body.block, found)
    yielded = zip(op.yielded.values, output_dims, strict=True)
    _check(op, all(found.get(value) == dim for value, dim in yielded))
    return list(output_dims)


def _layers(op: graph.LayersOp, found: RowDims) -> list[int]:
    _check(op, all(found.get(value) == ROWS for value in op.carried))
    return [ROWS] * len(op.outputs)


def _returned(op: ReturnOp, found: RowDims) -> list[int]:
    _check(op, all(found.get(value) == ROWS for value in op.operands))
    return []


def _yielded(op: graph.YieldOp, found: RowDims) -> list[int]:
    return []


_RULES: Mapping[type[Operation], Callable[[Any, RowDims], list[int]]] = {
    graph.EmbeddingOp: _embedding,
    graph.RmsNormOp: _kept,
    graph.LayerNormOp: _kept,
    graph.LinearOp: _kept,
    graph.ReduceOp: _reduce,
    graph.SoftmaxOp: _softmax,
    graph.ReshapeOp: _reshape,
    graph.TransposeOp: _transpose,
    graph.BroadcastOp: _broadcast,
    graph.SliceOp: _slice,
    graph.ConcatOp: _concat,
    graph.PadOp: _pad,
    graph.RopeOp: _rope,
    graph.AttentionOp: _attention,
    graph.KvUpdateOp: _kv_update,
    graph.RowsOp: _rows,
    graph.LayersOp: _layers,
    graph.YieldOp: _yielded,
    ReturnOp: _returned,
    **dict.fromkeys((dist.AllReduceOp, dist.ReduceScatterOp, dist.AllGatherOp, dist.ShardSliceOp), _kept),
    **dict.fromkeys(
        (graph.WhereOp, graph.CastOp, graph.GatedOp, *graph.UNARY.values(), *graph.BINARY.values()),
        _broadcast,
    ),
}
