"""Recognises rotary position embedding by its data flow."""

from __future__ import annotations

from dataclasses import dataclass

from npuc.ir import graph
from npuc.passes.rewriting import take_attributes
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
)

MUL, ADD, NEG = graph.BINARY["mul"], graph.BINARY["add"], graph.UNARY["neg"]


def _last_range(op: Operation, source: SSAValue) -> tuple[int, int, int] | None:
    """start, stop and step of a slice of the last dimension of `source` alone."""
    if not isinstance(op, graph.SliceOp) or op.input is not source:
        return None
    starts, stops, steps = (graph.ints(a) for a in (op.starts, op.stops, op.steps))
    if any(starts[:-1]) or any(s != 1 for s in steps[:-1]):
        return None
    shape, result = graph.shape_of(op.input), graph.shape_of(op.result)
    if shape[:-1] != result[:-1] or not isinstance(shape[-1], int):
        return None
    return starts[-1], shape[-1] if stops[-1] == -1 else stops[-1], steps[-1]


def _rotated(value: SSAValue) -> tuple[SSAValue, bool] | None:
    """x, and whether pairs are neighbours, where value holds (−b, a) for each pair (a, b) of x.

    That is concat(−x[…, half:], x[…, :half]), or −x[…, 1::2] and x[…, ::2] stacked.
    """
    *lead, size = graph.shape_of(value)
    if not isinstance(size, int):
        return None
    parts, interleaved = _joined(value), False
    if parts is None and isinstance(value.owner, graph.ReshapeOp):
        stacked = value.owner.input
        parts = _joined(stacked) if graph.shape_of(stacked) == (*lead, size // 2, 2) else None
        parts, interleaved = parts and (_unstacked(parts[0]), _unstacked(parts[1])), True
    if parts is None or not isinstance(parts[0].owner, NEG) or not isinstance(parts[1].owner, graph.SliceOp):
        return None
    x = parts[1].owner.input
    wanted = ((0, size, 2), (1, size, 2)) if interleaved else ((0, size // 2, 1), (size // 2, size, 1))
    second = parts[0].owner.input.owner
    found = _last_range(parts[1].owner, x), _last_range(second, x) if isinstance(second, Operation) else None
    return (x, interleaved) if found == wanted else None


def _joined(value: SSAValue) -> tuple[SSAValue, SSAValue] | None:
    """The two values that are concatenated along the last dimension."""
    op = value.owner
    if not isinstance(op, graph.ConcatOp) or len(op.inputs) != 2:
        return None
    last = op.dim.value.data == len(graph.shape_of(value)) - 1
    return (op.inputs[0], op.inputs[1]) if last else None


def _unstacked(value: SSAValue) -> SSAValue:
    """What was given a last dimension of 1."""
    op = value.owner
    if isinstance(op, graph.ReshapeOp) and (*graph.shape_of(op.input), 1) == graph.shape_of(value):
        return op.input
    return value


def _table(value: SSAValue, rewriter: PatternRewriter) -> SSAValue | None:
    """cos or sin as [B or 1, N, R], given as [B or 1, 1, N, R]."""
    shape = graph.shape_of(value)
    if len(shape) != 4 or shape[1] != 1:
        return None
    flat = (shape[0], *shape[2:])
    owner = value.owner
    if isinstance(owner, graph.ReshapeOp) and graph.shape_of(owner.input) == flat:
        return owner.input
    return rewriter.insert(graph.ReshapeOp(value, flat)).result


class _RaiseRope(RewritePattern):
    """x · cos + rotate(x) · sin → graph.rope."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if not isinstance(op, ADD) or len(graph.shape_of(op.result)) != 4:
            return
        if not isinstance(op.lhs.owner, MUL) or not isinstance(op.rhs.owner, MUL):
            return
        for plain, turned in ((op.lhs.owner, op.rhs.owner), (op.rhs.owner, op.lhs.owner)):
            for rotation, sin in ((turned.lhs, turned.rhs), (turned.rhs, turned.lhs)):
                found = _rotated(rotation)
                if found is None or found[0] not in plain.operands:
                    continue
                x, interleaved = found
                cos = plain.rhs if plain.lhs is x else plain.lhs
                whole = (*graph.shape_of(cos)[:-1], graph.shape_of(x)[-1])
                if not graph.shape_of(cos) == graph.shape_of(sin) == whole:
                    continue
                tables = _table(cos, rewriter), _table(sin, rewriter)
                if tables[0] is None or tables[1] is None:
                    continue
                rope = graph.RopeOp(x, tables[0], tables[1], interleaved)
                take_attributes(rope, op)
                rewriter.replace(op, rope)
                return


class _RaisePartialRope(RewritePattern):
    """concat(rope(x[…, :r]), x[…, r:]) → graph.rope of x, which passes on what its tables do not reach."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        parts = _joined(op.results[0]) if isinstance(op, graph.ConcatOp) else None
        if parts is None or not isinstance(parts[0].owner, graph.RopeOp):
            return
        rope, rest = parts[0].owner, parts[1].owner
        if not isinstance(rope.input.owner, graph.SliceOp) or not isinstance(rest, graph.SliceOp):
            return
        x = rope.input.owner.input
        size, rotated = graph.shape_of(x)[-1], graph.shape_of(rope.cos)[-1]
        found = _last_range(rope.input.owner, x), _last_range(rest, x)
        if found != ((0, rotated, 1), (rotated, size, 1)):
            return
        whole = graph.RopeOp(x, rope.cos, rope.sin, bool(rope.interleaved.value.data))
        take_attributes(whole, op)
        rewriter.replace(op, whole)


@dataclass(frozen=True)
class RaiseRopePass(ModulePass):
    """Replaces x · cos + (−x₂, x₁) · sin by `graph.rope`, for pairs of halves and of neighbours.

    Where a slice of x is rotated and joined with the rest, the rotation becomes one of all of x.
    """

    name = "raise-rope"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        patterns = GreedyRewritePatternApplier([_RaiseRope(), _RaisePartialRope()])
        PatternRewriteWalker(patterns, apply_recursively=False).rewrite_module(op)
