"""Tensors whose rows are spread: row r lies in slice r mod S, as that slice's row r div S."""

from __future__ import annotations

from dataclasses import replace

from npuc.ir import graph, tile
from npuc.ir.tile_placements import HostAttr, SlicedAttr, SpreadAttr
from npuc.passes.lowering.function import FunctionLowering
from npuc.passes.lowering.views import Nest, View, Walk, dense, on_slice
from npuc.passes.placing import placement_of
from xdsl.dialects.builtin import MemRefType
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import PassFailedException


def lower_relayout(low: FunctionLowering, op: graph.RelayoutOp) -> None:
    """To spread rows from any placement but R, and back by way of main memory."""
    source, target = placement_of(op.input), placement_of(op.result)
    view = low.view(op.input)
    if isinstance(source, HostAttr) and isinstance(target, SpreadAttr):
        low.define(op.result, _load(low, op, view))
    elif isinstance(source, SlicedAttr) and isinstance(target, SpreadAttr):
        low.define(op.result, _from_cut(low, op, view))
    elif isinstance(source, SpreadAttr) and isinstance(target, HostAttr):
        low.define(op.result, _to_main(low, op, view))
    elif isinstance(source, SpreadAttr) and isinstance(target, SlicedAttr):
        cut = low.fresh(op.result)
        load_cut(low, _to_main(low, op, view), cut)
        low.define(op.result, cut)
    else:
        raise PassFailedException(f"lower-to-tile: no way from {op.input.type} to {op.result.type}")


def dim_of(value: SSAValue) -> int:
    """The row dimension of a spread tensor."""
    placement = placement_of(value)
    assert isinstance(placement, SpreadAttr)
    return placement.dim.data


def rows_nest(
    low: FunctionLowering, own: View, whole: View, dim: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Sizes, both views' strides and the slices' strides of a walk over all rows of a spread tensor.

    Args:
        own: what a slice has.
        whole: the tensor as one array of the same rank, elsewhere.
        dim: the row dimension; the slices are the loop around it.
    """
    slices = low.emit.geometry.slices
    size = (*own.shape[:dim], slices, *own.shape[dim:])
    mine = (*own.strides[:dim], 0, *own.strides[dim:])
    row = whole.strides[dim]
    theirs = (*whole.strides[:dim], row, slices * row, *whole.strides[dim + 1 :])
    along = tuple(int(d == dim) for d in range(len(size)))
    return size, mine, theirs, along


def gather_rows(low: FunctionLowering, own: View, dim: int) -> View:
    """All rows in every slice, by the ring."""
    shape = (*own.shape[:dim], own.shape[dim] * low.emit.geometry.slices, *own.shape[dim + 1 :])
    target = dense(low.emit.alloc(shape, own.element), shape)
    size, mine, theirs, along = rows_nest(low, own, target, dim)
    walks = {"stream": Walk(own, mine, along), "out": Walk(target, theirs)}
    low.emit.emit_pass(Nest(size, walks), ring_dim=dim)
    return target


def copy_rows(low: FunctionLowering, own: View, dim: int) -> View:
    """All rows in the first slice, by the DMA engine."""
    shape = (*own.shape[:dim], own.shape[dim] * low.emit.geometry.slices, *own.shape[dim + 1 :])
    target = dense(low.emit.alloc(shape, own.element), shape)
    size, mine, theirs, along = rows_nest(low, own, target, dim)
    low.emit.emit_copy(Nest(size, {"src": Walk(own, mine, along), "dst": Walk(target, theirs)}))
    return target


def load_rows(low: FunctionLowering, source: View, own: View, dim: int, *, meet: str = "") -> None:
    """Copies every slice's rows from an array in main memory."""
    size, mine, theirs, along = rows_nest(low, own, source, dim)
    walks = {"src": Walk(source, theirs), "dst": Walk(own, mine, along)}
    low.emit.emit_copy(Nest(size, walks), meet=meet)


def scratch(low: FunctionLowering, shape: tuple[int, ...], like: View) -> View:
    """A buffer in main memory."""
    stored = tile.AllocOp(shape, like.element, low.emit.geometry.main)
    stored.result.name_hint = low.emit.hint
    low.emit.add(stored)
    return dense(stored.result, shape)


def _load(low: FunctionLowering, op: graph.RelayoutOp, view: View) -> View:
    """H → S."""
    target = low.fresh(op.result)
    staged = target
    if view.element != target.element:
        staged = low.emit.replicated(target.shape, view.element)
    load_rows(low, view, staged, dim_of(op.result))
    if staged is not target:
        low.emit.copy_view(staged, target)
    return target


def _from_cut(low: FunctionLowering, op: graph.RelayoutOp, view: View) -> View:
    """L → S by way of main memory, where every slice's part is one run: [slices, rows, chunk]."""
    slices, chunk, dim = low.emit.geometry.slices, view.chunk, dim_of(op.result)
    lead, target = view.shape[:-1], low.fresh(op.result)
    stored = scratch(low, (slices, *lead, chunk), view)
    walks = {
        "src": Walk(view, (0, *view.strides), (1, *([0] * len(view.shape)))),
        "dst": Walk(stored, stored.strides),
    }
    low.emit.emit_copy(Nest((slices, *view.shape), walks))
    whole, *rest = stored.strides
    for first, count, width in chunks(view.size, chunk):
        own = replace(
            target.moved(first * chunk * target.strides[-1]),
            shape=(*target.shape[:-1], count, width),
            strides=(*target.strides[:-1], chunk * target.strides[-1], target.strides[-1]),
        )
        cut = replace(
            stored.moved(first * whole),
            shape=(*lead, count, width),
            strides=(*rest[:-1], whole, 1),
        )
        load_rows(low, cut, own, dim)
    return target


def _to_main(low: FunctionLowering, op: graph.RelayoutOp, view: View) -> View:
    """S → H, row after row."""
    dim, stored = dim_of(op.input), scratch(low, graph.static_shape(op.input), view)
    size, mine, theirs, along = rows_nest(low, view, stored, dim)
    low.emit.emit_copy(Nest(size, {"src": Walk(view, mine, along), "dst": Walk(stored, theirs)}))
    return stored


def load_cut(low: FunctionLowering, source: View, target: View) -> None:
    """Loads a tensor from main memory, each slice its chunk of the last dimension."""
    slices, chunk, shape = low.emit.geometry.slices, target.chunk, source.shape
    zeros = (0,) * len(shape[:-1])
    if shape[-1] < slices * chunk:
        low.emit.fill(target, 0.0)
    for first, count, width in chunks(shape[-1], chunk):
        walks = {
            "src": Walk(source.moved(first * chunk), (*source.strides[:-1], chunk, 1)),
            "dst": Walk(target, (*target.strides[:-1], 0, 1), (*zeros, 1, 0)),
        }
        if first:
            walks["dst"] = on_slice(walks["dst"], first)
        low.emit.emit_copy(Nest((*shape[:-1], count, width), walks))


def chunks(size: int, chunk: int) -> list[tuple[int, int, int]]:
    """Slices' chunks of a dimension as (first, how many, of which width): whole ones, then the rest."""
    whole, rest = divmod(size, chunk)
    found = [(0, whole, chunk)] if whole else []
    return [*found, (whole, 1, rest)] if rest else found


def lower_embedding(low: FunctionLowering, op: graph.EmbeddingOp) -> None:
    """A gather of table rows, one for every slice at a time."""
    _, table = low.weight(op.table)
    ids, target = low.view(op.ids), low.fresh(op.result)
    assert isinstance(table.type, MemRefType)
    _, width = table.type.get_shape()
    slices, (_, rows, size) = low.emit.geometry.slices, target.shape
    for row in range(rows):
        walks = {
            "src": Walk(dense(table, (width,)), (0, 1)),
            "dst": Walk(target.moved(row * target.strides[1]), (0, target.strides[2]), (1, 0)),
            "index": Walk(ids.moved(row * slices * ids.strides[-1]), (ids.strides[-1],)),
        }
        low.emit.emit_copy(Nest((slices, size), walks), index_dim=0, index_scale=width)
    low.define(op.result, target)
