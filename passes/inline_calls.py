"""Puts functions that are called from one place there, so that their loop's iterations can overlap."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from npuc.ir import tile
from npuc.passes.programs import callees_first, calls_of, programs
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.passes import ModulePass


@dataclass(frozen=True)
class InlineCallsPass(ModulePass):
    """Replaces each `tile.call` of a function without other calls by its body.

    Calls stand between barriers. The code grows by nothing, and a layer's loads may begin while the layer
    before still computes. Functions called from several places stay.
    """

    name = "inline-calls"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for program in programs(op):
            functions = callees_first(program)
            by_name = {f.sym_name.data: f for f in functions}
            sites = Counter(c.callee.string_value() for f in functions for c in calls_of(f))
            for function in functions:
                for call in list(calls_of(function)):
                    if sites[call.callee.string_value()] == 1:
                        inline_call(call, by_name[call.callee.string_value()])


def inline_call(call: tile.CallOp, callee: FuncOp) -> None:
    """Move the callee's body in place of its only call."""
    body = callee.body.block
    for argument, operand in zip(list(body.args), call.arguments, strict=True):
        argument.replace_all_uses_with(operand)
    block = call.parent_block()
    assert block is not None
    for op in list(body.ops):
        op.detach()
        if not isinstance(op, ReturnOp):
            block.insert_ops_before([op], call)
    for op in (call, callee):
        op.detach()
        op.erase()
