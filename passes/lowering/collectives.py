"""Collectives as copies through the main memory that the ranks of a chip share and other chips can read.

An all-reduce in two steps: every rank writes its values; when all have, each reads one share of all ranks',
adds it up and writes the sums; when all have, each reads all sums. What a rank reads of the others' is
2 · (ranks − 1) / ranks of the tensor, the least that an all-reduce can do with.

In one step: when all ranks have written their values, each reads those of all and adds them up. That is
(ranks − 1) times the tensor, and half as many copies and meetings: of small tensors these decide. Both are
lowered, and the one is kept that takes the machine less time (Thakur, Rabenseifner and Gropp, "Optimization
of Collective Communication Operations in MPICH", 2005, have the trade-off).

Of several chips each goes its two steps by itself. Between them a rank writes its share of the chip's sums;
when all ranks of all chips have, it reads the same share of every chip and adds those up. Nothing else passes
between chips. That is (chips − 1) times the tensor over each chip's link; of more than two chips it may take
less time to do that in two steps as well, each chip adding up a piece of every share.

A reduce-scatter of rows is the first of the two steps, an all-gather of rows the second; programs have them
in turns (`scatter-rows`).

A rank writes to a shared buffer again only after all have met over another, and so are done with the first.
Steps that follow each other therefore use different buffers, around loops too: `SECOND` and `THIRD` take
turns behind `FIRST`, and one step alone in what is repeated is not enough. What chips show each other in one
step takes turns likewise; alone in what is repeated, all chips meet once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod

from npuc.ir import dist, graph, tile
from npuc.ir.meetings import CHIP, SYSTEM
from npuc.ir.shapes import row_major_strides
from npuc.ir.tile_placements import GridAttr
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.exchange import (
    FIRST,
    PIECE_SUMS,
    PIECES,
    SECOND,
    SUMS,
    THIRD,
    VALUES,
    exchange_buffer,
    exchange_number,
    gather_from_ranks,
    rank_of,
)
from npuc.passes.lowering.function import FunctionLowering, is_spread
from npuc.passes.lowering.grids import grid_of
from npuc.passes.lowering.movement import gather
from npuc.passes.lowering.views import Nest, View, Walk, dense
from npuc.passes.shares import share_grid
from xdsl.dialects.builtin import TensorType
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import PassFailedException

Sum = dist.AllReduceOp | dist.ReduceScatterOp
STEPS = {"sum": "reduce_add", "max": "reduce_max", "min": "reduce_min"}
FEW = 32
"""What takes at most 1/FEW of the local memory is written from one slice."""


def lower_all_reduce(low: FunctionLowering, op: dist.AllReduceOp) -> None:
    """The sum over all ranks, each slice's part by itself."""
    if op.group_size != op.mesh.ranks:
        raise PassFailedException("lower-to-tile: dist.all_reduce over some axes of a mesh has no lowering")
    view = low.view(op.input)
    two_steps = [_InTwoSteps(low, op, view)]
    ranks, chips = two_steps[0].ranks, two_steps[0].chips
    if chips > 2:
        two_steps.append(_InTwoSteps(low, op, view, pieces=chips))
    if is_spread(op.result):
        target = low.fresh(op.result)
        ways = [partial(way.emit_spread, target) for way in two_steps]
        if chips == 1 and (grid := two_steps[0].grid()) is not None:
            ways.insert(0, partial(two_steps[0].emit_spread, target, grid))
        low.emit.cheapest_of(ways, ranks)
        low.define(op.result, target)
        return
    ways: list[Callable[[], View]] = [way.emit for way in two_steps]
    if chips == 1 and _has_others(op):
        ways.append(_InOneStep(low, op, view).emit)
    total = low.emit.cheapest_of(ways, ranks)
    if op.result in low.destinations:
        low.emit.copy_view(total, low.destinations[op.result])
        total = low.destinations[op.result]
    low.define(op.result, total)


def lower_reduce_scatter(low: FunctionLowering, op: dist.ReduceScatterOp) -> None:
    """The first of an all-reduce's two steps: what a rank adds up are its rows."""
    way, grid = _InTwoSteps(low, op, low.view(op.input)), grid_of(op.result)
    if op.dim.value.data != 1 or way.chips > 1 or op.group_size != op.mesh.ranks or not way.whole_rows:
        raise PassFailedException("lower-to-tile: dist.reduce_scatter is for the rows of all ranks of a chip")
    if grid is None:
        low.define(op.result, way.emit_share())
    else:
        way.emit_grid(target := low.fresh(op.result), grid)
        low.define(op.result, target)


def _has_others(op: Sum) -> bool:
    """Whether no repetition of the code around runs this sum after itself."""
    block = op.parent_block()
    assert block is not None
    around = block.parent_op()
    if isinstance(around, graph.RowsOp) and not around.unrolled:
        return False
    return sum(isinstance(other, dist.AllReduceOp) for other in block.ops) > 1


class _AllReduce:
    """One all-reduce; every slice has `run` elements, of which a rank adds up `share` at a time.

    Attributes:
        ranks: of a chip.
        chips: that they are on.
    """

    def __init__(self, low: FunctionLowering, op: Sum, view: View, parts: int) -> None:
        self.low, self.emit_, self.view, self.kind = low, low.emit, view, op.kind.data
        self.ranks = min(op.mesh.ranks, low.emit.machine.cores_per_chip)
        self.chips, self.slices = op.mesh.ranks // self.ranks, low.emit.geometry.slices
        unit = max(low.emit.geometry.granule // element_bytes(view), 1)
        self.share = -(-prod(view.shape) // (parts * unit)) * unit
        self.run = parts * self.share

    def _reduced(self, source: Walk, shape: tuple[int, int], meet: str) -> View:
        """So many shares, added up; arguments are those of `_read`."""
        parts = self._read(source, shape, meet)
        part = dense(self.emit_.alloc(shape[1:], self.view.element), shape[1:])
        self.emit_.reduce_outermost(parts, part, STEPS[self.kind])
        return part

    def _turn(self) -> int:
        """The number of a buffer that no all-reduce just before or after uses."""
        found = [op for op in self.emit_.block.ops if isinstance(op, tile.SharedOp) and op.system is None]
        own = [op for op in found if op.exchange == self.low.strand]
        before = sum(op.number.value.data >= exchange_number(self.low, FIRST) for op in own)
        return FIRST if not before else (SECOND, THIRD)[(before - 1) % 2]

    def _shared(self, number: int, shape: tuple[int, ...], *, system: bool = False) -> View:
        return exchange_buffer(self.low, number, shape, self.view.element, system=system)

    def _place(self) -> tuple[SSAValue, SSAValue]:
        """The number of the rank on its chip, and the chip's; of one chip the rank's."""
        rank = rank_of(self.low)
        if self.chips == 1:
            return rank, rank
        chip = tile.ChipOp()
        core = tile.SumOp(rank, -self.ranks, chip.result)
        chip.result.name_hint, core.result.name_hint = "chip", "core"
        self.emit_.add(chip)
        self.emit_.add(core)
        return core.result, chip.result

    def _as_input(self, buffer: SSAValue) -> View:
        """A buffer as a tensor of the input's shape and placement."""
        view = self.view
        return View(buffer, view.shape, row_major_strides(view.shape), size=view.size, chunk=view.chunk)

    def _flat(self) -> View:
        """The input as one run in every slice, padded to whole shares."""
        emit, view = self.emit_, self.view
        is_run = view.strides == row_major_strides(view.shape) and not view.offset and not view.index
        if is_run and prod(view.shape) == self.run:
            return replace(view, shape=(self.run,), strides=(1,))
        padded = dense(emit.alloc((self.run,), view.element), (self.run,))
        if prod(view.shape) < self.run:
            emit.fill(padded, 0.0)
        emit.copy_view(view, self._as_input(padded.buffer))
        return padded

    def _write(self, source: View, target: View, run: int, core: SSAValue) -> None:
        """Puts what every slice has into the core's place; little is brought together first, as one run."""
        whole = self.slices * run
        place = target.moved(0, ((core, whole),))
        if FEW * whole * element_bytes(source) <= self.emit_.geometry.local_bytes:
            together = gather(self.low, replace(source, size=whole, chunk=run))
            walks = {"src": Walk(together, (1,)), "dst": Walk(place, (1,))}
            self.emit_.emit_copy(Nest((whole,), walks))
            return
        walks = {"src": Walk(source, (0, 1), (1, 0)), "dst": Walk(place, (run, 1))}
        self.emit_.emit_copy(Nest((self.slices, run), walks))

    def _read(self, source: Walk, shape: tuple[int, int], meet: str) -> View:
        """Gets shares into every slice, when all ranks of the chip or the system have come here.

        Args:
            source: its steps are to the next slice's, the next share and the next element.
            shape: how many shares, and their elements.
            meet: who must have come.
        """
        target = dense(self.emit_.alloc(shape, self.view.element), shape)
        walks = {"src": source, "dst": Walk(target, (0, shape[1], 1), (1, 0, 0))}
        self.emit_.emit_copy(Nest((self.slices, *shape), walks), meet=meet)
        return target


class _InTwoSteps(_AllReduce):
    """A share for each rank of a chip; between chips in one step, or in two with a piece of it for each."""

    def __init__(self, low: FunctionLowering, op: Sum, view: View, pieces: int = 1) -> None:
        super().__init__(low, op, view, pieces * min(op.mesh.ranks, low.emit.machine.cores_per_chip))
        self.piece, self.pieces = self.share, pieces
        self.share *= pieces
        met = self.chips == 1 or pieces > 1 or _has_others(op)
        self.number, self.again = self._turn(), CHIP if met else SYSTEM

    @property
    def whole_rows(self) -> bool:
        """Whether the shares of a tensor [1, rows, size] are whole rows."""
        _, rows, chunk = self.view.shape
        return rows % self.ranks == 0 and self.share == rows // self.ranks * chunk

    def emit(self) -> View:
        """Four copies and the sum; between chips two more, or four."""
        slices, share = self.slices, self.share
        core, chip = self._place()
        part = self._sum_of_share(core, chip)
        sums = self._shared(SUMS, (self.ranks, slices, share))
        self._write(part, sums, share, core)
        result = self._read(Walk(sums, (share, slices * share, 1)), (self.ranks, share), self.again)
        return self._as_input(result.buffer)

    def grid(self) -> GridAttr | None:
        """The grid of slices that a rank's share may lie on."""
        share = 1, self.view.shape[1] // self.ranks, self.view.size
        return share_grid(TensorType(self.view.element, share), self.ranks, self.emit_.machine)

    def emit_spread(self, target: View, grid: GridAttr | None = None) -> View:
        """The copies and the sum, of shares on a grid or cut; the result's rows are spread."""
        core, chip = self._place()
        if grid is None:
            share = self._share_of_rows(core, chip)
        else:
            part = 1, grid.block.data, self.view.size // grid.columns.data
            share = dense(self.emit_.alloc(part, self.view.element), part)
            self.emit_grid(share, grid)
        return gather_from_ranks(self.low, share, target, core, self.again, grid)

    def emit_share(self) -> View:
        """Two copies and the sum of a rank's share of the rows."""
        return self._share_of_rows(*self._place())

    def _share_of_rows(self, core: SSAValue, chip: SSAValue) -> View:
        """The sums of a rank's share of a tensor [1, rows, size] that is cut: whole rows."""
        (_, rows, chunk), width = self.view.shape, self.view.size
        own = rows // self.ranks
        part = self._sum_of_share(core, chip)
        return View(part.buffer, (1, own, chunk), (own * chunk, chunk, 1), 0, width, chunk)

    def emit_grid(self, target: View, grid: GridAttr) -> None:
        """As `emit_share`; a slice's part of the sums goes to `target`, [1, rows, columns].

        What a column of the grid has are the chunks of as many neighbouring slices as the grid has rows.
        """
        (_, rows, chunk), (core, _), slices = self.view.shape, self._place(), self.slices
        columns, block = grid.columns.data, grid.block.data
        down, run = slices // columns, self.run
        if rows != self.ranks * down * block:
            raise PassFailedException(f"lower-to-tile: {rows // self.ranks} rows on a grid of {down} rows")
        values = self._shared(VALUES, (self.ranks, slices, run))
        self._write(self._flat(), values, run, core)
        own = values.moved(0, ((core, self.share),))
        parts = (self.ranks, down, block, chunk)
        found = dense(self.emit_.alloc(parts, self.view.element), parts)
        part, chunks, *_ = found.strides
        walks = {
            "src": Walk(own, (slices * run, chunks, down * run, run, 1)),
            "dst": Walk(found, (part, 0, 0, chunks, 1), (0, columns, 1, 0, 0)),
        }
        self.emit_.emit_copy(Nest((self.ranks, down, columns, down, chunks), walks), meet=CHIP)
        _, row, step = target.strides
        sums = replace(target, shape=parts[1:], strides=(chunk * step, row, step))
        self.emit_.reduce_outermost(found, sums, STEPS[self.kind])

    def _sum_of_share(self, core: SSAValue, chip: SSAValue) -> View:
        """The sums of a rank's share, over all ranks."""
        share, run = self.share, self.run
        values = self._shared(VALUES, (self.ranks, self.slices, run))
        self._write(self._flat(), values, run, core)
        own = values.moved(0, ((core, share),))
        part = self._reduced(Walk(own, (run, self.slices * run, 1)), (self.ranks, share), CHIP)
        if self.pieces > 1:
            return self._piece_by_piece(part, core, chip)
        if self.chips > 1:
            everywhere = self._show(part, self.number, share, core)
            return self._reduced(everywhere, (self.chips, share), SYSTEM)
        return part

    def _show(self, part: View, number: int, size: int, core: SSAValue) -> Walk:
        """Writes so many elements a slice for all chips to see; the walk over what all chips have of them."""
        shape = self.ranks, self.slices, size
        self._write(part, self._shared(number, shape), size, core)
        everywhere = self._shared(number, (self.chips, *shape), system=True)
        return Walk(everywhere.moved(0, ((core, self.slices * size),)), (size, 0, 1), (0, 1, 0))

    def _piece_by_piece(self, part: View, core: SSAValue, chip: SSAValue) -> View:
        """A share of the sums of all chips, of which each adds up one piece."""
        shown, shape = self._show(part, PIECES, self.share, core), (self.chips, self.piece)
        own = replace(shown, view=shown.view.moved(0, ((chip, self.piece),)))
        piece = self._reduced(own, shape, SYSTEM)
        found = self._read(self._show(piece, PIECE_SUMS, self.piece, core), shape, SYSTEM)
        return dense(found.buffer, (self.share,))


class _InOneStep(_AllReduce):
    """Everything is every rank's share."""

    def __init__(self, low: FunctionLowering, op: dist.AllReduceOp, view: View) -> None:
        super().__init__(low, op, view, 1)
        self.number = self._turn()

    def emit(self) -> View:
        """Two copies and the sum."""
        run = self.run
        values = self._shared(self.number, (self.ranks, self.slices, run))
        self._write(self._flat(), values, run, rank_of(self.low))
        found = self._reduced(Walk(values, (run, self.slices * run, 1)), (self.ranks, run), CHIP)
        return self._as_input(found.buffer)
