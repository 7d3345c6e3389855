"""Lowering rules of elementwise, linear, normalization and reduction operations."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Literal

from npuc.ir import graph, tile
from npuc.ir.tile import Limit, Step
from npuc.ir.tile_placements import GridAttr
from npuc.passes.algorithms.chains import split_chain
from npuc.passes.constants import constant_of
from npuc.passes.live_bytes import overwrites
from npuc.passes.lowering.elementwise import BINARY_STEP, UNARY_STEPS, constant_steps, imm, stash
from npuc.passes.lowering.function import Deferred, FunctionLowering, element_type
from npuc.passes.lowering.grids import grid_of
from npuc.passes.lowering.views import Nest, View, Walk, dense
from xdsl.dialects.builtin import MemRefType, f32, i1
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException


def lower_unary(low: FunctionLowering, op: graph.UnaryOp) -> None:
    """One operand: extends its chain."""
    steps = UNARY_STEPS[op.name.removeprefix("graph.")]
    low.define(op.result, _extended(low, op.input, op.result, steps))


def lower_cast(low: FunctionLowering, op: graph.CastOp) -> None:
    """A conversion is the rounding of the pass that stores it; equal storage needs none."""
    source, target = graph.element_of(op.input), graph.element_of(op.result)
    if target == i1 and source != i1:
        low.define(op.result, _extended(low, op.input, op.result, (imm("ne", 0.0),)))
    elif not low.on_host(op.input) and element_type(op.input) == element_type(op.result):
        low.values[op.result] = low.values.get(op.input) or low.view(op.input)
    else:
        low.define(op.result, _extended(low, op.input, op.result, ()))


def lower_binary(low: FunctionLowering, op: graph.BinaryOp) -> None:
    """Two operands: a constant becomes an immediate, a tensor the second port."""
    name = op.name.removeprefix("graph.")
    for value, other, reversed_ in ((op.rhs, op.lhs, False), (op.lhs, op.rhs, True)):
        constant = constant_of(value)
        steps = constant_steps(name, constant, reversed_) if constant is not None else None
        if steps is not None:
            low.define(op.result, _extended(low, other, op.result, steps))
            return
    if name not in BINARY_STEP:
        raise PassFailedException(f"lower-to-tile: {op.name} of two tensors has no lowering")
    low.define(op.result, _combined(low, op.lhs, op.rhs, op.result, BINARY_STEP[name]))


def lower_gated(low: FunctionLowering, op: graph.GatedOp) -> None:
    """activation(gate) · up, in the place of the gate where nobody else wants it."""
    steps = (*UNARY_STEPS[op.activation.data], Step("mul", "operand"))
    gate, up = low.view(op.gate), low.view(op.up)
    if overwrites(op) and op.result not in low.destinations:
        low.destinations[op.result] = gate
    low.define(op.result, Deferred(gate, steps, up))


def lower_where(low: FunctionLowering, op: graph.WhereOp) -> None:
    """Selection; branches that are constants are immediates."""
    a, b = constant_of(op.a), constant_of(op.b)
    if b is not None and a is None:
        low.define(op.result, _select(low, op.a, op.condition, op.result, b))
        return
    condition = low.view(op.condition)
    inverse = low.emit.like(condition.logical_shape, f32, condition.chunk)
    low.emit.elementwise(inverse.shape, condition, (imm("rsub", 1.0),), inverse)
    if a is not None and b is None:
        target = low.fresh(op.result)
        low.emit.elementwise(target.shape, low.view(op.b), (Step("select", "operand", a),), target, inverse)
        low.define(op.result, target)
        return
    first = low.emit.like(low.own_shape(op.result), f32, condition.chunk)
    second = low.emit.like(low.own_shape(op.result), f32, condition.chunk)
    target = low.fresh(op.result)
    for value, constant, mask, part in ((op.a, a, condition, first), (op.b, b, inverse, second)):
        if constant is None:
            low.emit.elementwise(part.shape, low.view(value), (Step("select", "operand", 0.0),), part, mask)
        else:
            low.emit.elementwise(part.shape, mask, (imm("mul", 0.0), imm("add", constant)), part)
            low.emit.elementwise(part.shape, part, (Step("select", "operand", 0.0),), part, mask)
    low.emit.elementwise(target.shape, first, (Step("add", "operand"),), target, second)
    low.define(op.result, target)


def _select(
    low: FunctionLowering, value: SSAValue, condition: SSAValue, result: SSAValue, other: float
) -> View:
    target = low.fresh(result)
    steps = (Step("select", "operand", other),)
    low.emit.elementwise(target.shape, low.view(value), steps, target, low.view(condition))
    return target


def _extended(low: FunctionLowering, value: SSAValue, result: SSAValue, steps: tuple[Step, ...]) -> Deferred:
    """The operand's chain, if it is deferred and the result still fits one pass, else a new chain."""
    found = _unrounded(low, value)
    same = graph.static_shape(value) == graph.static_shape(result)
    if found is not None and same:
        restarted = any(step.source == "stash" for step in steps)
        chain = (*found.steps, *steps)
        if not restarted and len(split_chain(chain, low.emit.units)) == 1:
            return Deferred(found.stream, chain, found.operand)
    return Deferred(low.view(value), steps, None)


def _unrounded(low: FunctionLowering, value: SSAValue) -> Deferred | None:
    """The chain that computes a value, if it may go on: it ends where storing the value rounds."""
    found = low.values.get(value)
    return found if isinstance(found, Deferred) and element_type(value) == f32 else None


def _combined(low: FunctionLowering, lhs: SSAValue, rhs: SSAValue, result: SSAValue, step: str) -> Deferred:
    found = _unrounded(low, lhs)
    if found is not None and found.operand is None:
        chain = (*found.steps, Step(step, "operand"))
        same = graph.static_shape(lhs) == graph.static_shape(result)
        if same and len(split_chain(chain, low.emit.units)) == 1:
            return Deferred(found.stream, chain, low.view(rhs))
    return Deferred(low.view(lhs), (Step(step, "operand"),), low.view(rhs))


def reduce_last(
    low: FunctionLowering,
    x: View,
    before: tuple[Step, ...],
    kind: str,
    after: tuple[Step, ...],
    grid: GridAttr | None = None,
) -> View:
    """Reduces the last dimension (over the slices too where it is cut) → [..., 1] in f32.

    With steps afterwards the result lies in the vector registers if it fits there.

    Args:
        grid: on which the view is a slice's part of a tensor; each row of it has the same results.
    """
    reduced = _reduce_dims(low, x, (len(x.shape) - 1,), before, kind, grid)
    if not after:
        return reduced
    target = _in_registers(low, reduced.shape) or reduced
    low.emit.elementwise(reduced.shape, reduced, after, target)
    return target


def _in_registers(low: FunctionLowering, shape: tuple[int, ...]) -> View | None:
    """A place in the vector registers; None where a tensor does not fit half of them."""
    geometry = low.emit.geometry
    if 4 * prod(shape) > geometry.register_bytes // 2:
        return None
    return dense(low.emit.alloc(shape, f32, geometry.registers), shape)


def _source(low: FunctionLowering, view: View) -> Literal["operand", "vrf"]:
    """From where a step takes a view."""
    kind = view.buffer.type
    assert isinstance(kind, MemRefType)
    return "vrf" if tile.memory_of(kind) == low.emit.geometry.registers else "operand"


def _reduce_dims(
    low: FunctionLowering,
    x: View,
    dims: tuple[int, ...],
    before: tuple[Step, ...],
    kind: str,
    grid: GridAttr | None = None,
) -> View:
    """Reduces dimensions to size 1, in f32. The reduced ones are the innermost of the nest."""
    emit = low.emit
    out = emit.replicated(tuple(1 if d in dims else n for d, n in enumerate(x.shape)), f32)
    order = [*(d for d in range(len(x.shape)) if d not in dims), *dims]
    walks = {
        "stream": Walk(x, tuple(x.strides[d] for d in order)),
        "out": Walk(out, tuple(0 if d in dims else out.strides[d] for d in order)),
    }
    chain = [*before, Step(f"reduce_{kind}")]
    limit = None
    if x.chunk and x.chunk * emit.geometry.slices != x.size:
        limit = Limit(order.index(len(x.shape) - 1), x.size, x.chunk)
    if x.chunk and emit.geometry.slices > 1:
        chain.append(Step(f"ring_{kind}"))
    if grid is not None:
        chain.append(Step(f"ring_{kind}", "imm", grid.columns.data))
    reduced = tuple(range(len(order) - len(dims), len(order)))
    nest = Nest(tuple(x.shape[d] for d in order), walks)
    emit.emit_pass(nest, reduce=reduced, chain=chain, limit=limit)
    return out


def lower_rms_norm(low: FunctionLowering, op: graph.RmsNormOp) -> None:
    """x · rsqrt(mean(x²) + eps) · (offset + weight)."""
    x, grid = low.view(op.input), grid_of(op.input)
    scale = reduce_last(low, x, (stash("mul"),), "add", _root(op), grid)
    _scale_by_weight(low, op, x, scale, op.weight, None, float(op.offset.value.data))


def lower_layer_norm(low: FunctionLowering, op: graph.LayerNormOp) -> None:
    """(x − mean) · rsqrt(var + eps) · weight + bias."""
    x, grid = low.view(op.input), grid_of(op.input)
    mean = reduce_last(low, x, (), "add", (_mean(op),), grid)
    centred = low.emit.like(x.logical_shape, f32, x.chunk)
    _with(low, x, "sub", mean, centred)
    scale = reduce_last(low, centred, (stash("mul"),), "add", _root(op), grid)
    _scale_by_weight(low, op, centred, scale, op.weight, op.bias, 0.0)


def _mean(op: graph.RmsNormOp | graph.LayerNormOp) -> Step:
    """The mean over the last dimension, from its sum."""
    return imm("mul", 1.0 / graph.static_shape(op.input)[-1])


def _root(op: graph.RmsNormOp | graph.LayerNormOp) -> tuple[Step, ...]:
    """1 / √(mean + eps), from the sum of squares."""
    return _mean(op), imm("add", float(op.eps.value.data)), Step("sqrt"), imm("rdiv", 1.0)


def _scale_by_weight(
    low: FunctionLowering,
    op: Operation,
    x: View,
    scale: View,
    weight: SSAValue | None,
    bias: SSAValue | None,
    offset: float,
) -> None:
    """result = x · scale · (offset + weight) + bias, intermediates in f32."""
    emit, result = low.emit, op.results[0]
    target = low.fresh(result) if bias is None else emit.like(x.logical_shape, f32, x.chunk)
    if weight is None:
        _with(low, x, "mul", scale, target)
    elif _source(low, scale) == "vrf":
        steps = (Step("mul", "vrf"), Step("mul", "operand"))
        emit.elementwise(x.shape, x, steps, target, _shifted(low, low.view(weight), offset), scale)
    else:
        scaled = emit.like(x.logical_shape, f32, x.chunk)
        _with(low, x, "mul", scale, scaled)
        factor = _shifted(low, low.view(weight), offset)
        emit.elementwise(x.shape, scaled, (Step("mul", "operand"),), target, factor)
    low.define(
        result, target if bias is None else Deferred(target, (Step("add", "operand"),), low.view(bias))
    )


def _shifted(low: FunctionLowering, view: View, offset: float) -> View:
    """offset + view, in f32; the view itself without an offset."""
    if not offset:
        return view
    shifted = low.emit.like(view.logical_shape, f32, view.chunk)
    low.emit.elementwise(view.shape, view, (imm("add", offset),), shifted)
    return shifted


def _with(low: FunctionLowering, x: View, op: str, other: View, target: View) -> None:
    """target = x op other, wherever that lies."""
    source = _source(low, other)
    operand, vrf = (other, None) if source == "operand" else (None, other)
    low.emit.elementwise(x.shape, x, (Step(op, source),), target, operand, vrf)


_REDUCE_STEP = {"sum": "add", "mean": "add", "max": "max", "min": "min", "any": "max", "all": "min"}


def lower_reduce(low: FunctionLowering, op: graph.ReduceOp) -> None:
    """A reduction over any dimensions; f32 inside, rounded once."""
    x, dims, kind = low.view(op.input), graph.ints(op.dims), op.kind.data
    count = prod(graph.static_shape(op.input)[d] for d in dims)
    after = (imm("mul", 1.0 / count),) if kind == "mean" else ()
    last = len(x.shape) - 1
    if x.chunk and last not in dims:
        raise PassFailedException(f"lower-to-tile: graph.reduce over dimensions {dims} of a sliced tensor")
    reduced = _reduce_dims(low, x, dims, (), _REDUCE_STEP[kind])
    if after:
        low.emit.elementwise(reduced.shape, reduced, after, reduced)
    if not op.keepdims.value.data:
        kept = [d for d in range(last + 1) if d not in dims]
        shape, strides = (tuple(v[d] for d in kept) for v in (reduced.shape, reduced.strides))
        reduced = replace(
            reduced, shape=shape or (1,), strides=strides or (1,), size=shape[-1] if shape else 1
        )
    target = low.fresh(op.result)
    low.emit.elementwise(target.shape, reduced, (), target)
    low.define(op.result, target)


def lower_softmax(low: FunctionLowering, op: graph.SoftmaxOp) -> None:
    """exp(x − max) / Σ over the last dimension."""
    x = low.view(op.input)
    if op.dim.value.data != len(x.shape) - 1:
        raise PassFailedException("lower-to-tile: graph.softmax over an outer dimension has no lowering")
    top = reduce_last(low, x, (), "max", ())
    powers = low.emit.like(x.logical_shape, f32, x.chunk)
    low.emit.elementwise(x.shape, x, (Step("sub", "operand"), Step("exp")), powers, top)
    total = reduce_last(low, powers, (), "add", ())
    target = low.fresh(op.result)
    low.emit.elementwise(target.shape, powers, (Step("div", "operand"),), target, total)
    low.define(op.result, target)
