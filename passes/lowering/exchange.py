"""What ranks exchange through the main memory, and rows that every rank has a share of."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import gcd

from npuc.ir import dist, graph, tile
from npuc.ir.meetings import CHIP
from npuc.ir.tile_buffers import EXCHANGE_BUFFERS
from npuc.ir.tile_placements import GridAttr
from npuc.passes.lowering import grids
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.function import FunctionLowering, is_spread
from npuc.passes.lowering.grids import grid_of
from npuc.passes.lowering.movement import gather, store
from npuc.passes.lowering.spread import chunks, load_cut, load_rows
from npuc.passes.lowering.views import Nest, View, Walk, dense, on_slice
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.exceptions import PassFailedException

VALUES, SUMS = 0, 1
"""Numbers of the shared buffers of an all-reduce in two steps."""
FIRST, SECOND, THIRD = 2, 3, 4
"""Of those in one step, or between chips: of a function's first, and of the others in turn."""
PIECES, PIECE_SUMS = 5, 6
"""Of those in two steps between chips."""
AT_ONCE = 4
"""Rows that the ring brings together at a time take at most 1/AT_ONCE of the local memory."""


def lower_all_gather(low: FunctionLowering, op: dist.AllGatherOp) -> None:
    """Rows that are spread: the second of an all-reduce's two steps.

    Logits: each rank writes its columns; nobody reads them before all ranks are at their end.
    """
    view, dim = low.view(op.input), op.dim.value.data
    if is_spread(op.result) and dim == 1:
        target = low.fresh(op.result)
        low.define(op.result, gather_from_ranks(low, view, target, rank_of(low), CHIP, grid_of(op.input)))
        return
    if op.result not in low.destinations or not low.on_host(op.result) or dim != len(view.shape) - 1:
        raise PassFailedException("lower-to-tile: dist.all_gather is for the columns of results and for rows")
    target = low.destinations[op.result]
    store(low, view, target.moved(0, ((rank_of(low), view.size),)))
    low.values[op.result] = target


def lower_shard_slice(low: FunctionLowering, op: dist.ShardSliceOp) -> None:
    """A rank's rows of a tensor in main memory, cut or on a grid."""
    source, target = low.view(op.input), low.fresh(op.result)
    if op.dim.value.data != 1 or op.group_size != op.mesh.ranks or not low.on_host(op.input):
        raise PassFailedException("lower-to-tile: dist.shard_slice is for rows in main memory")
    own, grid = graph.static_shape(op.result)[1], grid_of(op.result)
    place = source.moved(0, ((rank_of(low), own * source.strides[1]),))
    if grid is None:
        load_cut(low, replace(place, shape=graph.static_shape(op.result)), target)
    else:
        grids.load(low.emit, place, target, grid)
    low.define(op.result, target)


def _store_rows(low: FunctionLowering, cut: View, target: View) -> None:
    """Writes the rows of a tensor [rows, size] that is cut to main memory, whole rows at a time.

    The ring brings some at a time together in all slices, or the DMA engine each in a slice of its own: what
    takes the machine less time.
    """
    low.emit.cheapest_of([partial(way, low, cut, target) for way in (_by_ring, _by_slices)], low.ranks)


def _by_ring(low: FunctionLowering, cut: View, target: View) -> View:
    rows, width = target.shape
    fitting = low.emit.geometry.local_bytes // AT_ONCE // (width * element_bytes(cut))
    at_once = max(n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or n <= fitting))
    for first in range(0, rows, at_once):
        some = replace(cut.moved(first * cut.strides[0]), shape=(at_once, cut.chunk))
        together = gather(low, some)
        place = target.moved(first * target.strides[0])
        walks = {"src": Walk(together, together.strides), "dst": Walk(place, target.strides)}
        low.emit.emit_copy(Nest((at_once, width), walks))
    return target


def _by_slices(low: FunctionLowering, cut: View, target: View) -> View:
    (rows, width), (row, step) = target.shape, cut.strides
    across = gcd(rows, low.emit.geometry.slices)
    each = rows // across
    own = dense(low.emit.alloc((each, width), cut.element), (each, width))
    for first, count, size in chunks(width, cut.chunk):
        walks = {
            "src": on_slice(Walk(cut, (across * row, row, 0, step), (0, 0, 1, 0)), first),
            "dst": Walk(own.moved(first * cut.chunk), (width, 0, cut.chunk, 1), (0, 1, 0, 0)),
        }
        low.emit.emit_copy(Nest((each, across, count, size), walks))
    walks = {
        "src": Walk(own, (width, 0, 1), (0, 1, 0)),
        "dst": Walk(target, (across * target.strides[0], *target.strides)),
    }
    low.emit.emit_copy(Nest((each, across, width), walks))
    return target


def gather_from_ranks(
    low: FunctionLowering, share: View, target: View, core: SSAValue, meet: str, grid: GridAttr | None = None
) -> View:
    """The rows of all ranks, spread, from every rank's share of them.

    Shares lie one after the other in main memory, whole row after whole row, where every slice finds its own.

    Args:
        share: [1, rows, size], cut; on a grid what a slice has of it.
        target: [1, ranks · rows / slices, size].
        core: the number of the rank on its chip.
        meet: who must have come before the rows are read.
        grid: on which the share lies.
    """
    rows, width = target.shape[1] * low.emit.geometry.slices, target.shape[2]
    own = share.shape[1] * (low.emit.geometry.slices // grid.columns.data if grid else 1)
    sums = exchange_buffer(low, SUMS, (1, rows, width), share.element)
    place = replace(sums.moved(0, ((core, own * width),)), shape=(own, width), strides=(width, 1))
    if grid is None:
        cut = replace(share, shape=share.shape[1:], strides=share.strides[1:])
        _store_rows(low, cut, place)
    else:
        grids.store(low.emit, share, place, grid)
    load_rows(low, sums, target, 1, meet=meet)
    return target


def exchange_number(low: FunctionLowering, number: int) -> int:
    """The number that a shared buffer has in the exchange of the tile of rows."""
    return low.strand * EXCHANGE_BUFFERS + number


def exchange_buffer(
    low: FunctionLowering, number: int, shape: tuple[int, ...], element: Attribute, *, system: bool = False
) -> View:
    """A buffer that ranks share."""
    kind = tile.buffer_type(shape, element, low.emit.geometry.main)
    op = tile.SharedOp(exchange_number(low, number), kind, system=system)
    op.result.name_hint = "sums" if number == SUMS else "values"
    low.emit.add(op)
    return dense(op.result, shape)


def rank_of(low: FunctionLowering) -> SSAValue:
    """The number of the rank."""
    op = tile.RankOp()
    op.result.name_hint = "rank"
    low.emit.add(op)
    return op.result
