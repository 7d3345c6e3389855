"""Attention on a cache: key positions are cut over the slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from npuc.ir import graph, tile
from npuc.ir.tile import Limit, Step
from npuc.passes.lowering import spread_attention
from npuc.passes.lowering.caches import cache_slot
from npuc.passes.lowering.elementwise import MASKED, imm
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.function import FunctionLowering, element_type, is_spread
from npuc.passes.lowering.linear_units import to_stationary
from npuc.passes.lowering.movement import enter_rows, runtime
from npuc.passes.lowering.views import Nest, View, Walk, dense
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import PassFailedException


@dataclass(frozen=True)
class _Shape:
    """Sizes of one attention: heads per key head, rows, keys per slice."""

    kv_heads: int
    group: int
    rows: int
    keys: int
    key_size: int
    value_size: int

    def heads_at_once(self, low: FunctionLowering, bytes_per_element: int) -> int:
        """The most key heads whose keys fit half the stationary memory and whose scores fit a quarter."""
        geometry = low.emit.geometry
        separate = geometry.stationary != geometry.local
        budget = geometry.stationary_bytes // 2 if separate else geometry.local_bytes // 8
        for heads in range(self.kv_heads, 0, -1):
            loaded = heads * self.keys * max(self.key_size, self.value_size) * bytes_per_element
            scores = heads * self.group * self.rows * self.keys * 4
            if self.kv_heads % heads == 0 and loaded <= budget and scores <= geometry.local_bytes // 8:
                return heads
        raise PassFailedException(
            f"lower-to-tile: one head's attention over {self.keys} keys a slice and {self.rows} rows "
            f"does not fit on chip"
        )


def lower_attention(low: FunctionLowering, op: graph.AttentionOp) -> None:
    """softmax(q·kᵀ·scale + mask)·v for one row and one group of key heads at a time."""
    symbol = low.cache_symbols.get(op.keys)
    if symbol is None or op.mask is None:
        raise PassFailedException("lower-to-tile: attention without a cache or a mask has no lowering")
    if is_spread(op.query):
        spread_attention.lower(low, op, symbol)
        return
    query = low.view(op.query)
    mask = low.view(op.mask)
    batch, heads, rows, _ = query.shape
    shape = _shape_of(low, op)
    target = low.emit.replicated((batch, rows, heads, shape.value_size), element_type(op.result))
    at_once = shape.heads_at_once(low, element_bytes(query))
    outer, row = enter_rows(low)
    source = None if symbol in low.loaded else _cached(low, symbol, row)
    group: SSAValue | None = None
    if at_once < shape.kv_heads:
        loop = tile.ForOp(shape.kv_heads // at_once)
        loop.induction.name_hint = "heads"
        low.emit.add(loop)
        low.emit.block = loop.body.block
        group = loop.induction
    part = replace(shape, kv_heads=at_once)
    keys = low.loaded[symbol][0] if source is None else source.load_keys(low, part, group)
    scores = _scores(low, part, _moved(query, row, group, (0, 1, part)), keys)
    probabilities = _softmax(low, op, scores, _moved(mask, row, None, (0, 1, part)))
    values = low.loaded[symbol][1] if source is None else source.load_values(low, part, group)
    _weighted_sum(low, part, probabilities, values, _moved(target, row, group, (0, 2, part)))
    low.emit.block = outer
    low.define(op.result, target)


def prepare(low: FunctionLowering, op: graph.RowsOp) -> None:
    """Loads keys and values ahead of a loop over rows whose attention needs all of them in every iteration.

    They must be of one sequence, and leave half of the stationary memory free.
    """
    geometry = low.emit.geometry
    inputs: dict[SSAValue, SSAValue] = dict(zip(op.body.block.args, op.inputs, strict=True))
    for inner in op.body.block.ops:
        if not isinstance(inner, graph.AttentionOp) or low.batch > 1:
            continue
        symbol = low.cache_symbols.get(inputs.get(inner.keys, inner.keys))
        if symbol is None or geometry.stationary == geometry.local:
            continue
        shape = _shape_of(low, inner)
        source = _cached(low, symbol, enter_rows(low)[1])
        both = shape.kv_heads * shape.keys * (shape.key_size + shape.value_size) * element_bytes(source.keys)
        if both <= geometry.stationary_bytes // 2:
            low.loaded[symbol] = source.load_keys(low, shape, None), source.load_values(low, shape, None)


def _shape_of(low: FunctionLowering, op: graph.AttentionOp) -> _Shape:
    _, heads, rows, key_size = graph.static_shape(op.query)
    _, kv_heads, _, value_size = graph.static_shape(op.values)
    return _Shape(
        kv_heads, heads // kv_heads, rows, low.emit.geometry.chunk(low.length), key_size, value_size
    )


def _moved(view: View, row: SSAValue, group: SSAValue | None, dims: tuple[int, int, _Shape]) -> View:
    """The view of a row and a group of heads; `dims` = their dimensions, and the shape that has the group."""
    batch, heads, shape = dims
    terms = () if group is None else ((group, shape.kv_heads * shape.group * view.strides[heads]),)
    return view.moved(0, ((row, view.strides[batch]), *terms))


@dataclass(frozen=True)
class _Cached:
    """A row's keys and values [length, heads, size] in main memory; positions from `end` on hold nothing."""

    keys: View
    values: View
    end: SSAValue

    def load_keys(self, low: FunctionLowering, shape: _Shape, group: SSAValue | None) -> View:
        """Keys of a group of heads as the stationary operand [keys, heads, size]."""
        local = _load(low, self.keys, shape, shape.key_size, group)
        return to_stationary(low, local, Limit(0, 0, shape.keys), self.end)

    def load_values(self, low: FunctionLowering, shape: _Shape, group: SSAValue | None) -> View:
        """Values likewise, but turned, [heads, size, keys]: what is summed lies side by side."""
        local = _load(low, self.values, shape, shape.value_size, group)
        key, head, inner = local.strides
        own = (shape.kv_heads, shape.value_size, shape.keys)
        turned = replace(local, shape=own, strides=(head, inner, key), size=shape.keys)
        return to_stationary(low, turned, Limit(2, 0, shape.keys), self.end)


def _cached(low: FunctionLowering, symbol: str, row: SSAValue) -> _Cached:
    slot, end = runtime(low, "slot", row), runtime(low, "end", row)
    keys, values = (cache_slot(low, symbol, part, slot) for part in ("key", "value"))
    return _Cached(keys, values, end)


def _load(low: FunctionLowering, cache: View, shape: _Shape, size: int, group: SSAValue | None) -> View:
    """Keys or values [keys, heads, size] of a group of heads: slice s gets positions s·keys …"""
    emit, slices = low.emit, low.emit.geometry.slices
    terms = () if group is None else ((group, shape.kv_heads * cache.strides[1]),)
    own = (shape.keys, shape.kv_heads, size)
    local = dense(emit.alloc(own, cache.element), own)
    walks = {
        "src": Walk(cache.moved(0, terms), (shape.keys * cache.strides[0], *cache.strides)),
        "dst": Walk(local, (0, *local.strides), (1, 0, 0, 0)),
    }
    emit.emit_copy(Nest((slices, *own), walks))
    return local


def _scores(low: FunctionLowering, shape: _Shape, query: View, keys: View) -> View:
    """q · kᵀ → [heads, group, rows, keys] in f32."""
    emit = low.emit
    nest = (shape.kv_heads, shape.group, shape.rows, shape.keys)
    scores = dense(emit.alloc(nest, f32), nest)
    key, head, _ = keys.strides
    walks = {
        "stream": Walk(query, (shape.group * query.strides[1], *query.strides[1:3], 0, query.strides[3])),
        "stationary": Walk(keys, (head, 0, 0, key, 1)),
        "out": Walk(scores, (*scores.strides, 0)),
    }
    emit.emit_pass(Nest((*nest, shape.key_size), walks), reduce=(4,))
    return scores


def _softmax(low: FunctionLowering, op: graph.AttentionOp, scores: View, mask: View) -> View:
    """exp(score − maximum) / its sum over all slices' keys, rounded to the type of the result."""
    emit, nest = low.emit, scores.shape
    scale, softcap = float(op.scale.value.data), float(op.softcap.value.data)
    steps = [imm("mul", scale)]
    if softcap:
        steps = [imm("mul", scale / softcap), Step("tanh"), imm("mul", softcap)]
    steps.append(Step("select", "operand", MASKED))
    per_head = (0, 0) if mask.shape[1] == 1 else (mask.strides[1] * nest[1], mask.strides[1])
    mask = replace(mask, shape=nest, strides=(*per_head, *mask.strides[2:]))
    masked = dense(emit.alloc(nest, f32), nest)
    emit.elementwise(nest, scores, steps, masked, mask)
    top = _over_keys(low, masked, nest, "max")
    powers = dense(emit.alloc(nest, f32), nest)
    emit.elementwise(nest, masked, (Step("sub", "operand"), Step("exp")), powers, top)
    total = _over_keys(low, powers, nest, "add")
    probabilities = dense(emit.alloc(nest, element_type(op.result)), nest)
    emit.elementwise(nest, powers, (Step("div", "operand"),), probabilities, total)
    return probabilities


def _over_keys(low: FunctionLowering, view: View, nest: tuple[int, ...], kind: str) -> View:
    """Reduction over the keys of all slices → [heads, group, rows, 1] in f32, the same in every slice."""
    emit = low.emit
    out = emit.replicated((*nest[:-1], 1), f32)
    walks = {"stream": Walk(view, view.strides), "out": Walk(out, (*out.strides[:-1], 0))}
    chain = [Step(f"reduce_{kind}")]
    if emit.geometry.slices > 1:
        chain.append(Step(f"ring_{kind}"))
    emit.emit_pass(Nest(nest, walks), reduce=(3,), chain=chain)
    return out


def _weighted_sum(
    low: FunctionLowering, shape: _Shape, probabilities: View, values: View, target: View
) -> None:
    """target[row, head, :] = Σ p·v, each slice's part added round the ring."""
    own = (shape.kv_heads, shape.group, shape.rows, shape.value_size)
    head, inner, key = values.strides
    head_out = target.strides[2]
    walks = {
        "stream": Walk(probabilities, (*probabilities.strides[:3], 0, 1)),
        "stationary": Walk(values, (head, 0, 0, inner, key)),
        "out": Walk(target, (shape.group * head_out, head_out, target.strides[1], target.strides[3], 0)),
    }
    chain = (Step("ring_add"),) if low.emit.geometry.slices > 1 else ()
    low.emit.emit_pass(Nest((*own, shape.keys), walks), reduce=(4,), chain=chain)
