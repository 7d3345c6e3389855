"""Elementwise operations of the `graph` dialect."""

from __future__ import annotations

from npuc.ir.assembly import TextualOp
from npuc.ir.graph_types import check_element, check_same, check_shape, element_of, shape_of, tensor_type
from npuc.ir.shapes import broadcast_shapes
from xdsl.dialects.builtin import TensorType, i1
from xdsl.interfaces import HasCanonicalizationPatternsInterface
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.pattern_rewriter import RewritePattern
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException


class GraphOp(TextualOp, HasCanonicalizationPatternsInterface):
    """Base of the pure operations with one tensor result."""

    traits = traits_def(Pure())

    @classmethod
    def get_canonicalization_patterns(cls) -> tuple[RewritePattern, ...]:
        """The patterns of the table in `graph_canonicalization`, which needs the operations first."""
        from npuc.ir.graph_canonicalization import PATTERNS

        return PATTERNS.get(cls.name, ())


class UnaryOp(GraphOp):
    """Elementwise, shape and element type preserved."""

    input = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue) -> None:
        super().__init__(operands=[value], result_types=[value.type])

    def verify_(self) -> None:
        check_same("result", self.result, self.input)


class BinaryOp(GraphOp):
    """Elementwise with numpy broadcasting; comparisons give i1."""

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, lhs: SSAValue, rhs: SSAValue) -> None:
        shape = broadcast_shapes(shape_of(lhs), shape_of(rhs))
        super().__init__(
            operands=[lhs, rhs], result_types=[tensor_type(shape, self.result_element(element_of(lhs)))]
        )

    @classmethod
    def result_element(cls, operand: Attribute) -> Attribute:
        """The result's element type for operands of this one."""
        return i1 if cls.name.removeprefix("graph.") in COMPARISON_NAMES else operand

    def verify_(self) -> None:
        check_shape("result", self.result, broadcast_shapes(shape_of(self.lhs), shape_of(self.rhs)))
        lhs, rhs = element_of(self.lhs), element_of(self.rhs)
        if lhs != rhs:
            raise VerifyException(f"element types differ: lhs has {lhs}, rhs has {rhs}")
        check_element("result", self.result, self.result_element(lhs))


UNARY_NAMES = (
    "neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "sigmoid", "erf",
    "floor", "relu", "silu", "gelu", "gelu_tanh", "not",
)  # fmt: skip
ARITHMETIC_NAMES = ("add", "sub", "mul", "div", "pow", "maximum", "minimum", "floordiv", "mod", "and", "or")
COMPARISON_NAMES = ("eq", "ne", "lt", "le", "gt", "ge")


def _define(base: type[GraphOp], mnemonic: str) -> type[GraphOp]:
    """The operation class of an elementwise mnemonic, e.g. ``gelu_tanh`` → ``GeluTanhOp``."""
    class_name = "".join(part.capitalize() for part in mnemonic.split("_")) + "Op"
    body = {"name": f"graph.{mnemonic}", "__doc__": f"Elementwise {mnemonic}."}
    return irdl_op_definition(type(class_name, (base,), body))


UNARY: dict[str, type[UnaryOp]] = {n: _define(UnaryOp, n) for n in UNARY_NAMES}  # pyright: ignore
BINARY: dict[str, type[BinaryOp]] = {
    n: _define(BinaryOp, n)
    for n in (*ARITHMETIC_NAMES, *COMPARISON_NAMES)  # pyright: ignore
}


def unary(mnemonic: str, value: SSAValue) -> UnaryOp:
    """An elementwise unary operation by its mnemonic."""
    return UNARY[mnemonic](value)


def binary(mnemonic: str, lhs: SSAValue, rhs: SSAValue) -> BinaryOp:
    """An elementwise binary operation by its mnemonic."""
    return BINARY[mnemonic](lhs, rhs)


@irdl_op_definition
class WhereOp(GraphOp):
    """Elementwise choice with broadcasting: ``a`` where ``condition`` holds, else ``b``."""

    name = "graph.where"
    condition = operand_def(TensorType)
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, condition: SSAValue, a: SSAValue, b: SSAValue) -> None:
        shape = broadcast_shapes(shape_of(condition), broadcast_shapes(shape_of(a), shape_of(b)))
        super().__init__(operands=[condition, a, b], result_types=[tensor_type(shape, element_of(a))])

    def verify_(self) -> None:
        choices = broadcast_shapes(shape_of(self.a), shape_of(self.b))
        check_shape("result", self.result, broadcast_shapes(shape_of(self.condition), choices))
        check_element("condition", self.condition, i1)
        check_element("b", self.b, element_of(self.a))
        check_element("result", self.result, element_of(self.a))


@irdl_op_definition
class CastOp(GraphOp):
    """Conversion to another element type, rounding to nearest even."""

    name = "graph.cast"
    input = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, element: Attribute) -> None:
        super().__init__(operands=[value], result_types=[tensor_type(shape_of(value), element)])

    def verify_(self) -> None:
        check_shape("result", self.result, shape_of(self.input))
