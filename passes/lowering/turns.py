"""In which turn the tiles of an unrolled `graph.rows` are lowered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from npuc.ir import dist
from xdsl.ir import Block, Operation


def turns(block: Block, count: int) -> Iterator[tuple[int, Sequence[Operation]]]:
    """Tiles' numbers, and what each does in its turn.

    All do what leads to a sum over ranks one after the other. Where ranks add up shares, what leads from
    there to a gather is short: then every tile is a step behind the one before it, so that the gather of one
    waits for no sum of another.
    """
    stages = _stages(block)
    behind = int(any(isinstance(op, dist.AllGatherOp) for op in block.ops))
    for turn in range(len(stages) + behind * (count - 1)):
        for number in range(count):
            if 0 <= turn - behind * number < len(stages):
                yield number, stages[turn - behind * number]


def _stages(block: Block) -> list[list[Operation]]:
    """The operations of a block, up to and from each that lets ranks meet."""
    found: list[list[Operation]] = [[]]
    for op in block.ops:
        if any(isinstance(use.operation, dist.ReduceScatterOp) for v in op.results for use in v.uses):
            found.append([])
        found[-1].append(op)
        if isinstance(op, dist.CollectiveOp):
            found.append([])
    return found
