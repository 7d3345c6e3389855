"""Collectives as copies through the main memory that all ranks of a chip share.

An all-reduce has two halves. Every rank writes its values; when all have, each reads one share of all ranks',
adds it up and writes the sums; when all have, each reads all sums. What a rank reads of the others' is
2 · (ranks − 1) / ranks of the tensor, the least that an all-reduce can do with. Two buffers are used in turn:
a rank writes to one again only after all have met over the other, and so are done with the first.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from npuc.ir import dist, tile
from npuc.ir.shapes import row_major_strides
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.function import FunctionLowering
from npuc.passes.lowering.movement import gather, store
from npuc.passes.lowering.views import Nest, View, Walk, dense
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import PassFailedException

VALUES, SUMS = 0, 1
"""Numbers of the two shared buffers."""
FEW = 32
"""What takes at most 1/FEW of the local memory is written from one slice."""


def lower_all_reduce(low: FunctionLowering, op: dist.AllReduceOp) -> None:
    """The sum over all ranks, each slice's part by itself."""
    if op.group_size != op.mesh.ranks:
        raise PassFailedException("lower-to-tile: dist.all_reduce over some axes of a mesh has no lowering")
    view = low.view(op.input)
    total = _AllReduce(low, op, view).emit()
    if op.result in low.destinations:
        low.emit.copy_view(total, low.destinations[op.result])
        total = low.destinations[op.result]
    low.define(op.result, total)


class _AllReduce:
    """One all-reduce; `run` elements a slice are cut into a share of `share` for each rank."""

    def __init__(self, low: FunctionLowering, op: dist.AllReduceOp, view: View) -> None:
        self.low, self.emit_, self.view, self.kind = low, low.emit, view, op.kind.data
        self.ranks, self.slices = op.mesh.ranks, low.emit.geometry.slices
        unit = max(low.emit.geometry.granule // element_bytes(view), 1)
        self.share = -(-prod(view.shape) // (self.ranks * unit)) * unit
        self.run = self.ranks * self.share

    def emit(self) -> View:
        """The copies and the sum."""
        emit, slices, share, run = self.emit_, self.slices, self.share, self.run
        rank = rank_of(self.low)
        values = self._shared(VALUES, (self.ranks, slices, run))
        self._write(self._flat(), values, run, rank)
        parts = dense(emit.alloc((self.ranks, share), self.view.element), (self.ranks, share))
        own = values.moved(0, ((rank, share),))
        self._read(own, parts, (run, slices * run))
        part = dense(emit.alloc((share,), self.view.element), (share,))
        step = {"sum": "reduce_add", "max": "reduce_max", "min": "reduce_min"}[self.kind]
        emit.reduce_outermost(parts, part, step)
        sums = self._shared(SUMS, (self.ranks, slices, share))
        self._write(part, sums, share, rank)
        result = dense(emit.alloc((run,), self.view.element), (self.ranks, share))
        self._read(sums, result, (share, slices * share))
        return self._as_input(result.buffer)

    def _shared(self, number: int, shape: tuple[int, ...]) -> View:
        op = tile.SharedOp(number, tile.buffer_type(shape, self.view.element, self.emit_.geometry.main))
        op.result.name_hint = ("values", "sums")[number]
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
