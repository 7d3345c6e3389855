"""Decides where every tensor lies among the slices and makes each change of placement explicit."""

from __future__ import annotations

from dataclasses import dataclass

from npuc.passes.placing import Assigner, H, Placement, with_placement
from npuc.passes.roles import BODY, HEADS, is_head
from npuc.passes.specialized import buckets_of
from npuc.passes.spread_placing import SpreadAssigner, SpreadHeadAssigner
from npuc.passes.spread_rows import SPREAD
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter


@dataclass(frozen=True)
class AssignLayoutsPass(ModulePass):
    """Gives every tensor of every bucket a placement and inserts `graph.relayout`.

    Placements are chosen forward from producers; a value computed from flexible ones alone
    (weights, constants, indices) takes the placement its user asks for.
    """

    name = "assign-layouts"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        for bucket in buckets_of(op):
            functions = [f for f in bucket.body.block.ops if isinstance(f, FuncOp)]
            spread = SPREAD in bucket.attributes
            body, head = (SpreadAssigner, SpreadHeadAssigner) if spread else (Assigner, Assigner)
            placed: dict[str, list[Placement]] = {}
            for function in sorted(functions, key=lambda f: f.sym_name.data == BODY):
                if function.sym_name.data in HEADS:
                    continue
                chosen = head if is_head(function) else body
                placed[function.sym_name.data] = chosen(machine, placed).run(function)
            for function in functions:
                if function.sym_name.data in HEADS:
                    _place_entry(function, placed)


def _place_entry(function: FuncOp, placed: dict[str, list[Placement]]) -> None:
    """Entries only call: arguments and logits on the host, hidden states as the body gives them."""
    block = function.body.block
    for argument in list(block.args):
        Rewriter.replace_value_with_new_type(argument, with_placement(argument.type, H))
    for op in block.ops:
        if isinstance(op, CallOp):
            body = op.callee.string_value() == BODY
            for value in list(op.results):
                hidden = placed[HEADS["all"]][0]
                Rewriter.replace_value_with_new_type(value, with_placement(value.type, hidden if body else H))
    function.update_function_type()
