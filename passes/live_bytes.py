"""How many bytes of a memory the tensors of a `graph` function hold while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from npuc.ir import graph
from npuc.passes.algorithms.geometry import Geometry
from xdsl.ir import Block, Operation, SSAValue

Size = Callable[[SSAValue], int]
VIEWS = (graph.ReshapeOp, graph.TransposeOp, graph.BroadcastOp, graph.SliceOp, graph.SelectRowsOp)
"""Operations whose result lies where their operand does."""
SHARE = 0.7
"""Of the local memory, for tensors; the rest is for weights on their way."""


def room(geometry: Geometry) -> int:
    """How many bytes of a slice's local memory tensors may take."""
    return int(SHARE * geometry.local_bytes)


def overwrites(op: Operation) -> bool:
    """Whether an operation's result takes the place of its first operand, which nobody else wants.

    The widest tensors of a layer meet in its gated product.
    """
    if not isinstance(op, graph.GatedOp) or not isinstance(op.gate.owner, graph.LinearOp):
        return False
    return len(list(op.gate.uses)) == 1 and op.gate.type == op.result.type


def live_bytes(block: Block, size: Size) -> dict[Operation, int]:
    """For each operation of a block the bytes of all tensors that are alive while it runs.

    The operation's own result counts, and what is alive inside it at the worst moment. The arguments of a
    `graph.rows` are windows of tensors outside.

    Args:
        block: of static shapes.
        size: bytes of a tensor.
    """
    ends = _last_uses(block)
    inside = isinstance(block.parent_op(), graph.RowsOp)
    alive = 0 if inside else sum(size(argument) for argument in block.args)
    found: dict[Operation, int] = {}
    for op in block.ops:
        alive += sum(size(value) for value in op.results if value in ends)
        body = live_bytes(op.body.block, size) if isinstance(op, graph.RowsOp) else {}
        found[op] = alive + max(body.values(), default=0)
        alive -= sum(size(value) for value, end in ends.items() if end is op)
    return found


def _last_uses(block: Block) -> Mapping[SSAValue, Operation]:
    """Tensors that the block makes → the last operation that touches them, or a view of them."""
    roots: dict[SSAValue, SSAValue] = {}
    ends: dict[SSAValue, Operation] = {}
    for op in block.ops:
        for value in op.results:
            viewed = isinstance(op, VIEWS) or overwrites(op)
            roots[value] = roots.get(op.operands[0], op.operands[0]) if viewed else value
            if not viewed:
                ends[value] = op
        for operand in op.operands:
            root = roots.get(operand, operand)
            if root in ends:
                ends[root] = op
    return ends
