"""Cache update: what new tokens add to the caches in main memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod

from npuc.ir import graph, tile
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.function import FunctionLowering, is_spread
from npuc.passes.lowering.movement import enter_rows, gather, runtime
from npuc.passes.lowering.spread import copy_rows, gather_rows
from npuc.passes.lowering.views import IndexTerms, Nest, View, Walk, dense
from xdsl.ir import SSAValue

GATHERED = 16
"""Tokens are gathered from the slices as many at a time as fit 1/GATHERED of the local memory."""


def lower_kv_update(low: FunctionLowering, op: graph.KvUpdateOp) -> None:
    """Writes each row's valid new keys and values to its slot at its position, whole tokens at a time."""
    symbol = op.cache.string_value()
    low.cache_symbols.update(dict.fromkeys(op.results, symbol))
    views = {"key": low.view(op.key), "value": low.view(op.value)}
    outer, row = enter_rows(low)
    slot, position, valid = (runtime(low, name, row) for name in ("slot", "position", "valid"))
    tokens, spread = graph.static_shape(op.key)[-2], is_spread(op.key)
    at_once = _tokens_at_once(low, tokens, list(views.values()), spread=spread)
    moves: IndexTerms = ()
    if at_once < tokens:
        loop = tile.ForOp(tokens // at_once)
        loop.induction.name_hint = "tokens"
        low.emit.add(loop)
        low.emit.block = loop.body.block
        left = tile.SumOp(valid, -at_once, loop.induction)
        left.result.name_hint = "left"
        low.emit.add(left)
        moves, valid = ((loop.induction, at_once),), left.result
    for part, view in views.items():
        cache = cache_slot(low, symbol, part, slot)
        source = _gathered(low, view, row, at_once, moves, spread=spread)
        token = cache.strides[0]
        target = cache.moved(0, tuple((index, n * token) for index, n in ((position, 1), *moves)))
        _write(low, source, target, valid)
    low.emit.block = outer


def cache_slot(low: FunctionLowering, symbol: str, part: str, slot: SSAValue) -> View:
    """Keys or values [length, heads, size] of a slot of the current layer."""
    declared = low.caches[symbol]
    kind = declared.key_type if part == "key" else declared.value_type
    assert low.layer is not None
    op = tile.CacheSlotOp(symbol, part, kind, low.layer, slot)
    op.result.name_hint = f"{part}s"
    low.emit.add(op)
    return dense(op.result, kind.get_shape())


def _tokens_at_once(low: FunctionLowering, tokens: int, views: list[View], *, spread: bool) -> int:
    """The most tokens, a divisor of all, that may be gathered at once; all where every slice holds them.

    Of spread tokens at least one of every slice is.
    """
    geometry = low.emit.geometry
    widths = [v.shape[-1] if spread else v.chunk * geometry.slices for v in views]
    widest = max(element_bytes(v) * width for v, width in zip(views, widths, strict=True))
    least = geometry.slices if spread else 1
    budget = geometry.local_bytes // GATHERED
    return max(
        n for n in range(least, tokens + 1, least) if tokens % n == 0 and (n == least or n * widest <= budget)
    )


def _gathered(
    low: FunctionLowering, view: View, row: SSAValue, count: int, moves: IndexTerms, *, spread: bool
) -> View:
    """`count` tokens of a row in one slice at least; the ring brings them to all."""
    if not spread:
        source = _tokens(view, row, count, moves)
        return gather(low, source) if source.chunk else source
    own = count // low.emit.geometry.slices
    terms = tuple((index, own * view.strides[1]) for index, _ in moves)
    mine = replace(view.moved(0, terms), shape=(own, view.shape[2]), strides=view.strides[1:])
    ways = (gather_rows, copy_rows)
    return low.emit.cheapest_of([partial(way, low, mine, 0) for way in ways], low.ranks)


def _tokens(view: View, row: SSAValue, count: int, moves: IndexTerms) -> View:
    """`count` tokens of a row: flat, [count, heads · size], or with heads apart, [count, heads, size]."""
    strides, shape = view.strides, view.shape
    if len(shape) == 4:
        strides, shape = (strides[0], *(strides[d] for d in (2, 1, 3))), (*(shape[d] for d in (0, 2, 1, 3)),)
    terms = ((row, strides[0]), *((index, n * strides[1]) for index, n in moves))
    return replace(view.moved(0, terms), shape=(count, *shape[2:]), strides=strides[1:])


def _write(low: FunctionLowering, source: View, target: View, limit: SSAValue) -> None:
    """Copies tokens as they lie in any one slice."""
    shape = source.shape
    inner = (1,) if len(shape) == 2 else (shape[2], 1)
    assert prod(shape[1:]) == target.strides[0]
    walks = {"src": Walk(source, source.strides), "dst": Walk(target, (target.strides[0], *inner))}
    low.emit.emit_copy(Nest(shape, walks), limit=limit)
