"""Lowerings of elementwise ATen operators, with torch's type promotion made explicit."""

from __future__ import annotations

from typing import Any

import torch
from npuc.frontends.element_types import element_type
from npuc.frontends.fx_import import FxImporter, FxNode, lowers
from npuc.ir import graph
from npuc.ir.graph import element_of
from npuc.ir.torch_types import torch_type
from torch import Tensor
from torch.fx import Node
from xdsl.dialects.builtin import i1
from xdsl.ir import Attribute, SSAValue

_UNARY = {
    "neg": "neg", "abs": "abs", "exp": "exp", "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt",
    "reciprocal": "reciprocal", "sin": "sin", "cos": "cos", "tanh": "tanh", "sigmoid": "sigmoid",
    "erf": "erf", "floor": "floor", "relu": "relu", "silu": "silu", "logical_not": "not",
    "bitwise_not": "not",
}  # fmt: skip
_BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "maximum": "maximum", "minimum": "minimum",
    "bitwise_and": "and", "bitwise_or": "or", "logical_and": "and", "logical_or": "or", "remainder": "mod",
    "floor_divide": "floordiv", "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge",
    "bitwise_xor": "ne", "logical_xor": "ne",
}  # fmt: skip
_LOGIC = {"logical_not", "logical_and", "logical_or", "logical_xor"}


def _mnemonic(node: FxNode) -> str:
    return str(node.target).split(".")[1]


@lowers(*(f"aten.{name}.default" for name in _UNARY))
def lower_unary(imp: FxImporter, node: FxNode) -> SSAValue:
    name = _mnemonic(node)
    element = i1 if name in _LOGIC else imp.element(node)
    return imp.emit(graph.unary(_UNARY[name], as_type(imp, imp.value(node.args[0]), element)))


@lowers("aten.gelu.default")
def lower_gelu(imp: FxImporter, node: FxNode) -> SSAValue:
    mnemonic = "gelu_tanh" if node.kwargs.get("approximate", "none") == "tanh" else "gelu"
    return imp.emit(graph.unary(mnemonic, imp.value(node.args[0])))


def as_type(imp: FxImporter, value: SSAValue, element: Attribute) -> SSAValue:
    """The value in an element type; to a predicate by comparison with zero."""
    if element == i1 and element_of(value) != i1:
        return imp.emit(graph.binary("ne", value, imp.scalar(0, element_of(value))))
    return imp.cast(value, element)


def binary(imp: FxImporter, node: FxNode, mnemonic: str, lhs: Any, rhs: Any, element: Attribute) -> SSAValue:
    """A binary operation computed in ``element``; its operands are nodes or numbers."""
    if not all(isinstance(x, Node) or _representable(x, element) for x in (lhs, rhs)):
        # a number beyond the type's precision: compute in f32, round once
        result = binary(imp, node, mnemonic, lhs, rhs, element_type(torch.float32))
        return imp.cast(result, element if mnemonic not in graph.COMPARISON_NAMES else i1)
    values = [imp.aligned(x, node) if isinstance(x, Node) else imp.scalar(x, element) for x in (lhs, rhs)]
    a, b = (as_type(imp, x, element) for x in values)
    return imp.emit(graph.binary(mnemonic, a, b))


def _representable(number: Any, element: Attribute) -> bool:
    dtype = torch_type(element)
    if dtype not in (torch.bfloat16, torch.float16) or isinstance(number, Node):
        return True
    return float(torch.tensor(float(number), dtype=dtype)) == float(number)


def _computed_in(node: FxNode, lhs: Any, rhs: Any) -> Attribute:
    """The type torch computes a comparison in; of other operations, the result's."""
    values = [x.meta["val"] if isinstance(x, Node) else x for x in (lhs, rhs)]
    return element_type(torch.result_type(*values))


@lowers(
    *(
        f"aten.{name}.{kind}"
        for name in _BINARY
        for kind in ("Tensor", "Scalar", "default", "Tensor_Scalar", "Scalar_Tensor")
    )
)
def lower_binary(imp: FxImporter, node: FxNode) -> SSAValue:
    lhs, rhs = node.args[:2]
    name = _mnemonic(node)
    mnemonic = _BINARY[name]
    alpha = node.kwargs.get("alpha", 1)
    element = i1 if name in _LOGIC else _computed_in(node, lhs, rhs)
    if alpha != 1:
        scaled = imp.emit(
            graph.binary("mul", as_type(imp, imp.aligned(rhs, node), element), imp.scalar(alpha, element))
        )
        return imp.emit(graph.binary(mnemonic, as_type(imp, imp.aligned(lhs, node), element), scaled))
    if element == i1 and mnemonic == "mul":
        mnemonic = "and"
    if isinstance(lhs, Node) and isinstance(rhs, int | float) and _is_neutral(mnemonic, rhs):
        return as_type(imp, imp.value(lhs), imp.element(node))
    return binary(imp, node, mnemonic, lhs, rhs, element)


def _is_neutral(mnemonic: str, number: float) -> bool:
    """Whether the number on the right changes nothing."""
    return number == {"mul": 1, "add": 0, "sub": 0, "div": 1}.get(mnemonic)


@lowers("aten.rsub.Scalar", "aten.rsub.Tensor")
def lower_rsub(imp: FxImporter, node: FxNode) -> SSAValue:
    return binary(imp, node, "sub", node.args[1], node.args[0], imp.element(node))


@lowers("aten.div.Tensor", "aten.div.Scalar")
def lower_div(imp: FxImporter, node: FxNode) -> SSAValue:
    return binary(imp, node, "div", node.args[0], node.args[1], imp.element(node))


@lowers("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def lower_div_mode(imp: FxImporter, node: FxNode) -> SSAValue:
    if node.kwargs.get("rounding_mode") != "floor":
        raise imp.unsupported(f"division with rounding mode {node.kwargs.get('rounding_mode')}")
    return binary(imp, node, "floordiv", node.args[0], node.args[1], imp.element(node))


@lowers("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def lower_pow(imp: FxImporter, node: FxNode) -> SSAValue:
    base, exponent = node.args[:2]
    if isinstance(base, Node) and not isinstance(exponent, Node):
        if exponent == 2:
            return binary(imp, node, "mul", base, base, imp.element(node))
        if exponent == 1:
            return imp.value(base)
        unary = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}.get(float(exponent))
        if unary:
            return imp.emit(graph.unary(unary, imp.value(base)))
    return binary(imp, node, "pow", base, exponent, imp.element(node))


@lowers("aten.clamp.default", "aten.clamp_min.default", "aten.clamp_max.default", "aten.clamp.Tensor")
def lower_clamp(imp: FxImporter, node: FxNode) -> SSAValue:
    name = _mnemonic(node)
    bounds = dict(zip(("min", "max"), node.args[1:], strict=False)) | dict(node.kwargs)
    if name == "clamp_max":
        bounds = {"max": node.args[1]}
    result = imp.value(node.args[0])
    for key, mnemonic in (("min", "maximum"), ("max", "minimum")):
        bound = bounds.get(key)
        if bound is not None:
            limit = imp.value(bound) if isinstance(bound, Node) else imp.scalar(bound, element_of(result))
            result = imp.emit(graph.binary(mnemonic, result, limit))
    return result


@lowers("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def lower_where(imp: FxImporter, node: FxNode) -> SSAValue:
    condition: Any = node.args[0]
    branches = [_choice(imp, node, x) for x in node.args[1:3]]
    return imp.emit(graph.WhereOp(imp.aligned(condition, node), *branches))


def _choice(imp: FxImporter, node: FxNode, argument: Any) -> SSAValue:
    """A branch of a selection: a node or a number."""
    element = imp.element(node)
    is_node = isinstance(argument, Node)
    return imp.cast(imp.aligned(argument, node), element) if is_node else imp.scalar(argument, element)


@lowers("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def lower_masked_fill(imp: FxImporter, node: FxNode) -> SSAValue:
    mask: Any = node.args[1]
    fill = _choice(imp, node, node.args[2])
    return imp.emit(graph.WhereOp(imp.aligned(mask, node), fill, imp.value(node.args[0])))


@lowers("aten._to_copy.default", "aten.to.dtype", "aten.type_as.default")
def lower_cast(imp: FxImporter, node: FxNode) -> SSAValue:
    return as_type(imp, imp.value(node.args[0]), imp.element(node))


@lowers("aten.expm1.default", "aten.log1p.default")
def lower_shifted(imp: FxImporter, node: FxNode) -> SSAValue:
    """exp(x) − 1 and log(1 + x)."""
    x = imp.value(node.args[0])
    one = imp.scalar(1.0, element_of(x))
    if _mnemonic(node) == "expm1":
        return imp.emit(graph.binary("sub", imp.emit(graph.unary("exp", x)), one))
    return imp.emit(graph.unary("log", imp.emit(graph.binary("add", one, x))))


@lowers("aten.softplus.default")
def lower_softplus(imp: FxImporter, node: FxNode) -> SSAValue:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(−|x|)), which cannot overflow."""
    if len(node.args) > 1 or node.kwargs:
        raise imp.unsupported("softplus with beta or threshold")
    x = imp.value(node.args[0])
    tail = imp.emit(graph.unary("exp", imp.emit(graph.unary("neg", imp.emit(graph.unary("abs", x))))))
    one = imp.scalar(1.0, element_of(x))
    log = imp.emit(graph.unary("log", imp.emit(graph.binary("add", tail, one))))
    return imp.emit(graph.binary("add", imp.emit(graph.unary("relu", x)), log))


def is_tensor_node(value: Any) -> bool:
    """Whether an argument is a node that holds one tensor."""
    return isinstance(value, Node) and isinstance(value.meta.get("val"), Tensor)
