"""Operations that treat every token by itself, made a `graph.rows` of some rows at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from npuc.ir import dist, graph
from npuc.passes.rewriting import take_attributes
from npuc.passes.row_dims import RowDims
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.rewriter import Rewriter

WEIGHTS = (graph.ParamOp, graph.ConstantOp)
"""What every tile reads for itself."""
TOKENWISE = (
    graph.LinearOp,
    graph.UnaryOp,
    graph.BinaryOp,
    graph.CastOp,
    graph.GatedOp,
    graph.RmsNormOp,
    graph.LayerNormOp,
    dist.AllReduceOp,
    dist.AllGatherOp,
)
ROWS = 1
"""Where rows are in [batch, rows, size]."""


def inputs_of(region: Sequence[Operation]) -> list[SSAValue]:
    """What the operations take from outside, beside weights."""
    operands = [operand for op in region for operand in op.operands]
    return list(
        dict.fromkeys(v for v in operands if v.owner not in region and not isinstance(v.owner, WEIGHTS))
    )


def tiled(
    region: Sequence[Operation], inputs: Mapping[SSAValue, int], result: SSAValue, count: int
) -> graph.RowsOp:
    """The operations as a `graph.rows` of `count` rows at a time.

    Args:
        inputs: each with its row dimension: `ROWS`, or negative where every row takes the whole.
        result: what the operations make, [batch, rows, size] as all that has rows.
    """
    types = [_with_rows(value, count) if dim >= 0 else value.type for value, dim in inputs.items()]
    body = Block(arg_types=types)
    mapping: dict[SSAValue, SSAValue] = dict(zip(inputs, body.args, strict=True))
    for argument, value in zip(body.args, inputs, strict=True):
        argument.name_hint = value.name_hint
    for op in region:
        for operand in op.operands:
            if operand not in mapping:
                weight = operand.owner
                assert isinstance(weight, WEIGHTS)
                body.add_op(weight.clone(mapping))
        clone = op.clone(mapping)
        for new in clone.results:
            Rewriter.replace_value_with_new_type(new, _with_rows(new, count))
        mapping.update(zip(op.results, clone.results, strict=True))
        body.add_op(clone)
    body.add_op(graph.YieldOp([mapping[result]]))
    return graph.RowsOp(list(inputs), list(inputs.values()), [ROWS], body, [result.type])


def _with_rows(value: SSAValue, count: int) -> TensorType[Attribute]:
    batch, _, size = graph.static_shape(value)
    return TensorType(graph.element_of(value), (batch, count, size))


def replace_by_tiles(region: Sequence[Operation], result: SSAValue, tiles: graph.RowsOp) -> None:
    """Puts the `graph.rows` in the place of the operations that it was made of."""
    block = region[-1].parent_block()
    assert block is not None
    take_attributes(tiles, region[-1])
    block.insert_ops_after([tiles], region[-1])
    result.replace_uses_with_if(tiles.outputs[0], lambda use: use.operation.parent_op() is not tiles)
    for op in reversed(region):
        op.detach()
        op.erase()


def with_tiles(op: graph.RowsOp, count: int, dims: RowDims) -> graph.RowsOp:
    """The `graph.rows`, now with tiles of `count` rows.

    Args:
        dims: the row dimensions of what the body takes and makes.
    """
    for value in (*op.body.block.args, *(v for inner in op.body.block.ops for v in inner.results)):
        if value in dims:
            shape, dim = graph.static_shape(value), dims[value]
            kind = TensorType(graph.element_of(value), (*shape[:dim], count, *shape[dim + 1 :]))
            Rewriter.replace_value_with_new_type(value, kind)
    return op


def joined(first: graph.RowsOp, second: graph.RowsOp) -> graph.RowsOp:
    """One `graph.rows` in the place of two with tiles of the same rows, the second using the first's."""
    (made,) = first.outputs
    taken = [
        (value, dim, argument)
        for op in (first, second)
        for value, dim, argument in zip(op.inputs, op.dims[0], op.body.block.args, strict=True)
    ]
    body, seen = Block(), dict[tuple[SSAValue, int], SSAValue]()
    mapping: dict[SSAValue, SSAValue] = {}
    for value, dim, argument in taken:
        if value is made:
            continue
        if (value, dim) not in seen:
            seen[value, dim] = body.insert_arg(argument.type, len(body.args))
            seen[value, dim].name_hint = argument.name_hint
        mapping[argument] = seen[value, dim]
    for op in (first, second):
        for inner in op.body.block.ops:
            if op is second or not isinstance(inner, graph.YieldOp):
                body.add_op(inner.clone(mapping))
        mapping |= {old: mapping[first.yielded.values[0]] for value, _, old in taken if value is made}
    inputs, dims = zip(*seen, strict=True)
    whole = graph.RowsOp(inputs, dims, second.dims[1], body, [v.type for v in second.outputs])
    take_attributes(whole, second)
    whole.unrolled = second.unrolled
    Rewriter.replace_op(second, whole)
    Rewriter.erase_op(first)
    return whole
