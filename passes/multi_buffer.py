"""Two copies of the buffers through which the queues of a loop hand data to each other."""

from __future__ import annotations

from dataclasses import dataclass

from npuc.ir import tile
from npuc.passes.select_commands import choice_of
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.passes import ModulePass

COPIES = 2


@dataclass(frozen=True)
class MultiBufferPass(ModulePass):
    """Sets `copies` of each buffer in a loop that commands of different queues use.

    Then a queue may fill the buffer of the next iteration while another still works on this one's.
    allocate-buffers takes the copies back where a memory is too small for them.
    """

    name = "multi-buffer"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for loop in op.walk():
            if not isinstance(loop, tile.ForOp) or tile.integer(loop.count) < COPIES:
                continue
            for alloc in loop.body.block.ops:
                if isinstance(alloc, tile.AllocOp) and len(_queues(alloc)) > 1:
                    alloc.attributes["copies"] = IntegerAttr(COPIES, 64)


def _queues(alloc: tile.AllocOp) -> set[str]:
    """The queues of all commands that use the buffer."""
    users = (use.operation for use in alloc.result.uses)
    return {choice_of(op)[1] for op in users if isinstance(op, tile.PassOp | tile.CopyOp)}


def copies_of(alloc: tile.AllocOp) -> int:
    """How many copies of the buffer alternate over the iterations of the loop around it."""
    attr = alloc.attributes.get("copies")
    return tile.integer(attr) if attr is not None else 1
