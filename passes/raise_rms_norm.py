"""Recognises RMSNorm by its data flow."""

from __future__ import annotations

from dataclasses import dataclass

from npuc.ir import graph
from npuc.passes.constants import constant_of
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

MUL, ADD, RSQRT = graph.BINARY["mul"], graph.BINARY["add"], graph.UNARY["rsqrt"]


def strip_casts(value: SSAValue) -> SSAValue:
    """The value before any conversions of its element type."""
    while isinstance(value.owner, graph.CastOp):
        value = value.owner.input
    return value


def strip_widening(value: SSAValue) -> SSAValue:
    """The value before conversions that lose nothing; one that rounds is part of the computation."""
    while isinstance(value.owner, graph.CastOp) and _widens(value.owner):
        value = value.owner.input
    return value


def _normalized(value: SSAValue) -> tuple[SSAValue, float] | None:
    """x and eps where value = x · rsqrt(mean(x²) + eps), conversions aside."""
    op = strip_casts(value).owner
    if not isinstance(op, MUL):
        return None
    for x, scale in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        rsqrt = scale.owner
        if not isinstance(rsqrt, RSQRT) or not isinstance(rsqrt.input.owner, ADD):
            continue
        total = rsqrt.input.owner
        eps = constant_of(strip_casts(total.rhs))
        mean = total.lhs.owner
        if eps is None or not isinstance(mean, graph.ReduceOp) or mean.kind.data != "mean":
            continue
        square = mean.input.owner
        last = len(graph.shape_of(mean.input)) - 1
        if isinstance(square, MUL) and square.lhs is square.rhs is x and graph.ints(mean.dims) == (last,):
            return x, eps
    return None


def _weight(value: SSAValue) -> tuple[SSAValue, float] | None:
    """The weight parameter and the constant added to it, if the value is one."""
    value = strip_widening(value)
    owner = value.owner
    if isinstance(owner, graph.ParamOp):
        return value, 0.0
    if isinstance(owner, ADD):
        for parameter, other in ((owner.lhs, owner.rhs), (owner.rhs, owner.lhs)):
            constant = constant_of(strip_casts(other))
            weight = strip_widening(parameter)
            if constant is not None and isinstance(weight.owner, graph.ParamOp):
                return weight, constant
    return None


def _operand(x: SSAValue, result: SSAValue) -> SSAValue:
    """x before it was widened, where the result is rounded to that type anyway; else x as it is."""
    narrow = strip_widening(x)
    element = graph.element_of(narrow)
    users = [use.operation for use in result.uses]
    back = users and all(isinstance(u, graph.CastOp) and graph.element_of(u.result) == element for u in users)
    return narrow if back or graph.element_of(result) == element else x


class _RaiseRmsNorm(RewritePattern):
    """weight · normalized(x) → graph.rms_norm."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if not isinstance(op, MUL):
            return
        for one, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            normalized, weight = _normalized(one), _weight(other)
            if normalized is None or weight is None:
                continue
            if graph.shape_of(weight[0]) != graph.shape_of(normalized[0])[-1:]:
                continue
            x, eps = normalized
            norm = graph.RmsNormOp(_operand(x, op.result), weight[0], eps, weight[1])
            take_attributes(norm, op)
            result: Operation = norm
            if norm.result.type != op.result.type:
                result = graph.CastOp(norm.result, graph.element_of(op.result))
                take_attributes(result, op)
                rewriter.insert(norm)
            rewriter.replace(op, result)
            return


class FoldCast(RewritePattern):
    """A conversion that loses nothing followed by its inverse is nothing."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if not isinstance(op, graph.CastOp):
            return
        inner = op.input.owner
        if op.input.type == op.result.type:
            rewriter.replace(op, [], [op.input])
        elif isinstance(inner, graph.CastOp) and inner.input.type == op.result.type and _widens(inner):
            rewriter.replace(op, [], [inner.input])


def _widens(op: graph.CastOp) -> bool:
    source, target = (getattr(graph.element_of(v), "bitwidth", 0) for v in (op.input, op.result))
    return source < target


@dataclass(frozen=True)
class RaiseRmsNormPass(ModulePass):
    """Replaces weight · x · rsqrt(mean(x²) + eps) by `graph.rms_norm`, with conversions around it."""

    name = "raise-rms-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(GreedyRewritePatternApplier([_RaiseRmsNorm(), FoldCast()])).rewrite_module(op)
