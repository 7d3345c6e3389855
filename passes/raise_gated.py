"""Recognises the gated middle of an MLP."""

from __future__ import annotations

from dataclasses import dataclass

from npuc.ir import graph
from npuc.passes.rewriting import take_attributes
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "sigmoid")


class _RaiseGated(RewritePattern):
    """activation(gate) · up → graph.gated."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if not isinstance(op, graph.BINARY["mul"]) or op.lhs.type != op.rhs.type:
            return
        for activated, up in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            owner = activated.owner
            if not isinstance(owner, graph.UnaryOp) or not activated.has_one_use():
                continue
            mnemonic = owner.name.removeprefix("graph.")
            if mnemonic in ACTIVATIONS:
                gated = graph.GatedOp(owner.input, up, mnemonic)
                take_attributes(gated, op)
                rewriter.replace(op, gated)
                return


@dataclass(frozen=True)
class RaiseGatedPass(ModulePass):
    """Replaces activation(gate) · up by `graph.gated`."""

    name = "raise-gated"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_RaiseGated(), apply_recursively=False).rewrite_module(op)
