"""The `nquant` dialect: quantized element types, and conversions between them and floats.

    %q = nquant.quantize %x, %scale : tensor<64x172x!nquant.quantized<i4 : bf16, group 1 by 43>>
    %y = nquant.dequantize %q, %scale zero_point %z : tensor<64x172xbf16>

A quantized element q stands for (q − zero point) · scale. Scales and zero points are operands: one for the
tensor, one per index of a channel axis, or one per group of neighbours along an axis. (MLIR's own `quant`
dialect keeps them in the type.) Values are defined in `npuc.ir.nquant_kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from npuc.ir.assembly import Syntax, TextualOp, syntax
from npuc.ir.graph_types import check_element, check_shape, element_of, shape_of
from npuc.ir.shapes import Dim, shape_text
from xdsl.dialects.builtin import (
    AnyFloat,
    BFloat16Type,
    Float8E4M3FNType,
    Float8E5M2Type,
    Float16Type,
    Float32Type,
    IntAttr,
    IntegerType,
    Signedness,
    StringAttr,
    TensorType,
    i8,
    i32,
)
from xdsl.ir import Attribute, Dialect, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import (
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException


class Range(NamedTuple):
    """The least and the greatest stored value."""

    low: float
    high: float


RANGES: dict[Attribute, Range] = {
    IntegerType(4): Range(-8, 7),
    i8: Range(-128, 127),
    IntegerType(4, Signedness.UNSIGNED): Range(0, 15),
    IntegerType(8, Signedness.UNSIGNED): Range(0, 255),
    Float8E4M3FNType(): Range(-448, 448),
    Float8E5M2Type(): Range(-57344, 57344),
}

GRANULARITIES = ("tensor", "channel", "group")


@irdl_attr_definition
class SchemeAttr(ParametrizedAttribute):
    """How elements are quantized: storage and expressed type, granularity, with or without zero points.

    ``<i8 : f32, tensor>``, ``<ui8 : f32, channel 0, zero_point>``, ``<i4 : bf16, group 1 by 32>``
    (32 neighbours along dimension 1 share a scale). Without zero points the scheme is symmetric.
    """

    name = "nquant.scheme"
    storage: Attribute
    expressed: Attribute
    granularity: StringAttr
    axis: IntAttr
    group: IntAttr
    zero_point: IntAttr

    @classmethod
    def of(
        cls,
        storage: Attribute,
        expressed: Attribute,
        granularity: str = "tensor",
        axis: int = 0,
        group: int = 0,
        *,
        zero_point: bool = False,
    ) -> SchemeAttr:
        """A scheme from plain values."""
        numbers = IntAttr(axis), IntAttr(group), IntAttr(int(zero_point))
        return cls(storage, expressed, StringAttr(granularity), *numbers)

    @property
    def range(self) -> Range:
        """The least and the greatest stored value."""
        return RANGES[self.storage]

    @property
    def symmetric(self) -> bool:
        """Whether zero is stored as zero."""
        return not self.zero_point.data

    def scale_shape(self, shape: Sequence[Dim]) -> tuple[Dim, ...]:
        """The shape of the scales of a tensor.

        Raises:
            VerifyException: when the tensor has no such axis, or no whole number of groups along it.
        """
        if self.granularity.data == "tensor":
            return ()
        axis = self.axis.data
        if axis >= len(shape):
            raise VerifyException(f"axis is {axis}, the tensor has shape {shape_text(shape)}")
        if self.granularity.data == "channel":
            return (shape[axis],)
        size, group = shape[axis], self.group.data
        if not isinstance(size, int) or size % group:
            raise VerifyException(f"dimension {axis} of {shape_text(shape)} is cut into groups of {group}")
        return (*shape[:axis], size // group, *shape[axis + 1 :])

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            storage = parser.parse_type()
            parser.parse_punctuation(":")
            expressed = parser.parse_type()
            parser.parse_punctuation(",")
            granularity = parser.parse_keyword_in(GRANULARITIES)
            axis = 0 if granularity == "tensor" else parser.parse_integer(allow_boolean=False)
            group = _parse_group(parser) if granularity == "group" else 0
            zero_point = parser.parse_optional_punctuation(",") is not None
            if zero_point:
                parser.parse_keyword("zero_point")
        numbers = IntAttr(axis), IntAttr(group), IntAttr(int(zero_point))
        return [storage, expressed, StringAttr(granularity), *numbers]

    def print_parameters(self, printer: Printer) -> None:
        granularity = self.granularity.data
        with printer.in_angle_brackets():
            printer.print_attribute(self.storage)
            printer.print_string(" : ")
            printer.print_attribute(self.expressed)
            printer.print_string(f", {granularity}")
            if granularity != "tensor":
                printer.print_string(f" {self.axis.data}")
            if granularity == "group":
                printer.print_string(f" by {self.group.data}")
            if not self.symmetric:
                printer.print_string(", zero_point")

    def verify(self) -> None:
        if self.storage not in RANGES:
            known = ", ".join(map(str, RANGES))
            raise VerifyException(f"storage type is {self.storage}, expected one of {known}")
        if not isinstance(self.expressed, Float32Type | BFloat16Type | Float16Type):
            raise VerifyException(f"expressed type is {self.expressed}, expected f32, bf16 or f16")
        if self.granularity.data not in GRANULARITIES:
            known = ", ".join(GRANULARITIES)
            raise VerifyException(f"granularity is {self.granularity.data}, expected one of {known}")
        if self.axis.data < 0:
            raise VerifyException(f"axis is {self.axis.data}, expected a dimension")
        if self.granularity.data == "group" and self.group.data < 1:
            raise VerifyException(f"groups are of {self.group.data}, expected at least 1")
        if not self.symmetric and isinstance(self.storage, AnyFloat):
            raise VerifyException(f"storage type is {self.storage}: floats have no zero point")
        if self.symmetric and self.range.low == 0:
            raise VerifyException(f"storage type is {self.storage}: negative values need a zero point")


def _parse_group(parser: AttrParser) -> int:
    parser.parse_keyword("by")
    return parser.parse_integer(allow_boolean=False)


@irdl_attr_definition
class QuantizedType(ParametrizedAttribute, TypeAttribute):
    """The element type of tensors that are quantized by a scheme."""

    name = "nquant.quantized"
    scheme: SchemeAttr

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        return [SchemeAttr(*SchemeAttr.parse_parameters(parser))]  # type: ignore[arg-type]

    def print_parameters(self, printer: Printer) -> None:
        self.scheme.print_parameters(printer)


def scheme_of(value: SSAValue) -> SchemeAttr:
    """The scheme of a quantized tensor.

    Raises:
        VerifyException: when it is not quantized.
    """
    element = element_of(value)
    if not isinstance(element, QuantizedType):
        raise VerifyException(f"expected a quantized tensor, got elements of type {element}")
    return element.scheme


def storage_type(kind: TensorType[Attribute]) -> TensorType[Attribute]:
    """The tensor type that holds a quantized tensor's stored values."""
    assert isinstance(kind.element_type, QuantizedType)
    return TensorType(kind.element_type.scheme.storage, kind.get_shape(), kind.encoding)


class ConversionOp(TextualOp):
    """Base of the conversions: a tensor, its scales, and its zero points unless the scheme is symmetric."""

    input = operand_def(TensorType)
    scale = operand_def(TensorType)
    zero_point = opt_operand_def(TensorType)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    SYNTAX: ClassVar[Syntax] = syntax()

    def __init__(
        self,
        value: SSAValue,
        scale: SSAValue,
        type: TensorType[Attribute],
        zero_point: SSAValue | None = None,
    ) -> None:
        super().__init__(
            operands=[value, scale, [] if zero_point is None else [zero_point]], result_types=[type]
        )

    def verify_conversion(self, quantized: SSAValue, expressed: SSAValue) -> None:
        """Checks shapes and types against the scheme of the quantized side."""
        scheme = scheme_of(quantized)
        check_element("expressed side", expressed, scheme.expressed)
        check_shape("result", self.result, shape_of(self.input))
        parameters = scheme.scale_shape(shape_of(self.input))
        check_shape("scale", self.scale, parameters)
        if not isinstance(element_of(self.scale), AnyFloat):
            raise VerifyException(f"scale has element type {element_of(self.scale)}, expected a float")
        if (self.zero_point is None) != scheme.symmetric:
            wanted = "none" if scheme.symmetric else "zero points"
            given = "none are" if self.zero_point is None else "some are"
            raise VerifyException(f"the scheme has {wanted}, and {given} given")
        if self.zero_point is not None:
            check_shape("zero_point", self.zero_point, parameters)
            check_element("zero_point", self.zero_point, i32)


@irdl_op_definition
class QuantizeOp(ConversionOp):
    """The nearest stored values of x / scale + zero point, ties to even, clamped to the storage's range."""

    name = "nquant.quantize"

    def verify_(self) -> None:
        self.verify_conversion(self.result, self.input)


@irdl_op_definition
class DequantizeOp(ConversionOp):
    """(q − zero point) · scale, computed in f32, rounded once."""

    name = "nquant.dequantize"

    def verify_(self) -> None:
        self.verify_conversion(self.input, self.result)


NQUANT = Dialect("nquant", [QuantizeOp, DequantizeOp], [SchemeAttr, QuantizedType])
