"""Evaluates small constant expressions with the kernel table."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from npuc.ir import graph
from npuc.ir.interpret import evaluate_constants
from npuc.passes.rewriting import take_attributes
from xdsl.context import Context
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, ModuleOp, TensorType, f32, i32
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern

FOLDED = (graph.IotaOp, graph.UnaryOp, graph.BinaryOp, graph.CastOp, graph.ShapeOp, graph.ConcatOp)
MAX_ELEMENTS = 4096


class _FoldConstants(RewritePattern):
    """An operation on constants → its value."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if not isinstance(op, FOLDED):
            return
        constants = [v.owner for v in op.operands if isinstance(v.owner, graph.ConstantOp)]
        kind = op.results[0].type
        if len(constants) != len(op.operands) or not isinstance(kind, TensorType):
            return
        shape = graph.shape_of(kind)
        if kind.element_type not in (f32, i32) or not all(isinstance(d, int) for d in shape):
            return
        if prod(kind.get_shape()) > MAX_ELEMENTS:
            return
        value = evaluate_constants(op, constants).contiguous()
        numbers = value.flatten().tolist()
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return
        folded = graph.ConstantOp(DenseIntOrFPElementsAttr.from_list(kind, numbers))  # pyright: ignore
        take_attributes(folded, op)
        rewriter.replace(op, folded)


@dataclass(frozen=True)
class FoldConstantsPass(ModulePass):
    """Replaces index lists, and elementwise and shape operations on constants, by constants (≤ 4,096)."""

    name = "fold-constants"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_FoldConstants()).rewrite_module(op)
