"""Linear layers: weight tiles pass through the stationary memory while every slice owns output columns."""

from __future__ import annotations

from math import prod

from npuc.ir import graph
from npuc.ir.tile import Step
from npuc.ir.tile_placements import SlicedAttr
from npuc.passes.lowering.function import Deferred, FunctionLowering, is_spread
from npuc.passes.lowering.linear_units import Linear, Rider
from npuc.passes.lowering.spread_linear import SpreadInput, SpreadProduct
from npuc.passes.lowering.views import View
from npuc.passes.placing import placement_of
from npuc.passes.tile_choice import sums_in_registers
from xdsl.dialects.builtin import MemRefType, f32
from xdsl.ir import SSAValue


def lower_linear(low: FunctionLowering, op: graph.LinearOp) -> None:
    """x · Wᵀ (· scale) (+ bias), in the tiles in which pack-weights has laid the weight out."""
    x = low.view(op.input)
    _, weight = low.weight(op.weight)
    after = [(name, low.view(v)) for name, v in (("mul", op.scale), ("add", op.bias)) if v is not None]
    last = _rider(low, op, weight, *after[0]) if after else None
    after = after[1:] if last else after
    out = _product(low, op, x, weight, _sums_of(low, op) if after else low.fresh(op.result), last)
    for name, vector in after[:-1]:
        low.elementwise(out, (Step(name, "operand"),), out, vector)
    if after:
        name, vector = after[-1]
        low.define(op.result, Deferred(out, (Step(name, "operand"),), vector))
    else:
        low.define(op.result, out)


def _product(
    low: FunctionLowering, op: graph.LinearOp, x: View, weight: SSAValue, out: View, last: Rider | None
) -> View:
    """x · Wᵀ and the last step, in `out` or in a place of the same shape."""
    if not is_spread(op.input):
        Linear(low, x, weight, out, last).emit_tiles()
    elif not is_spread(op.result):
        SpreadInput(low, x, weight, out, last).emit_tiles()
    else:
        product = SpreadProduct(low, x, weight, out, last)
        product.emit_tiles()
        return product.result()
    return out


def _rider(
    low: FunctionLowering, op: graph.LinearOp, weight: SSAValue, name: str, vector: View
) -> Rider | None:
    """What follows the sums as a step of the contraction that makes the last of them.

    None where the port to the registers is taken by the sums of the parts before, and where a pass of its own
    costs less.
    """
    assert isinstance(weight.type, MemRefType)
    (_, parts, _, rows, _), geometry = weight.type.get_shape(), low.emit.geometry
    shape = low.own_shape(op.result)
    if is_spread(op.result):
        taken = prod(vector.shape) > 1 and geometry.padded(shape[-1]) != shape[-1]
    else:
        taken = parts > 1 and sums_in_registers(geometry, prod(shape[:-1]), rows)
    if taken or not low.may_hold(vector):
        return None

    def apart() -> None:
        out = low.fresh(op.result)
        low.emit.elementwise(out.shape, _sums_of(low, op), (Step(name, "operand"),), out, vector)

    held = low.held(vector, low.emit.cycles(apart))
    return held and Rider(Step(name, "vrf"), held)


def _sums_of(low: FunctionLowering, op: graph.LinearOp) -> View:
    """A place for a layer's products before anything is done to them."""
    return low.emit.like(low.own_shape(op.result), f32, _chunk(op.result))


def _chunk(value: SSAValue) -> int:
    """Elements of the last dimension in a slice; 0 where every slice holds the tensor."""
    placement = placement_of(value)
    return placement.chunk.data if isinstance(placement, SlicedAttr) else 0
