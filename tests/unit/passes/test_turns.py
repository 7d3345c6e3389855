"""In which turn tiles of rows are lowered whose commands will be interleaved."""

from __future__ import annotations

from npuc.ir import dist, graph
from npuc.ir.dist import MeshAttr
from npuc.passes.lowering.turns import turns
from xdsl.dialects.builtin import TensorType, f32
from xdsl.ir import Block, Operation

MESH = MeshAttr.of(tp=2)
ALL, SHARE = (TensorType(f32, (1, rows, 8)) for rows in (4, 2))


def taken(ops: list[Operation]) -> list[str]:
    block = Block(ops)
    return [f"{number}: {', '.join(op.name for op in stage)}" for number, stage in turns(block, 2) if stage]


def test_up_to_sums_one_after_the_other() -> None:
    source = Block(arg_types=[ALL]).args[0]
    first = graph.unary("exp", source)
    total = dist.AllReduceOp(first.results[0], "sum", ["tp"], MESH)
    last = graph.unary("neg", total.result)
    assert taken([first, total, last]) == [
        "0: graph.exp, dist.all_reduce",
        "1: graph.exp, dist.all_reduce",
        "0: graph.neg",
        "1: graph.neg",
    ]


def test_a_step_behind_where_shares_are_gathered() -> None:
    """Each waits for its gather while the other is summed."""
    source = Block(arg_types=[ALL]).args[0]
    first = graph.unary("exp", source)
    linear = graph.unary("neg", first.results[0])
    share = dist.ReduceScatterOp(linear.results[0], "sum", 1, ["tp"], MESH, SHARE)
    norm = graph.unary("sqrt", share.result)
    whole = dist.AllGatherOp(norm.results[0], 1, ["tp"], MESH, ALL)
    last = graph.unary("abs", whole.result)
    assert taken([first, linear, share, norm, whole, last]) == [
        "0: graph.exp",
        "0: graph.neg, dist.reduce_scatter",
        "1: graph.exp",
        "0: graph.sqrt, dist.all_gather",
        "1: graph.neg, dist.reduce_scatter",
        "0: graph.abs",
        "1: graph.sqrt, dist.all_gather",
        "1: graph.abs",
    ]
