"""Cache update and attention: key positions are cut over the slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

from npuc.ir import graph, tile
from npuc.ir.tile import Limit, Step
from npuc.passes.lowering.elementwise import imm
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.function import FunctionLowering, element_type
from npuc.passes.lowering.linear import to_stationary
from npuc.passes.lowering.movement import enter_rows, gather, on_slice, runtime
from npuc.passes.lowering.views import Nest, View, Walk, dense
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import PassFailedException

# Finite, so that a row with nothing to attend to stays finite.
MASKED = -3.0e38


def lower_kv_update(low: FunctionLowering, op: graph.KvUpdateOp) -> None:
    """Writes each row's valid new keys and values to its slot at its position."""
    symbol = op.cache.string_value()
    views = {"key": low.view(op.key), "value": low.view(op.value)}
    for part, view in views.items():
        declared = low.caches[symbol]
        size = (declared.key_type if part == "key" else declared.value_type).get_shape()[2]
        if view.chunk and view.chunk % size and size % view.chunk:
            views[part] = gather(low, view)  # chunks and heads do not divide each other
    low.cache_symbols.update(dict.fromkeys(op.results, symbol))
    outer, row = enter_rows(low)
    slot, position, valid = (runtime(low, name, row) for name in ("slot", "position", "valid"))
    for part, view in views.items():
        cache = _slot(low, symbol, part, slot)
        heads, _, size = cache.shape
        source = view.moved(0, ((row, view.strides[0]),))
        target = cache.moved(0, ((position, size),))
        for nest in _cache_writes(source, target, heads, size):
            low.emit.emit_copy(nest, limit=valid)
    low.emit.block = outer


def _cache_writes(source: View, target: View, heads: int, size: int) -> list[Nest]:
    """Copies of one row's tokens to [heads, length, size], from heads apart, flat, or cut over the slices."""
    step, head_stride = size, target.strides[0]
    if len(source.shape) == 4:
        _, _, rows, _ = source.shape
        _, head, token, inner = source.strides
        walks = {"src": Walk(source, (token, head, inner)), "dst": Walk(target, (step, head_stride, 1))}
        return [Nest((rows, heads, size), walks)]
    _, rows, _ = source.shape
    _, token, inner = source.strides
    if not source.chunk:
        walks = {
            "src": Walk(source, (token, size * inner, inner)),
            "dst": Walk(target, (step, head_stride, 1)),
        }
        return [Nest((rows, heads, size), walks)]
    if size % source.chunk == 0:
        parts = size // source.chunk
        walks = {
            "src": Walk(source, (token, 0, 0, 1), (0, parts, 1, 0)),
            "dst": Walk(target, (step, head_stride, source.chunk, 1)),
        }
        return [Nest((rows, heads, parts, source.chunk), walks)]
    per_slice = source.chunk // size
    whole, rest = divmod(heads, per_slice)
    nests: list[Nest] = []
    for first, slices, held in ((0, whole, per_slice), (whole, 1, rest)):
        if slices and held:
            walks = {
                "src": on_slice(Walk(source, (token, 0, size, 1), (0, 1, 0, 0)), first),
                "dst": Walk(
                    target.moved(first * per_slice * head_stride),
                    (step, per_slice * head_stride, head_stride, 1),
                ),
            }
            nests.append(Nest((rows, slices, held, size), walks))
    return nests


def _slot(low: FunctionLowering, symbol: str, part: str, slot: SSAValue) -> View:
    """Keys or values [heads, length, size] of a slot of the current layer."""
    declared = low.caches[symbol]
    kind = declared.key_type if part == "key" else declared.value_type
    assert low.layer is not None
    op = tile.CacheSlotOp(symbol, part, kind, low.layer, slot)
    op.result.name_hint = f"{part}s"
    low.emit.add(op)
    return dense(op.result, kind.get_shape())


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
    keys_at, values_at = (_slot(low, symbol, part, slot) for part in ("key", "value"))
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
    views: tuple[View, View, View, View | None, View],
    indices: tuple[SSAValue, SSAValue, SSAValue | None],
) -> None:
    """One row and one group of key heads."""
    query, keys, values, mask, target = views
    row, end, group = indices
    emit = low.emit
    heads = shape.kv_heads

    def at(view: View, row_stride: int, group_stride: int) -> View:
        terms = [] if row_stride == 0 else [(row, row_stride)]
        return view.moved(0, (*terms, *([] if group is None else [(group, group_stride)])))

    per_group = heads * shape.group
    q = at(query, query.strides[0], per_group * query.strides[1])
    nest = (heads, shape.group, shape.rows, shape.keys)
    scores = dense(emit.alloc(nest, f32), nest)
    loaded = _load(low, at(keys, 0, heads * keys.strides[0]), shape, shape.key_size, end)
    size = (*nest, shape.key_size)
    walks = {
        "stream": Walk(q, (shape.group * q.strides[1], q.strides[1], q.strides[2], 0, q.strides[3])),
        "stationary": Walk(loaded, (loaded.strides[0], 0, 0, loaded.strides[1], 1)),
        "out": Walk(scores, (*scores.strides, 0)),
    }
    emit.emit_pass(Nest(size, walks), reduce=(4,))
    probabilities = _softmax(low, op, scores, nest, at(mask, mask.strides[0], 0) if mask else None)
    _weighted_sum(low, shape, probabilities, at(values, 0, heads * values.strides[0]), end,
                  at(target, target.strides[0], per_group * target.strides[2]))  # fmt: skip


def _load(low: FunctionLowering, cache: View, shape: _Shape, size: int, end: SSAValue) -> View:
    """Keys or values of some heads: slice s gets positions s·keys …, positions ≥ end become zero."""
    emit, slices = low.emit, low.emit.geometry.slices
    own = (shape.kv_heads, shape.keys, size)
    local = dense(emit.alloc(own, cache.element), own)
    walks = {
        "src": Walk(cache, (shape.keys * size, cache.strides[0], size, 1)),
        "dst": Walk(local, (0, *local.strides), (1, 0, 0, 0)),
    }
    emit.emit_copy(Nest((slices, *own), walks))
    return to_stationary(low, local, Limit(1, 0, shape.keys), end)


def _softmax(
    low: FunctionLowering,
    op: graph.AttentionOp,
    scores: View,
    nest: tuple[int, ...],
    mask: View | None,
) -> tuple[View, View]:
    """Unnormalised probabilities and their sums, over all slices' keys."""
    emit = low.emit
    scale, softcap = float(op.scale.value.data), float(op.softcap.value.data)
    steps = [imm("mul", scale)]
    if softcap:
        steps = [imm("mul", scale / softcap), Step("tanh"), imm("mul", softcap)]
    if mask is not None:
        steps.append(Step("select", "operand", MASKED))
        _, mask_heads, _, _ = mask.shape
        strides = (0, 0, mask.strides[2], mask.strides[3])
        if mask_heads != 1:
            strides = (mask.strides[1] * nest[1], mask.strides[1], *strides[2:])
        mask = replace(mask, shape=nest, strides=strides)
    masked = dense(emit.alloc(nest, f32), nest)
    emit.elementwise(nest, scores, steps, masked, mask)
    top = _over_keys(low, masked, nest, "max")
    powers = dense(emit.alloc(nest, element_type(op.result)), nest)
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
    low: FunctionLowering,
    shape: _Shape,
    probabilities: tuple[View, View],
    values: View,
    end: SSAValue,
    target: View,
) -> None:
    """target[row, head, :] = Σ p·v / Σ p."""
    emit = low.emit
    powers, total = probabilities
    loaded = _load(low, values, shape, shape.value_size, end)
    outer = (shape.kv_heads, shape.group, shape.rows)
    own = (*outer, shape.value_size)
    sums = dense(emit.alloc(own, f32), own)
    walks = {
        "stream": Walk(powers, (*powers.strides[:3], 0, 1)),
        "stationary": Walk(loaded, (loaded.strides[0], 0, 0, 1, loaded.strides[1])),
        "out": Walk(sums, (*sums.strides, 0)),
    }
    chain = (Step("ring_add"),) if emit.geometry.slices > 1 else ()
    emit.emit_pass(Nest((*own, shape.keys), walks), reduce=(4,), chain=chain)
    result = replace(
        target,
        shape=own,
        strides=(shape.group * target.strides[2], target.strides[2], target.strides[1], target.strides[3]),
        size=shape.value_size,
    )
    emit.elementwise(own, sums, (Step("div", "operand"),), result, total)
