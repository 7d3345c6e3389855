"""Lowerings of the operators in `quantized_linear`: conversions to and from quantized types."""

from __future__ import annotations

from collections.abc import Callable

from npuc.frontends.fx_import import FxImporter, FxNode, lowers
from npuc.frontends.quantized_linear import parse_scheme
from npuc.ir.graph import ParamOp, shape_of, static_shape, tensor_type
from npuc.ir.nquant import ConversionOp, DequantizeOp, QuantizedType, QuantizeOp, SchemeAttr
from torch.fx import Node
from xdsl.ir import SSAValue


@lowers("npuc.quantize.default")
def lower_quantize(imp: FxImporter, node: FxNode) -> SSAValue:
    value, scheme = imp.value(node.args[0]), parse_scheme(node.args[2])
    kind = tensor_type(shape_of(value), QuantizedType(scheme))
    scale = _scale(imp, node.args[1], value, scheme)
    return _once(imp, value, scale, lambda: QuantizeOp(value, scale, kind))


@lowers("npuc.dequantize.default")
def lower_dequantize(imp: FxImporter, node: FxNode) -> SSAValue:
    scheme = parse_scheme(node.args[2])
    stored = node.args[0]
    is_weight = stored.op == "placeholder"
    value = imp.weight(stored, element=QuantizedType(scheme)) if is_weight else imp.value(stored)
    kind = tensor_type(shape_of(value), scheme.expressed)
    scale = _scale(imp, node.args[1], value, scheme)
    return _once(imp, value, scale, lambda: DequantizeOp(value, scale, kind))


def _once(imp: FxImporter, value: SSAValue, scale: SSAValue, make: Callable[[], ConversionOp]) -> SSAValue:
    """A conversion; the one there is, where several layers convert one value by equal scales.

    Without the checkpoint's values they are taken to be: calibration, which sees one value, makes them equal.
    """
    equal = scale.owner.attributes.get("symbol") if isinstance(scale.owner, ParamOp) else scale
    if not imp.has_values and not isinstance(value.owner, ParamOp):
        equal = None
    key = value, equal
    if key not in imp.conversions:
        imp.conversions[key] = imp.emit(make())
    return imp.conversions[key]


def _scale(imp: FxImporter, node: Node, quantized: SSAValue, scheme: SchemeAttr) -> SSAValue:
    """The scales of a tensor in the shape that its scheme says."""
    value = node.meta["val"]
    if not value.ndim:
        return imp.weight(node)
    shape = tuple(d for d in scheme.scale_shape(static_shape(quantized)) if isinstance(d, int))
    return imp.weight(node, (("reshape", shape),))
