"""Collectives as copies through the main memory that all ranks of a chip share.

An all-reduce in two steps: every rank writes its values; when all have, each reads one share of all ranks',
adds it up and writes the sums; when all have, each reads all sums. What a rank reads of the others' is
2 · (ranks − 1) / ranks of the tensor, the least that an all-reduce can do with.

In one step: when all ranks have written their values, each reads those of all and adds them up. That is
(ranks − 1) times the tensor, and half as many copies and meetings: of small tensors these decide. Both are
lowered, and the one is kept that takes the machine less time (Thakur, Rabenseifner and Gropp, "Optimization
of Collective Communication Operations in MPICH", 2005, have the trade-off).

A rank writes to a shared buffer again only after all have met over another, and so are done with the first.
Steps that follow each other therefore use different buffers, around loops too: `SECOND` and `THIRD` take
turns behind `FIRST`, and one step alone in what is repeated is not enough.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from npuc.ir import dist, graph, tile
from npuc.ir.shapes import row_major_strides
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.function import FunctionLowering
from npuc.passes.lowering.movement import gather, store
from npuc.passes.lowering.views import Nest, View, Walk, dense
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import PassFailedException

VALUES, SUMS = 0, 1
"""Numbers of the shared buffers of an all-reduce in two steps."""
FIRST, SECOND, THIRD = 2, 3, 4
"""Of those in one step: of a function's first, and of the others in turn."""
FEW = 32
"""What takes at most 1/FEW of the local memory is written from one slice."""


def lower_all_reduce(low: FunctionLowering, op: dist.AllReduceOp) -> None:
    """The sum over all ranks, each slice's part by itself."""
    if op.group_size != op.mesh.ranks:
        raise PassFailedException("lower-to-tile: dist.all_reduce over some axes of a mesh has no lowering")
    view = low.view(op.input)
    ways = [_InTwoSteps(low, op, view).emit]
    if _has_others(op):
        ways.append(_InOneStep(low, op, view).emit)
    total = low.emit.cheapest_of(ways, op.mesh.ranks)
    if op.result in low.destinations:
        low.emit.copy_view(total, low.destinations[op.result])
        total = low.destinations[op.result]
    low.define(op.result, total)


def _has_others(op: dist.AllReduceOp) -> bool:
    """Whether no repetition of the code around runs this all-reduce after itself."""
    block = op.parent_block()
    assert block is not None
    if isinstance(block.parent_op(), graph.RowsOp):
        return False
    return sum(isinstance(other, dist.AllReduceOp) for other in block.ops) > 1


class _AllReduce:
    """One all-reduce; every slice has `run` elements, of which a rank adds up `share` at a time."""

    def __init__(self, low: FunctionLowering, op: dist.AllReduceOp, view: View, parts: int) -> None:
        self.low, self.emit_, self.view, self.kind = low, low.emit, view, op.kind.data
        self.ranks, self.slices = op.mesh.ranks, low.emit.geometry.slices
        unit = max(low.emit.geometry.granule // element_bytes(view), 1)
        self.share = -(-prod(view.shape) // (parts * unit)) * unit
        self.run = parts * self.share

    def _reduced(self, values: View, steps: tuple[int, int]) -> View:
        """A share of all ranks' values, added up."""
        parts = dense(self.emit_.alloc((self.ranks, self.share), self.view.element), (self.ranks, self.share))
        self._read(values, parts, steps)
        part = dense(self.emit_.alloc((self.share,), self.view.element), (self.share,))
        step = {"sum": "reduce_add", "max": "reduce_max", "min": "reduce_min"}[self.kind]
        self.emit_.reduce_outermost(parts, part, step)
        return part

    def _shared(self, number: int, shape: tuple[int, ...]) -> View:
        op = tile.SharedOp(number, tile.buffer_type(shape, self.view.element, self.emit_.geometry.main))
        op.result.name_hint = "sums" if number == SUMS else "values"
        self.emit_.add(op)
        return dense(op.result, shape)

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

    def _write(self, source: View, target: View, run: int, rank: SSAValue) -> None:
        """Puts what every slice has into the rank's place; little is brought together first, as one run."""
        whole = self.slices * run
        place = target.moved(0, ((rank, whole),))
        if FEW * whole * element_bytes(source) <= self.emit_.geometry.local_bytes:
            together = gather(self.low, replace(source, size=whole, chunk=run))
            walks = {"src": Walk(together, (1,)), "dst": Walk(place, (1,))}
            self.emit_.emit_copy(Nest((whole,), walks))
            return
        walks = {"src": Walk(source, (0, 1), (1, 0)), "dst": Walk(place, (run, 1))}
        self.emit_.emit_copy(Nest((self.slices, run), walks))

    def _read(self, source: View, target: View, steps: tuple[int, int]) -> None:
        """Gets a share of each rank into every slice, when all ranks have come here."""
        walks = {
            "src": Walk(source, (*steps, 1)),
            "dst": Walk(target, (0, self.share, 1), (1, 0, 0)),
        }
        self.emit_.emit_copy(Nest((self.slices, self.ranks, self.share), walks), meet=True)


class _InTwoSteps(_AllReduce):
    """A share for each rank."""

    def __init__(self, low: FunctionLowering, op: dist.AllReduceOp, view: View) -> None:
        super().__init__(low, op, view, op.mesh.ranks)

    def emit(self) -> View:
        """Four copies and the sum."""
        emit, slices, share, run = self.emit_, self.slices, self.share, self.run
        rank = rank_of(self.low)
        values = self._shared(VALUES, (self.ranks, slices, run))
        self._write(self._flat(), values, run, rank)
        part = self._reduced(values.moved(0, ((rank, share),)), (run, slices * run))
        sums = self._shared(SUMS, (self.ranks, slices, share))
        self._write(part, sums, share, rank)
        result = dense(emit.alloc((run,), self.view.element), (self.ranks, share))
        self._read(sums, result, (share, slices * share))
        return self._as_input(result.buffer)


class _InOneStep(_AllReduce):
    """Everything is every rank's share."""

    def __init__(self, low: FunctionLowering, op: dist.AllReduceOp, view: View) -> None:
        super().__init__(low, op, view, 1)
        numbers = [o.number.value.data for o in low.emit.block.ops if isinstance(o, tile.SharedOp)]
        before = sum(number >= FIRST for number in numbers)
        self.number = FIRST if not before else (SECOND, THIRD)[(before - 1) % 2]

    def emit(self) -> View:
        """Two copies and the sum."""
        run = self.run
        values = self._shared(self.number, (self.ranks, self.slices, run))
        self._write(self._flat(), values, run, rank_of(self.low))
        return self._as_input(self._reduced(values, (run, self.slices * run)).buffer)


def rank_of(low: FunctionLowering) -> SSAValue:
    """The number of the rank."""
    op = tile.RankOp()
    op.result.name_hint = "rank"
    low.emit.add(op)
    return op.result


def lower_all_gather(low: FunctionLowering, op: dist.AllGatherOp) -> None:
    """Logits: each rank writes its columns; nobody reads them before all ranks are at their end."""
    dims = len(low.view(op.input).shape)
    if op.result not in low.destinations or not low.on_host(op.result) or op.dim.value.data != dims - 1:
        raise PassFailedException("lower-to-tile: dist.all_gather is for the last dimension of results")
    target = low.destinations[op.result]
    view = low.view(op.input)
    rank = rank_of(low)
    store(low, view, target.moved(0, ((rank, view.size),)))
    low.values[op.result] = target
