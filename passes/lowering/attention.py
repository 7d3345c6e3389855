"""Attention on a cache: key positions are cut over the slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from npuc.ir import graph, tile
from npuc.ir.tile import Limit, Step
from npuc.passes.lowering.caches import cache_slot
from npuc.passes.lowering.elementwise import imm
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.function import FunctionLowering, element_type
from npuc.passes.lowering.linear import to_stationary
from npuc.passes.lowering.movement import enter_rows, runtime
from npuc.passes.lowering.views import Nest, View, Walk, dense
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import PassFailedException

# Finite, so that a row with nothing to attend to stays finite.
MASKED = -3.0e38


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
    query = low.view(op.query)
    mask = low.view(op.mask)
    batch, heads, rows, key_size = query.shape
    _, kv_heads, _, value_size = graph.static_shape(op.values)
    keys = low.emit.geometry.chunk(low.length)
    shape = _Shape(kv_heads, heads // kv_heads, rows, keys, key_size, value_size)
    target = low.emit.replicated((batch, rows, heads, value_size), element_type(op.result))
    at_once = shape.heads_at_once(low, element_bytes(query))
    outer, row = enter_rows(low)
    slot, end = runtime(low, "slot", row), runtime(low, "end", row)
    keys_at, values_at = (cache_slot(low, symbol, part, slot) for part in ("key", "value"))
    group: SSAValue | None = None
    if at_once < kv_heads:
        loop = tile.ForOp(kv_heads // at_once)
        loop.induction.name_hint = "heads"
        low.emit.add(loop)
        low.emit.block = loop.body.block
        group = loop.induction
    part = replace(shape, kv_heads=at_once)
    _attend(low, op, part, (query, keys_at, values_at, mask, target), (row, end, group))
    low.emit.block = outer
    low.define(op.result, target)


def _attend(
    low: FunctionLowering,
    op: graph.AttentionOp,
    shape: _Shape,
    views: tuple[View, View, View, View, View],
    indices: tuple[SSAValue, SSAValue, SSAValue | None],
) -> None:
    """One row and one group of key heads."""
    query, keys, values, mask, target = views
    row, end, group = indices

    def at(view: View, row_stride: int, group_stride: int) -> View:
        terms = [] if row_stride == 0 else [(row, row_stride)]
        return view.moved(0, (*terms, *([] if group is None else [(group, group_stride)])))

    heads = shape.kv_heads
    per_group = heads * shape.group
    q = at(query, query.strides[0], per_group * query.strides[1])
    scores = _scores(low, shape, q, at(keys, 0, heads * keys.strides[1]), end)
    powers, total = _softmax(low, op, scores, at(mask, mask.strides[0], 0))
    result = at(target, target.strides[0], per_group * target.strides[2])
    probabilities = dense(low.emit.alloc(powers.shape, element_type(op.result)), powers.shape)
    low.emit.elementwise(powers.shape, powers, (Step("div", "operand"),), probabilities, total)
    _weighted_sum(low, shape, probabilities, at(values, 0, heads * values.strides[1]), end, result)


def _load(low: FunctionLowering, cache: View, shape: _Shape, size: int) -> View:
    """Keys or values [keys, heads, size] of some heads: slice s gets positions s·keys …"""
    emit, slices = low.emit, low.emit.geometry.slices
    own = (shape.keys, shape.kv_heads, size)
    local = dense(emit.alloc(own, cache.element), own)
    walks = {
        "src": Walk(cache, (shape.keys * cache.strides[0], *cache.strides)),
        "dst": Walk(local, (0, *local.strides), (1, 0, 0, 0)),
    }
    emit.emit_copy(Nest((slices, *own), walks))
    return local


def _scores(low: FunctionLowering, shape: _Shape, query: View, keys: View, end: SSAValue) -> View:
    """q · kᵀ → [heads, group, rows, keys] in f32; keys of positions ≥ end are zero."""
    emit = low.emit
    loaded = to_stationary(low, _load(low, keys, shape, shape.key_size), Limit(0, 0, shape.keys), end)
    nest = (shape.kv_heads, shape.group, shape.rows, shape.keys)
    scores = dense(emit.alloc(nest, f32), nest)
    key, head, _ = loaded.strides
    walks = {
        "stream": Walk(query, (shape.group * query.strides[1], *query.strides[1:3], 0, query.strides[3])),
        "stationary": Walk(loaded, (head, 0, 0, key, 1)),
        "out": Walk(scores, (*scores.strides, 0)),
    }
    emit.emit_pass(Nest((*nest, shape.key_size), walks), reduce=(4,))
    return scores


def _softmax(low: FunctionLowering, op: graph.AttentionOp, scores: View, mask: View) -> tuple[View, View]:
    """exp(score − maximum) and their sums, over all slices' keys, in f32."""
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
    return powers, _over_keys(low, powers, nest, "add")


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
    low: FunctionLowering, shape: _Shape, probabilities: View, values: View, end: SSAValue, target: View
) -> None:
    """target[row, head, :] = Σ p·v, each slice's part added round the ring.

    Values are turned on their way to the stationary memory, [heads, size, keys]: what a product sums lies
    side by side there, as the multipliers want it.
    """
    local = _load(low, values, shape, shape.value_size)
    key, head, inner = local.strides
    turned = replace(
        local,
        shape=(shape.kv_heads, shape.value_size, shape.keys),
        strides=(head, inner, key),
        size=shape.keys,
    )
    loaded = to_stationary(low, turned, Limit(2, 0, shape.keys), end)
    own = (shape.kv_heads, shape.group, shape.rows, shape.value_size)
    head, inner, key = loaded.strides
    head_out = target.strides[2]
    walks = {
        "stream": Walk(probabilities, (*probabilities.strides[:3], 0, 1)),
        "stationary": Walk(loaded, (head, 0, 0, inner, key)),
        "out": Walk(target, (shape.group * head_out, head_out, target.strides[1], target.strides[3], 0)),
    }
    chain = (Step("ring_add"),) if low.emit.geometry.slices > 1 else ()
    low.emit.emit_pass(Nest((*own, shape.keys), walks), reduce=(4,), chain=chain)
