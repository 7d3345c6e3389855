"""Attention of rows that are spread: each slice does its own, with keys that the ring brings.

The queries of a head of keys are the stationary operand, and so are their probabilities: keys and values
stream by, each slice's to all. Nothing is reduced over the slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from npuc.ir import graph, tile
from npuc.ir.tile import Limit, Step
from npuc.passes.algorithms.contractions import Axis
from npuc.passes.lowering.caches import cache_slot
from npuc.passes.lowering.elementwise import MASKED, imm
from npuc.passes.lowering.function import FunctionLowering, element_type
from npuc.passes.lowering.linear_units import to_stationary
from npuc.passes.lowering.movement import runtime
from npuc.passes.lowering.views import Nest, View, Walk, dense
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue


def lower(low: FunctionLowering, op: graph.AttentionOp, symbol: str) -> None:
    """softmax(q·kᵀ·scale + mask)·v, one head of keys at a time."""
    query, mask, target = low.view(op.query), low.view(op.mask) if op.mask else None, low.fresh(op.result)
    assert mask is not None
    first = low.emit.constant(0)
    slot, end = runtime(low, "slot", first), runtime(low, "end", first)
    keys, values = (_load(low, cache_slot(low, symbol, part, slot)) for part in ("key", "value"))
    _, heads, rows, size = query.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    ones = dense(low.emit.alloc((low.length,), element_type(op.result)), (low.length,))
    low.emit.fill(ones, 1.0)
    outer, terms = low.emit.block, dict[str, tuple[tuple[SSAValue, int], ...]]()
    if kv_heads > 1:
        loop = tile.ForOp(kv_heads)
        loop.induction.name_hint = "head"
        low.emit.add(loop)
        low.emit.block = loop.body.block
        moves = {"query": group * query.strides[1], "keys": keys.strides[1], "values": values.strides[1]}
        moves["target"] = group * target.strides[2]
        terms = {name: ((loop.induction, step),) for name, step in moves.items()}
    own = _Head(
        low,
        op,
        replace(query.moved(0, terms.get("query", ())), shape=(group, rows, size), strides=query.strides[1:]),
        replace(mask, shape=mask.shape[2:], strides=mask.strides[2:]),
        ones,
    )
    scores = own.scores(_one_head(keys.moved(0, terms.get("keys", ()))))
    result = replace(
        target.moved(0, terms.get("target", ())),
        shape=(group, rows, target.shape[3]),
        strides=(target.strides[2], target.strides[1], target.strides[3]),
    )
    own.weigh(scores, _one_head(values.moved(0, terms.get("values", ()))), end, result)
    low.emit.block = outer
    low.define(op.result, target)


def _load(low: FunctionLowering, cache: View) -> View:
    """Keys or values [positions of a slice, heads, size]: slice s gets those from s · as many on."""
    emit, slices = low.emit, low.emit.geometry.slices
    each = low.length // slices
    own = (each, *cache.shape[1:])
    local = dense(emit.alloc(own, cache.element), own)
    walks = {
        "src": Walk(cache, (each * cache.strides[0], *cache.strides)),
        "dst": Walk(local, (0, *local.strides), (1, 0, 0, 0)),
    }
    emit.emit_copy(Nest((slices, *own), walks))
    return local


def _one_head(view: View) -> View:
    """[positions, heads, size] of the head that the view begins with: [positions, size]."""
    return replace(view, shape=(view.shape[0], view.shape[2]), strides=(view.strides[0], view.strides[2]))


@dataclass(frozen=True)
class _Head:
    """A head of keys with the queries [heads, rows, size] that share it, and their mask [rows, positions].

    Attributes:
        ones: as many as there are positions, of the type of probabilities.
    """

    low: FunctionLowering
    op: graph.AttentionOp
    query: View
    mask: View
    ones: View

    def scores(self, keys: View) -> View:
        """q · kᵀ · scale → [heads, rows, positions] in f32."""
        emit, slices = self.low.emit, self.low.emit.geometry.slices
        heads, rows, size = self.query.shape
        each = keys.shape[0]
        shape = (heads, rows, slices * each)
        scores = dense(emit.alloc(shape, f32), shape)
        held = to_stationary(self.low, self.query)
        head, row, _ = scores.strides
        axes = [
            Axis(heads, (0, held.strides[0], head)),
            Axis(rows, (0, held.strides[1], row)),
            Axis(slices, (0, 0, each), ring=True),
            Axis(each, (keys.strides[0], 0, 1)),
            Axis(size, (keys.strides[1], 1, 0), reduced=True),
        ]
        scale, softcap = float(self.op.scale.value.data), float(self.op.softcap.value.data)
        steps = [imm("mul", scale)]
        if softcap:
            steps = [imm("mul", scale / softcap), Step("tanh"), imm("mul", softcap)]
        emit.contract(axes, {"stream": keys, "stationary": held, "out": scores}, steps)
        return scores

    def weigh(self, scores: View, values: View, end: SSAValue, target: View) -> None:
        """target = Σ p · v / Σ p, with p = exp(score − maximum)."""
        emit, registers = self.low.emit, self.low.emit.geometry.registers
        shape, rest = scores.shape, (*scores.shape[:2], 1)
        select, sub = Step("select", "operand", MASKED), Step("sub", "vrf")
        top = dense(emit.alloc(rest, f32, registers), rest)
        self._maximum(scores, select, top)
        powers = dense(emit.alloc(shape, element_type(self.op.result), emit.geometry.stationary), shape)
        emit.elementwise(shape, scores, (select, sub, Step("exp")), powers, self._masks(shape), top)
        share = dense(emit.alloc(rest, f32, registers), rest)
        self._sum(powers, (imm("rdiv", 1.0),), share)
        self._weighted_sum(powers, self._turned(values, end), share, target)

    def _masks(self, shape: Sequence[int]) -> View:
        """The mask for all heads."""
        return replace(self.mask, shape=tuple(shape), strides=(0, *self.mask.strides))

    def _maximum(self, scores: View, select: Step, target: View) -> None:
        """The largest of the masked scores of each row."""
        walks = {
            "stream": Walk(scores, scores.strides),
            "operand": Walk(self.mask, (0, *self.mask.strides)),
            "out": Walk(target, (*target.strides[:2], 0)),
        }
        self.low.emit.emit_pass(Nest(scores.shape, walks), reduce=(2,), chain=(select, Step("reduce_max")))

    def _sum(self, powers: View, after: Sequence[Step], target: View) -> None:
        """Σ p of each row: a contraction with ones is many times faster than the vector engine."""
        heads, rows, positions = powers.shape
        axes = [
            Axis(heads, (0, powers.strides[0], target.strides[0])),
            Axis(rows, (0, powers.strides[1], target.strides[1])),
            Axis(positions, (1, 1, 0), reduced=True),
        ]
        self.low.emit.contract(axes, {"stream": self.ones, "stationary": powers, "out": target}, after)

    def _turned(self, values: View, end: SSAValue) -> View:
        """Values as [size, positions]: what is summed lies side by side; what no token wrote is zero."""
        emit, (each, size) = self.low.emit, values.shape
        unit = max(emit.geometry.granule // 2, 1)
        padded = -(-each // unit) * unit
        turned = dense(emit.alloc((size, padded), values.element), (size, each))
        turned = replace(turned, strides=(padded, 1))
        walks = {
            "stream": Walk(values, (values.strides[1], values.strides[0])),
            "out": Walk(turned, (padded, 1)),
        }
        emit.emit_pass(Nest((size, each), walks), mask=Limit(1, 0, each), mask_terms=end)
        return turned

    def _weighted_sum(self, powers: View, values: View, share: View, target: View) -> None:
        emit, slices = self.low.emit, self.low.emit.geometry.slices
        heads, rows, _ = powers.shape
        size, each = values.shape
        axes = [
            Axis(heads, (0, powers.strides[0], target.strides[0], share.strides[0])),
            Axis(rows, (0, powers.strides[1], target.strides[1], share.strides[1])),
            Axis(size, (values.strides[0], 0, target.strides[2], 0)),
            Axis(slices, (0, each, 0, 0), reduced=True, ring=True),
            Axis(each, (1, 1, 0, 0), reduced=True),
        ]
        views = {"stream": values, "stationary": powers, "out": target, "vrf": share}
        emit.contract(axes, views, (Step("mul", "vrf"),))
