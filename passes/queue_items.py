"""A function's commands as the scheduling algorithms see them: a tree of loops, and the bytes touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.passes.algorithms.hazards import Access, Barrier, Command, Item, Loop
from npuc.passes.multi_buffer import copies_of
from npuc.passes.programs import buffer_bytes
from npuc.passes.roots import Aliases, Touched, accesses
from npuc.passes.select_commands import choice_of
from xdsl.ir import Block


@dataclass
class QueueItems:
    """Makes the items of a function; an item's key is its operation.

    A buffer that has no address yet lies in a space of its own.
    """

    machine: Machine
    aliases: Aliases
    loops: dict[tile.ForOp, Loop] = field(default_factory=dict[tile.ForOp, Loop])
    unplaced: dict[tile.AllocOp, str] = field(default_factory=dict[tile.AllocOp, str])

    def of(self, block: Block) -> Iterator[Item]:
        """The block's commands, its loops, and barriers for calls."""
        for op in block.ops:
            if isinstance(op, tile.ForOp):
                loop = self.loops[op] = Loop(tile.integer(op.count), [], op)
                loop.body = list(self.of(op.body.block))
                if loop.body:
                    yield loop
            elif isinstance(op, tile.CallOp):
                yield Barrier(op)
            elif isinstance(op, tile.PassOp | tile.CopyOp):
                yield self._command(op)

    def _command(self, op: tile.PassOp | tile.CopyOp) -> Command:
        found = [(self._access(what), writes) for what, writes in accesses(self.machine, self.aliases, op)]
        reads, writes = ([a for a, w in found if w == writes] for writes in (False, True))
        return Command(choice_of(op)[1], tuple(dict.fromkeys(reads)), tuple(dict.fromkeys(writes)), op)

    def _access(self, what: Touched) -> Access:
        root = what.root
        if not isinstance(root, tile.AllocOp):
            name = root if isinstance(root, str) else f"argument {root.index}"
            return Access(f"{what.memory}: {name}", what.start, what.stop)
        space, address, stride = what.memory, 0, buffer_bytes(self.machine, root.result)
        if "address" in root.attributes:
            address = tile.integer(root.attributes["address"])
            stride = tile.integer(root.attributes["copy_stride"])
        else:
            space = self.unplaced.setdefault(root, f"{what.memory}: buffer {len(self.unplaced)}")
        start, stop = address + what.start, address + what.stop
        if copies_of(root) == 1:
            return Access(space, start, stop)
        around = root.parent_op()
        assert isinstance(around, tile.ForOp)
        return Access(space, start, stop, copies_of(root), stride, self.loops[around])
