"""Lowering rules of operations that move or relabel elements."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from npuc.ir import graph, tile
from npuc.ir.shapes import row_major_strides
from npuc.passes.constants import constant_of
from npuc.passes.lowering import grids, spread
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.function import FunctionLowering, element_type, is_spread, nest_over
from npuc.passes.lowering.grids import grid_of
from npuc.passes.lowering.views import Nest, View, Walk, dense, on_slice, reshape_strides
from xdsl.dialects.builtin import MemRefType, TensorType, f32
from xdsl.ir import Block, SSAValue
from xdsl.utils.exceptions import PassFailedException

GATHERED = 8
"""A tensor is brought together in every slice if it takes at most 1/GATHERED of the local memory."""


def lower_reshape(low: FunctionLowering, op: graph.ReshapeOp) -> None:
    """Free where the strides allow; otherwise the elements move to a row-major buffer first."""
    view = low.view(op.input)
    shape = low.own_shape(op.result) or (1,)
    if view.chunk:
        shape = (*shape[:-1], view.chunk)
    strides = reshape_strides(view.shape, view.strides, shape)
    if strides is None:
        moved = low.emit.like(view.logical_shape, view.element, view.chunk)
        low.emit.copy_view(view, moved)
        view, strides = moved, reshape_strides(moved.shape, moved.strides, shape)
        assert strides is not None
    size = view.size if view.chunk else shape[-1]
    low.define(op.result, replace(view, shape=shape, strides=strides, size=size))


def lower_broadcast(low: FunctionLowering, op: graph.BroadcastOp) -> None:
    """Stride 0 along repeated dimensions."""
    view = low.view(op.input)
    shape = low.own_shape(op.result)
    own = (*shape[:-1], view.chunk) if view.chunk else shape
    low.define(op.result, replace(view, shape=own, strides=view.broadcast_strides(own), size=shape[-1]))


def lower_transpose(low: FunctionLowering, op: graph.TransposeOp) -> None:
    """Permuted strides."""
    view, perm = low.view(op.input), graph.ints(op.perm)
    shape = tuple(view.shape[p] for p in perm)
    size = view.size if view.chunk else shape[-1]
    low.define(op.result, replace(view, shape=shape, strides=tuple(view.strides[p] for p in perm), size=size))


def lower_slice(low: FunctionLowering, op: graph.SliceOp) -> None:
    """An offset and scaled strides."""
    view = low.view(op.input)
    starts, steps = graph.ints(op.starts), graph.ints(op.steps)
    shape = low.own_shape(op.result)
    offset = sum(start * stride for start, stride in zip(starts, view.strides, strict=True))
    strides = tuple(stride * step for stride, step in zip(view.strides, steps, strict=True))
    own = (*shape[:-1], view.chunk) if view.chunk else shape
    low.define(op.result, replace(view.moved(offset), shape=own, strides=strides, size=shape[-1]))


def lower_concat(low: FunctionLowering, op: graph.ConcatOp) -> None:
    """Each input copied to its part of a new buffer."""
    target, dim = low.fresh(op.result), op.dim.value.data
    if target.chunk:
        raise PassFailedException("lower-to-tile: graph.concat of sliced tensors has no lowering")
    if len(set(op.inputs)) == 1:
        _repeat(low, low.view(op.inputs[0]), target, dim)
        low.define(op.result, target)
        return
    position = 0
    for value in op.inputs:
        if 0 in graph.static_shape(value):
            continue
        view = low.view(value)
        part = replace(target.moved(position * target.strides[dim]), shape=view.shape)
        low.emit.copy_view(view, part)
        position += view.shape[dim]
    low.define(op.result, target)


def _repeat(low: FunctionLowering, view: View, target: View, dim: int) -> None:
    """One tensor several times along a dimension, in one pass: each write may be small and in between."""
    size, count = view.shape[dim], target.shape[dim] // view.shape[dim]
    step = target.strides[dim]
    once = replace(view, shape=_inserted(view.shape, dim, 1), strides=_inserted(view.strides, dim, 0))
    shape = (*target.shape[:dim], count, size, *target.shape[dim + 1 :])
    strides = _inserted(target.strides, dim, size * step)
    low.emit.copy_view(once, replace(target, shape=shape, strides=strides))


def _inserted(values: tuple[int, ...], at: int, value: int) -> tuple[int, ...]:
    return (*values[:at], value, *values[at:])


def lower_pad(low: FunctionLowering, op: graph.PadOp) -> None:
    """A filled buffer with the input copied into its middle."""
    view, target = low.view(op.input), low.fresh(op.result)
    low.emit.fill(target, float(op.value.value.data))
    inner = sum(n * s for n, s in zip(graph.ints(op.low), target.strides, strict=True))
    low.emit.copy_view(view, replace(target.moved(inner), shape=view.shape))
    low.define(op.result, target)


def lower_constant(low: FunctionLowering, op: graph.ConstantOp) -> None:
    """A one-element constant used where no immediate fits: filled."""
    target = low.fresh(op.result)
    value = constant_of(op.result)
    assert value is not None
    low.emit.fill(target, value)
    low.define(op.result, target)


def lower_relayout(low: FunctionLowering, op: graph.RelayoutOp) -> None:
    """Between main memory, replicated and sliced, and from the first two to a grid."""
    if is_spread(op.input) or is_spread(op.result):
        spread.lower_relayout(low, op)
        return
    if low.on_host(op.result):
        _store_indices(low, op)
        return
    view, grid = low.view(op.input), grid_of(op.result)
    target = low.fresh(op.result)
    if grid is not None and not view.chunk:
        grids.load(low.emit, view, target, grid, everywhere=not low.on_host(op.input))
    elif low.on_host(op.input):
        _load_input(low, view, target)
    elif view.chunk and not target.chunk:
        low.define(op.result, gather(low, view))
        return
    elif target.chunk and not view.chunk:
        scatter(low, view, target)
    else:
        raise PassFailedException(f"lower-to-tile: no way from {op.input.type} to {op.result.type}")
    low.define(op.result, target)


def gather(low: FunctionLowering, view: View) -> View:
    """L → R: the switch broadcasts every slice's chunk to all slices, row after row or all rows at a time."""
    emit, slices = low.emit, low.emit.geometry.slices
    if slices == 1:
        return replace(view, shape=view.logical_shape, chunk=0)
    lead = view.shape[:-1]
    padded = dense(emit.alloc((*lead, slices * view.chunk), view.element), (*lead, slices * view.chunk))
    zeros = (0,) * len(lead)
    walks = {
        "stream": Walk(view, (*view.strides[:-1], 0, 1), (*zeros, 1, 0)),
        "out": Walk(padded, (*padded.strides[:-1], view.chunk, 1)),
    }
    nest, inner = Nest((*lead, slices, view.chunk), walks), len(lead)

    def row_after_row() -> View:
        emit.emit_pass(nest, ring_dim=inner)
        return replace(padded, shape=view.logical_shape, size=view.size)

    def all_rows() -> View:
        emit.emit_pass(nest.permuted((inner, *range(inner), inner + 1)), ring_dim=0)
        return replace(padded, shape=view.logical_shape, size=view.size)

    return emit.cheapest_of([row_after_row, all_rows], low.ranks)


def scatter(low: FunctionLowering, view: View, target: View) -> None:
    """R → L: slice s takes elements s·chunk …; the padding is filled with zeros."""
    emit, chunk = low.emit, target.chunk
    if emit.geometry.slices == 1 and chunk == view.size:
        emit.copy_view(view, target)
        return
    whole, rest = divmod(view.size, chunk)
    if whole < emit.geometry.slices:
        emit.fill(target, 0.0)
    lead, source, result = view.shape[:-1], view.strides, target.strides
    zeros = (0,) * len(lead)
    if whole:
        walks = {
            "src": Walk(view, (*source[:-1], chunk * source[-1], source[-1])),
            "dst": Walk(target, (*result[:-1], 0, 1), (*zeros, 1, 0)),
        }
        emit.emit_copy(Nest((*lead, whole, chunk), walks))
    if rest:
        walks = {
            "src": Walk(view.moved(whole * chunk * source[-1]), source),
            "dst": Walk(target, result),
        }
        last = replace(walks["dst"], slices=())
        emit.emit_copy(Nest((*lead, rest), {"src": walks["src"], "dst": on_slice(last, whole)}))


def _load_input(low: FunctionLowering, view: View, target: View) -> None:
    """H → R: every slice gets a copy."""
    if target.chunk:
        raise PassFailedException("lower-to-tile: program inputs are loaded replicated")
    slices = low.emit.geometry.slices
    count = prod(view.shape)
    staged = target
    if view.element != target.element:
        staged = dense(low.emit.alloc((count + count % 2,), view.element), target.shape)
    walks = {
        "src": Walk(dense(view.buffer, (count,)), (0, 1)),
        "dst": Walk(dense(staged.buffer, (count,)), (0, 1), (1, 0)),
    }
    low.emit.emit_copy(Nest((slices, count), walks))
    if staged is not target:
        low.emit.copy_view(staged, target)


def _store_indices(low: FunctionLowering, op: graph.RelayoutOp) -> None:
    """R → H: computed indices, from the first slice to scratch memory, where a gather reads them."""
    kind = op.result.type
    assert isinstance(kind, TensorType)
    view, shape, emit = low.view(op.input), kind.get_shape(), low.emit
    staged = emit.replicated(shape, kind.element_type)
    emit.copy_view(view, staged)
    stored = tile.AllocOp(shape, kind.element_type, emit.geometry.main)
    stored.result.name_hint = emit.hint
    emit.add(stored)
    target = dense(stored.result, shape)
    emit.emit_copy(
        Nest(tuple(shape), {"src": Walk(staged, staged.strides), "dst": Walk(target, target.strides)})
    )
    low.define(op.result, target)


def store_result(low: FunctionLowering, op: graph.RelayoutOp) -> None:
    """L → H: the logits."""
    target = low.values[op.result]
    assert isinstance(target, View)
    store(low, low.view(op.input), target)


def store(low: FunctionLowering, view: View, target: View) -> None:
    """A sliced tensor to main memory: from every slice its chunk, or whole rows, brought together first.

    What is no whole request is slow to write, so the machine's costs decide.
    """

    def in_chunks() -> View:
        _store_chunks(low, view, target)
        return target

    def in_rows() -> View:
        together = gather(low, view)
        walks = {"src": Walk(together, together.strides), "dst": Walk(target, target.strides)}
        low.emit.emit_copy(Nest(together.shape, walks))
        return target

    whole = prod(view.shape) * low.emit.geometry.slices * element_bytes(view)
    fits = GATHERED * whole <= low.emit.geometry.local_bytes
    low.emit.cheapest_of([in_chunks, in_rows] if fits else [in_chunks], low.ranks)


def _store_chunks(low: FunctionLowering, view: View, target: View) -> None:
    lead, chunk = view.shape[:-1], view.chunk
    zeros = (0,) * len(lead)
    whole, rest = divmod(view.size, chunk)
    if whole:
        walks = {
            "src": Walk(view, (*view.strides[:-1], 0, 1), (*zeros, 1, 0)),
            "dst": Walk(target, (*target.strides[:-1], chunk, 1)),
        }
        low.emit.emit_copy(Nest((*lead, whole, chunk), walks))
    if rest:
        walks = {
            "src": on_slice(Walk(view, view.strides), whole),
            "dst": Walk(target.moved(whole * chunk), target.strides),
        }
        low.emit.emit_copy(Nest((*lead, rest), walks))


def lower_embedding(low: FunctionLowering, op: graph.EmbeddingOp) -> None:
    """A gather of table rows, each cut over the slices."""
    if is_spread(op.result):
        spread.lower_embedding(low, op)
        return
    _, table = low.weight(op.table)
    ids, target = low.view(op.ids), low.fresh(op.result)
    assert isinstance(table.type, MemRefType)
    _, width = table.type.get_shape()
    rows, slices, chunk = prod(graph.static_shape(op.ids)), low.emit.geometry.slices, target.chunk
    walks = {
        "src": Walk(dense(table, (width,)), (0, chunk, 1)),
        "dst": Walk(dense(target.buffer, (rows, chunk)), (chunk, 0, 1), (0, 1, 0)),
        "index": Walk(ids, (1,)),
    }
    low.emit.emit_copy(Nest((rows, slices, chunk), walks), index_dim=0, index_scale=width)
    low.define(op.result, target)


def lower_select_rows(low: FunctionLowering, op: graph.SelectRowsOp) -> None:
    """Each batch row's last valid position, or all rows as they are."""
    view = low.view(op.input)
    if op.input.type == op.result.type:
        low.define(op.result, view)
        return
    target = low.fresh(op.result)
    slices, chunk = low.emit.geometry.slices, view.chunk
    outer, row = enter_rows(low)
    last = runtime(low, "last", row)
    source = view.moved(0, ((row, view.strides[0]), (last, view.strides[1])))
    result = target.moved(0, ((row, target.strides[0]),))
    if low.on_host(op.input):
        one_row = (replace(v, shape=v.shape[-1:], strides=v.strides[-1:]) for v in (source, result))
        spread.load_cut(low, *one_row)
    else:
        walks = {"src": Walk(source, (0, 1), (1, 0)), "dst": Walk(result, (0, 1), (1, 0))}
        low.emit.emit_copy(Nest((slices, chunk), walks))
    low.emit.block = outer
    low.define(op.result, target)


def enter_rows(low: FunctionLowering) -> tuple[Block, SSAValue]:
    """Opens a loop over batch rows (none for one row); returns the outer block and the row index."""
    outer = low.emit.block
    if low.batch == 1:
        first = low.emit.constant(0)
        first.name_hint = "row"
        return outer, first
    loop = tile.ForOp(low.batch)
    loop.induction.name_hint = "row"
    low.emit.add(loop)
    low.emit.block = loop.body.block
    return outer, loop.induction


def runtime(low: FunctionLowering, parameter: str, row: SSAValue) -> SSAValue:
    """A runtime parameter of a row."""
    op = tile.RuntimeOp(parameter, row)
    op.result.name_hint = parameter
    low.emit.add(op)
    return op.result


def lower_rope(low: FunctionLowering, op: graph.RopeOp) -> None:
    """x · cos + rotate(x) · sin on the rotated part; the rest of each head is moved unchanged."""
    x, cos, sin = low.view(op.input), low.view(op.cos), low.view(op.sin)
    batch, heads, rows, size = x.shape
    rotated, interleaved = cos.shape[-1], bool(op.interleaved.value.data)
    # The result is stored [batch, rows, heads, size], as attention and the cache read it.
    stored = low.emit.replicated((batch, rows, heads, size), element_type(op.result))
    order = row_major_strides((batch, rows, heads, size))
    target = replace(stored, shape=x.shape, strides=(order[0], order[2], order[1], order[3]), size=size)
    product, turned = (low.emit.replicated(x.shape, f32) for _ in range(2))
    if rotated < size:
        low.emit.copy_view(x, product)
    parts = [replace(v, shape=(batch, heads, rows, rotated), size=rotated) for v in (x, product, turned)]
    step = tile.Step("mul", "operand")
    low.emit.elementwise(parts[0].shape, parts[0], (step,), parts[1], _over_heads(cos))
    signed = _over_heads(_signed(low, sin, interleaved=interleaved))
    swapped, factor, result = (_pairs(v, interleaved=interleaved) for v in (parts[0], signed, parts[2]))
    low.emit.elementwise(result.shape, _reversed(swapped, 4 if interleaved else 3), (step,), result, factor)
    # A head is written at once: its rotated part alone may be less than the memory writes.
    mask = tile.Limit(3, rotated) if rotated < size else None
    nest = nest_over(x.shape, stream=turned, operand=product, out=target)
    low.emit.emit_pass(nest, mask=mask, chain=(tile.Step("add", "operand"),))
    low.define(op.result, target)


def _signed(low: FunctionLowering, sin: View, *, interleaved: bool) -> View:
    """sin with the signs of rotate, which maps a pair (a, b) to (−b, a): first of a pair −sin, second sin.

    One pass for both, since half a pair may be less than the memory writes at once: the mask keeps the first
    elements, and −2 · sin + sin is exactly −sin.
    """
    signed = low.emit.replicated(sin.shape, f32)
    stream, result = (_pairs(view, interleaved=interleaved) for view in (sin, signed))
    pair = len(stream.shape) - (1 if interleaved else 2)
    nest = nest_over(result.shape, stream=stream, operand=stream, out=result)
    steps = (tile.Step("mul", "imm", -2.0), tile.Step("add", "operand"))
    low.emit.emit_pass(nest, mask=tile.Limit(pair, 1), chain=steps)
    return signed


def _pairs(view: View, *, interleaved: bool) -> View:
    """The last dimension split into pairs: [2, half], or [half, 2] where they are neighbours."""
    half, step = view.shape[-1] // 2, view.strides[-1]
    sizes, strides = ((half, 2), (2 * step, step)) if interleaved else ((2, half), (half * step, step))
    return replace(view, shape=(*view.shape[:-1], *sizes), strides=(*view.strides[:-1], *strides))


def _reversed(view: View, dim: int) -> View:
    """The view with a dimension walked backwards."""
    step = view.strides[dim]
    strides = (*view.strides[:dim], -step, *view.strides[dim + 1 :])
    return replace(view.moved((view.shape[dim] - 1) * step), strides=strides)


def _over_heads(table: View) -> View:
    """A table [batch, rows, size] for all heads: [batch, 1, rows, size]."""
    return replace(table, shape=_inserted(table.shape, 1, 1), strides=_inserted(table.strides, 1, 0))
