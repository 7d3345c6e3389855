"""Which tensors are a rank's share of the rows, as `scatter-rows` has it."""

from __future__ import annotations

from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.ir import dist, graph
from npuc.ir.tile_placements import GridAttr
from npuc.passes.algorithms.geometry import geometry_of
from npuc.passes.costs import ABOUT, Walk, copy_cycles
from npuc.passes.pack_weights import storage_bits
from npuc.passes.roles import is_layer
from npuc.passes.row_tiles import ROWS
from npuc.passes.specialized import sizes_of
from xdsl.dialects.builtin import IntAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue, Use

CUTTING = (dist.ReduceScatterOp, dist.ShardSliceOp)
"""What gives a rank its share of the rows."""


def share_grid(kind: SSAValue | Attribute, ranks: int, machine: Machine) -> GridAttr | None:
    """The grid of slices on which a rank's share of some rows lies; None where it cannot be cut so.

    A sum over ranks is cut into a chunk of each row for every slice. A part on the grid is some slices'
    chunks of blocks of rows. Of the grids from which shares are written about as fast as whole rows, even
    with one byte an element, it is the one to which such chunks are read fastest.

    Args:
        kind: the share's type, [1, rows, size].
        ranks: that exchange shares at the same time.
    """
    _, rows, width = graph.static_shape(kind)
    geometry, bits = geometry_of(machine), storage_bits(graph.element_of(kind))
    main, local, slices, chunk = geometry.main, geometry.local, geometry.slices, geometry.chunk(width)
    if chunk * slices != width:
        return None

    def reading(block: int) -> float:
        down, piece, run = rows // block, block * chunk, ranks * rows * chunk
        columns = slices // down
        source: Walk = (slices * run, piece, down * run, run, 1), ()
        target: Walk = (down * piece, 0, 0, piece, 1), (0, columns, 1, 0, 0)
        size = ranks, down, columns, down, piece
        return copy_cycles(machine, size, {"src": (main, source), "dst": (local, target)}, bits, ranks)

    def writing(block: int, pieces: int) -> float:
        down, piece = rows // block, width // pieces
        source: Walk = (0, piece, 0, 1), (slices // down, 0, 1, 0)
        target: Walk = (block * width, width, piece, 1), ()
        size = down, block, pieces, piece
        return copy_cycles(machine, size, {"src": (local, source), "dst": (main, target)}, 8, ranks)

    blocks = [n for n in range(1, rows + 1) if rows % n == 0 and slices % (rows // n) == 0]
    fine = [n for n in blocks if writing(n, slices * n // rows) <= ABOUT * writing(n, 1)]
    if not fine:
        return None
    block = min(fine, key=reading)
    return GridAttr(IntAttr(block), IntAttr(slices * block // rows))


@dataclass
class Shares:
    """The shares of one function.

    Attributes:
        function: that may take shares, and whose operations may make them.
        making: the operations whose results are shares.
    """

    function: FuncOp
    making: set[Operation] = field(default_factory=set[Operation])

    def __post_init__(self) -> None:
        self._note(self.function.body.block)

    def _note(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, graph.RowsOp):
                self._note(op.body.block)
            given = op.yielded.values if isinstance(op, graph.RowsOp) else op.operands
            if isinstance(op, CUTTING) or (
                not isinstance(op, dist.AllGatherOp) and any(value in self for value in given)
            ):
                self.making.add(op)

    def __contains__(self, value: SSAValue) -> bool:
        """Whether a tensor is a share."""
        owner = value.owner
        if isinstance(owner, Operation):
            return owner in self.making
        assert isinstance(value, BlockArgument)
        rows = owner.parent_op()
        if isinstance(rows, graph.RowsOp):
            return rows.inputs[value.index] in self
        return value.index == 0 and is_layer(self.function) and self._few(value)

    def _few(self, value: SSAValue) -> bool:
        """Whether hidden states have fewer rows than the bucket."""
        bucket = self.function.parent_op()
        assert isinstance(bucket, ModuleOp)
        return graph.static_shape(value)[ROWS] < sizes_of(bucket).new_tokens

    def grid(self, machine: Machine) -> GridAttr | None:
        """The grid of slices that shares lie on, if they lie on one."""
        cut = next((op for op in self.function.walk() if isinstance(op, CUTTING)), None)
        return cut and share_grid(cut.result, cut.mesh.ranks, machine)

    def all_meet(self, value: SSAValue) -> bool:
        """Whether all that take a weight put it together with shares."""
        return bool(value.uses) and all(self._meets(use) for use in value.uses)

    def _meets(self, use: Use) -> bool:
        op = use.operation
        if isinstance(op, graph.RowsOp):
            return self.all_meet(op.body.block.args[use.index])
        if isinstance(op, graph.SliceOp | graph.ReshapeOp):
            return self.all_meet(op.result)
        return op in self.making
