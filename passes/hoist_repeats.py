"""Moves repetition along the last dimension from a table to the constants that it is computed from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from npuc.ir import graph
from npuc.passes.rewriting import take_attributes
from xdsl.context import Context
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, ModuleOp, TensorType
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern

ELEMENTWISE = (graph.UnaryOp, graph.BinaryOp, graph.WhereOp, graph.CastOp)


@dataclass(frozen=True)
class HoistRepeatsPass(ModulePass):
    """Replaces repeat(f(x, constants)) by f(x, repeat(constants)); f is elementwise, x has one column.

    Rotary tables are made like this: the angles of half a head, twice. Without the repetition they are
    elementwise and may be cut along the last dimension.
    """

    name = "hoist-repeats"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_HoistRepeat(), apply_recursively=False).rewrite_module(op)


@dataclass(frozen=True)
class _Repeat:
    """Repetition of the last dimension: whole (0 1 2 0 1 2), or of each element (0 0 1 1 2 2)."""

    count: int
    each: bool

    def values(self, row: Sequence[Any]) -> list[Any]:
        """A repeated row."""
        return [value for value in row for _ in range(self.count)] if self.each else [*row] * self.count


class _HoistRepeat(RewritePattern):
    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        for value, repeat in _repeated(op):
            if isinstance(value.owner, ELEMENTWISE) and not _is_column(value) and _is_table(value):
                hoisted = _hoisted(value, repeat, rewriter)
                hoisted.name_hint = op.results[0].name_hint
                rewriter.replace(op, [], [hoisted])


def _repeated(op: Operation) -> Iterator[tuple[SSAValue, _Repeat]]:
    """What an operation repeats along its last dimension, if it does, and how."""
    if not op.results or not isinstance(op.results[0].type, TensorType):
        return
    shape = graph.shape_of(op.results[0])
    if isinstance(op, graph.ConcatOp):
        if len(set(op.inputs)) == 1 < len(op.inputs) and op.dim.value.data == len(shape) - 1:
            yield op.inputs[0], _Repeat(len(op.inputs), each=False)
    elif isinstance(op, graph.ReshapeOp) and isinstance(op.input.owner, graph.BroadcastOp):
        spread = op.input.owner
        *lead, size, count = graph.shape_of(spread.result)
        column = spread.input.owner
        if not isinstance(column, graph.ReshapeOp) or not isinstance(size, int) or not isinstance(count, int):
            return
        narrow, whole = graph.shape_of(column.input), graph.shape_of(column.result)
        if whole == (*narrow, 1) and narrow == (*lead, size) and shape == (*lead, size * count):
            yield column.input, _Repeat(count, each=True)


def _is_column(value: SSAValue) -> bool:
    """Whether a value is the same in all columns: it has one, or no dimension."""
    return graph.shape_of(value)[-1:] in ((), (1,))


def _is_table(value: SSAValue) -> bool:
    """Whether a value is computed elementwise from constants and from what has one column."""
    owner = value.owner
    if _is_column(value) or isinstance(owner, graph.ConstantOp):
        return True
    return isinstance(owner, ELEMENTWISE) and all(_is_table(operand) for operand in owner.operands)


def _hoisted(value: SSAValue, repeat: _Repeat, rewriter: PatternRewriter) -> SSAValue:
    """The repeated value, computed from repeated constants."""
    if _is_column(value):
        return value
    owner = value.owner
    if isinstance(owner, graph.ConstantOp):
        new: Operation = graph.ConstantOp(_repeated_constant(owner, repeat))
    else:
        assert isinstance(owner, ELEMENTWISE)
        operands = [_hoisted(operand, repeat, rewriter) for operand in owner.operands]
        *lead, size = graph.shape_of(owner.result)
        wide = graph.tensor_type((*lead, size * repeat.count), graph.element_of(owner.result))
        new = type(owner).create(operands=operands, result_types=[wide], attributes=dict(owner.attributes))
    take_attributes(new, owner)
    return rewriter.insert(new).results[0]


def _repeated_constant(op: graph.ConstantOp, repeat: _Repeat) -> DenseIntOrFPElementsAttr:
    data = op.value
    assert isinstance(data, DenseIntOrFPElementsAttr)
    shape = graph.static_shape(op.result)
    numbers, size = list(data.get_values()), shape[-1]
    rows = [numbers[i : i + size] for i in range(0, len(numbers), size)]
    kind = TensorType(graph.element_of(op.result), (*shape[:-1], size * repeat.count))
    values = [v for row in rows for v in repeat.values(row)]
    return DenseIntOrFPElementsAttr.from_list(kind, values)  # pyright: ignore
