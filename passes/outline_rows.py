"""Gathers what attention does to each token by itself, so that it can run a few tokens at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from npuc.ir import graph
from npuc.passes.rewriting import take_attributes
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass

LOCAL = (graph.ParamOp, graph.ConstantOp)
ROWWISE = (
    graph.ShapeOp,
    graph.UnaryOp,
    graph.BinaryOp,
    graph.WhereOp,
    graph.CastOp,
    graph.ConcatOp,
    graph.ReduceOp,
    graph.RmsNormOp,
    graph.LayerNormOp,
    graph.RopeOp,
    graph.GatedOp,
    graph.AttentionOp,
)
SLICED_WELL = (graph.UnaryOp, graph.BinaryOp, graph.CastOp, graph.RmsNormOp, graph.LayerNormOp)


@dataclass(frozen=True)
class OutlineRowsPass(ModulePass):
    """Moves attention and what prepares queries, keys and values into `graph.rows`.

    These need every head of a token in one place, which is too large for all tokens at once. Keys and
    values reach the cache flat ([B,N,heads·size]), as the linear layers give them.
    """

    name = "outline-rows"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in op.body.block.ops:
            if isinstance(function, FuncOp):
                for inner in list(function.body.block.ops):
                    if isinstance(inner, graph.KvUpdateOp):
                        _flatten_cache_operands(inner)
                for inner in list(function.body.block.ops):
                    if isinstance(inner, graph.AttentionOp):
                        _outline_attention(inner)


def _flatten_cache_operands(op: graph.KvUpdateOp) -> None:
    if len(graph.shape_of(op.key)) != 4:
        return
    flat = [_flat(value, op) for value in op.operands]
    block = op.parent_block()
    assert block is not None
    new = graph.KvUpdateOp(flat[0], flat[1], op.cache.string_value(), [r.type for r in op.results])
    take_attributes(new, op)
    block.insert_ops_before([new], op)
    for old, result in zip(op.results, new.results, strict=True):
        old.replace_all_uses_with(result)
    op.detach()
    op.erase()
    for value in dict.fromkeys(flat):
        _outline(value)


def _flat(value: SSAValue, before: Operation) -> SSAValue:
    """[B,H,N,D] as [B,N,H·D]: what it was made from, if it was flat before."""
    batch, heads, rows, size = graph.shape_of(value)
    shape = (batch, rows, heads * size)
    turned = value.owner
    if isinstance(turned, graph.TransposeOp) and graph.ints(turned.perm) == (0, 2, 1, 3):
        split = turned.input.owner
        if isinstance(split, graph.ReshapeOp) and graph.shape_of(split.input) == shape:
            return split.input
    block = before.parent_block()
    assert block is not None
    transpose = graph.TransposeOp(value, (0, 2, 1, 3))
    reshape = graph.ReshapeOp(transpose.result, shape)
    for op in (transpose, reshape):
        take_attributes(op, before)
        op.results[0].name_hint = value.name_hint
    block.insert_ops_before([transpose, reshape], before)
    return reshape.result


def _outline_attention(op: graph.AttentionOp) -> None:
    """Attention with what makes its queries, up to the flat result."""
    result: SSAValue = op.result
    uses = list(result.uses)
    if len(uses) == 1 and isinstance(uses[0].operation, graph.ReshapeOp):
        result = uses[0].operation.result
    _outline(result)


def _outline(result: SSAValue) -> None:
    """Puts the row-wise operations that lead to a value into a `graph.rows` that gives it."""
    inside = _rowwise_slice(result)
    inputs = _inputs(inside)
    dims = [_row_dim(value) for value in inputs]
    output_dim = _row_dim(result)
    if not inside or not inputs or output_dim < 0 or all(d < 0 for d in dims):
        return
    assert isinstance(result, OpResult)
    body = Block(arg_types=[value.type for value in inputs])
    mapping: dict[SSAValue, SSAValue] = dict(zip(inputs, body.args, strict=True))
    for argument, value in zip(body.args, inputs, strict=True):
        argument.name_hint = value.name_hint
    for op in inside:
        for operand in op.operands:
            if operand not in mapping and isinstance(operand.owner, LOCAL):
                local = operand.owner.clone(mapping)
                body.add_op(local)
        body.add_op(op.clone(mapping))
    body.add_op(graph.YieldOp([mapping[result]]))
    rows = graph.RowsOp(inputs, dims, [output_dim], body, [result.type])
    take_attributes(rows, result.op)
    block = result.op.parent_block()
    assert block is not None
    block.insert_ops_after([rows], result.op)
    result.replace_uses_with_if(rows.outputs[0], lambda use: use.operation is not rows)


def _rowwise_slice(result: SSAValue) -> list[Operation]:
    """The row-wise operations behind a value, in program order.

    Operations at the front that work as well on a flat, sliced tensor stay outside.
    """
    found: set[Operation] = set()
    work = [result.owner]
    while work:
        op = work.pop()
        if isinstance(op, ROWWISE) and op not in found:
            found.add(op)
            work += [operand.owner for operand in op.operands]
    block = result.owner.parent_block() if isinstance(result.owner, Operation) else None
    ordered = [op for op in (block.ops if block is not None else ()) if op in found]
    for op in list(ordered):
        outside = all(operand.owner not in found for operand in op.operands)
        if isinstance(op, SLICED_WELL) and outside and len(graph.shape_of(op.results[0])) == 3:
            ordered.remove(op)
            found.discard(op)
    return ordered


def _inputs(inside: Sequence[Operation]) -> list[SSAValue]:
    """The values that the operations take from outside; weights and constants are copied in."""
    operands: Iterable[SSAValue] = (operand for op in inside for operand in op.operands)
    return list(
        dict.fromkeys(v for v in operands if v.owner not in inside and not isinstance(v.owner, LOCAL))
    )


def _row_dim(value: SSAValue) -> int:
    """The dimension of size `seq`, or −1."""
    shape = graph.shape_of(value)
    return shape.index(graph.SEQ) if graph.SEQ in shape else -1
