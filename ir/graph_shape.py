"""Constants, reductions and operations that rearrange elements, of the `graph` dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from npuc.ir.arrays import int_array
from npuc.ir.assembly import F32, FLAG, INT, INTS, WORD, Syntax, print_attributes, syntax
from npuc.ir.graph_elementwise import GraphOp
from npuc.ir.graph_types import (
    check_dim,
    check_element,
    check_rank,
    check_same,
    check_shape,
    element_of,
    index_of,
    ints,
    shape_of,
    tensor_type,
)
from npuc.ir.shapes import Dim, broadcast_shapes, same_count, same_shape, same_size, shape_text
from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    i32,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import attr_def, irdl_op_definition, operand_def, result_def, var_operand_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException


@irdl_op_definition
class ConstantOp(GraphOp):
    """A small constant tensor."""

    name = "graph.constant"
    value = attr_def(DenseIntOrFPElementsAttr)
    result = result_def(TensorType)

    def __init__(self, value: DenseIntOrFPElementsAttr, type: TensorType[Attribute] | None = None) -> None:
        super().__init__(attributes={"value": value}, result_types=[type or value.type])

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.value)
        if self.result.type != self.value.type:
            printer.print_string(" -> ")
            printer.print_attribute(self.result.type)
        print_attributes(printer, self, ("value",))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        value = parser.parse_attribute()
        if not isinstance(value, DenseIntOrFPElementsAttr):
            parser.raise_error("graph.constant takes a dense attribute")
        arrow = parser.parse_optional_punctuation("->")
        kind = value.type if arrow is None else parser.parse_type()
        attributes = {"value": value, **parser.parse_optional_attr_dict()}
        return cls.build(attributes=attributes, result_types=[kind])

    def verify_(self) -> None:
        check_shape("result", self.result, self.value.type.get_shape())
        check_element("result", self.result, self.value.type.element_type)


@irdl_op_definition
class IotaOp(GraphOp):
    """Each element is its own index along ``dim``."""

    name = "graph.iota"
    dim = attr_def(IntegerAttr)
    result = result_def(TensorType)
    SYNTAX: ClassVar[Syntax] = syntax(dim=INT)

    def __init__(self, shape: Sequence[Dim], dim: int, element: Attribute = i32) -> None:
        super().__init__(attributes={"dim": IntegerAttr(dim, 64)}, result_types=[tensor_type(shape, element)])

    def verify_(self) -> None:
        check_dim("dim", index_of(self.dim), len(shape_of(self.result)))


REDUCE_KINDS = ("sum", "mean", "max", "min", "any", "all")


def _reduced(shape: Sequence[Dim], dims: Sequence[int], keepdims: bool) -> list[Dim]:
    return [1 if i in dims else d for i, d in enumerate(shape) if keepdims or i not in dims]


@irdl_op_definition
class ReduceOp(GraphOp):
    """Reduction over ``dims``."""

    name = "graph.reduce"
    input = operand_def(TensorType)
    kind = attr_def(StringAttr)
    dims = attr_def(DenseArrayBase)
    keepdims = attr_def(BoolAttr)
    result = result_def(TensorType)
    SYNTAX: ClassVar[Syntax] = syntax({"kind": WORD}, dims=INTS, keepdims=FLAG)

    def __init__(self, value: SSAValue, kind: str, dims: Sequence[int], keepdims: bool) -> None:
        shape = shape_of(value)
        axes = sorted({d % len(shape) for d in dims})
        super().__init__(
            operands=[value],
            attributes={
                "kind": StringAttr(kind),
                "dims": int_array(axes),
                "keepdims": BoolAttr.from_bool(keepdims),
            },
            result_types=[tensor_type(_reduced(shape, axes, keepdims), element_of(value))],
        )

    def verify_(self) -> None:
        if self.kind.data not in REDUCE_KINDS:
            raise VerifyException(f"kind is {self.kind.data}, expected one of {', '.join(REDUCE_KINDS)}")
        shape, dims = shape_of(self.input), ints(self.dims)
        for dim in dims:
            check_dim("reduced dimension", dim, len(shape))
        check_shape("result", self.result, _reduced(shape, dims, bool(self.keepdims.value.data)))
        check_element("result", self.result, element_of(self.input))


class ShapeOp(GraphOp):
    """Base of the operations that only rearrange elements; the result type says the new shape."""

    input = operand_def(TensorType)
    result = result_def(TensorType)

    def verify_(self) -> None:
        check_element("result", self.result, element_of(self.input))
        self.verify_shape()

    def verify_shape(self) -> None:
        """Raises VerifyException when the result's shape does not follow from the input's."""


@irdl_op_definition
class ReshapeOp(ShapeOp):
    """The same elements in row-major order under another shape."""

    name = "graph.reshape"

    def __init__(self, value: SSAValue, shape: Sequence[Dim]) -> None:
        super().__init__(operands=[value], result_types=[tensor_type(shape, element_of(value))])

    def verify_shape(self) -> None:
        source, target = shape_of(self.input), shape_of(self.result)
        if not same_count(source, target):
            raise VerifyException(
                f"numbers of elements differ: input has shape {shape_text(source)}, "
                f"result has shape {shape_text(target)}"
            )


@irdl_op_definition
class BroadcastOp(ShapeOp):
    """Sizes of 1 repeated up to the result's (numpy broadcasting)."""

    name = "graph.broadcast"

    def __init__(self, value: SSAValue, shape: Sequence[Dim]) -> None:
        super().__init__(operands=[value], result_types=[tensor_type(shape, element_of(value))])

    def verify_shape(self) -> None:
        source, target = shape_of(self.input), shape_of(self.result)
        if not same_shape(broadcast_shapes(source, target), target):
            raise VerifyException(f"{shape_text(source)} does not broadcast to {shape_text(target)}")


@irdl_op_definition
class TransposeOp(ShapeOp):
    """Result dimension i is input dimension ``perm[i]``."""

    name = "graph.transpose"
    perm = attr_def(DenseArrayBase)
    SYNTAX: ClassVar[Syntax] = syntax(perm=INTS)

    def __init__(self, value: SSAValue, perm: Sequence[int]) -> None:
        shape = shape_of(value)
        super().__init__(
            operands=[value],
            attributes={"perm": int_array(perm)},
            result_types=[tensor_type([shape[p] for p in perm], element_of(value))],
        )

    def verify_shape(self) -> None:
        shape, perm = shape_of(self.input), ints(self.perm)
        if sorted(perm) != list(range(len(shape))):
            raise VerifyException(f"perm is {list(perm)}, expected a permutation of {len(shape)} dimensions")
        check_shape("result", self.result, [shape[p] for p in perm])


def _sliced(size: Dim, start: int, stop: int, step: int) -> Dim:
    """Elements of start : stop : step; a stop of −1 means the end."""
    if start == 0 and step == 1 and (stop == -1 or stop == size):
        return size
    end = size if stop == -1 else stop
    return -((start - end) // step)  # ceiling of (end − start) / step


@irdl_op_definition
class SliceOp(ShapeOp):
    """Elements starts[d] : stops[d] : steps[d] of each dimension; a stop of −1 means the end."""

    name = "graph.slice"
    starts = attr_def(DenseArrayBase)
    stops = attr_def(DenseArrayBase)
    steps = attr_def(DenseArrayBase)

    def __init__(
        self, value: SSAValue, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] | None = None
    ) -> None:
        steps = steps or [1] * len(starts)
        ranges = zip(shape_of(value), starts, stops, steps, strict=True)
        super().__init__(
            operands=[value],
            attributes={"starts": int_array(starts), "stops": int_array(stops), "steps": int_array(steps)},
            result_types=[tensor_type([_sliced(*r) for r in ranges], element_of(value))],
        )

    def print_keywords(self, printer: Printer) -> list[str]:
        """``[:, 4:8, ::2]``: as in Python."""
        ranges = zip(ints(self.starts), ints(self.stops), ints(self.steps), strict=True)
        printer.print_string(f" [{', '.join(_range_text(*r) for r in ranges)}]")
        return ["starts", "stops", "steps"]

    @classmethod
    def parse_keywords(
        cls, parser: Parser, operands: Mapping[str, list[SSAValue]] | None = None
    ) -> dict[str, Attribute]:
        """The inverse of ``print_keywords``."""
        square = parser.Delimiter.SQUARE
        ranges = parser.parse_comma_separated_list(square, lambda: _parse_range(parser))
        columns = {"starts": 0, "stops": 1, "steps": 2}
        return {name: int_array([r[column] for r in ranges]) for name, column in columns.items()}

    def verify_shape(self) -> None:
        shape = shape_of(self.input)
        starts, stops, steps = (ints(a) for a in (self.starts, self.stops, self.steps))
        if not len(starts) == len(stops) == len(steps) == len(shape):
            raise VerifyException(f"{len(starts)} ranges for {len(shape)} dimensions")
        ranges = list(zip(shape, starts, stops, steps, strict=True))
        for number, (size, start, stop, step) in enumerate(ranges):
            if start < 0 or step < 1 or stop < -1 or (isinstance(size, int) and max(start, stop) > size):
                text = f"{start}:{stop}:{step}"
                raise VerifyException(f"range {text} does not fit dimension {number} of {shape_text(shape)}")
        check_shape("result", self.result, [_sliced(*r) for r in ranges])


def _range_text(start: int, stop: int, step: int) -> str:
    head = f"{start or ''}:{'' if stop == -1 else stop}"
    return head if step == 1 else f"{head}:{step}"


def _parse_range(parser: Parser) -> tuple[int, int, int]:
    start = parser.parse_optional_integer(allow_boolean=False)
    parser.parse_punctuation(":")
    stop = parser.parse_optional_integer(allow_boolean=False)
    step = 1
    if parser.parse_optional_punctuation(":") is not None:
        step = parser.parse_integer(allow_boolean=False)
    return start or 0, -1 if stop is None else stop, step


@irdl_op_definition
class PadOp(ShapeOp):
    """``low``/``high`` elements of ``value`` added around each dimension."""

    name = "graph.pad"
    low = attr_def(DenseArrayBase)
    high = attr_def(DenseArrayBase)
    value = attr_def(FloatAttr)
    SYNTAX: ClassVar[Syntax] = syntax(low=INTS, high=INTS, value=F32)

    def __init__(self, input: SSAValue, low: Sequence[int], high: Sequence[int], value: float = 0.0) -> None:
        shape = [d + a + b for d, a, b in zip(shape_of(input), low, high, strict=True)]
        super().__init__(
            operands=[input],
            attributes={"low": int_array(low), "high": int_array(high), "value": FloatAttr(value, 32)},
            result_types=[tensor_type(shape, element_of(input))],
        )

    def verify_shape(self) -> None:
        shape, low, high = shape_of(self.input), ints(self.low), ints(self.high)
        if not len(low) == len(high) == len(shape):
            raise VerifyException(
                f"low has {len(low)} and high {len(high)} entries for {len(shape)} dimensions"
            )
        if min((*low, *high), default=0) < 0:
            raise VerifyException(f"padding is negative: low is {list(low)}, high is {list(high)}")
        check_shape("result", self.result, [d + a + b for d, a, b in zip(shape, low, high, strict=True)])


@irdl_op_definition
class ConcatOp(GraphOp):
    """The inputs one after the other along ``dim``."""

    name = "graph.concat"
    inputs = var_operand_def(TensorType)
    dim = attr_def(IntegerAttr)
    result = result_def(TensorType)
    SYNTAX: ClassVar[Syntax] = syntax(dim=INT)

    def __init__(self, values: Sequence[SSAValue], dim: int) -> None:
        dim %= len(shape_of(values[0]))
        super().__init__(
            operands=[values],
            attributes={"dim": IntegerAttr(dim, 64)},
            result_types=[tensor_type(_joined(values, dim), element_of(values[0]))],
        )

    def verify_(self) -> None:
        if not self.inputs:
            raise VerifyException("no inputs to concatenate")
        shape, dim = shape_of(self.inputs[0]), index_of(self.dim)
        check_dim("dim", dim, len(shape))
        for number, value in enumerate(self.inputs):
            check_rank(f"input {number}", value, len(shape))
            check_element(f"input {number}", value, element_of(self.inputs[0]))
            own = shape_of(value)
            if not all(same_size(a, b) for i, (a, b) in enumerate(zip(own, shape, strict=True)) if i != dim):
                raise VerifyException(
                    f"shapes differ beside dimension {dim}: input 0 has {shape_text(shape)}, "
                    f"input {number} has {shape_text(own)}"
                )
        check_shape("result", self.result, _joined(self.inputs, dim))
        check_element("result", self.result, element_of(self.inputs[0]))


def _joined(values: Sequence[SSAValue], dim: int) -> list[Dim]:
    shape = list(shape_of(values[0]))
    for value in values[1:]:
        shape[dim] = shape[dim] + shape_of(value)[dim]
    return shape


@irdl_op_definition
class RelayoutOp(GraphOp):
    """The same tensor under another placement (phase layout)."""

    name = "graph.relayout"
    input = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, type: TensorType[Attribute]) -> None:
        super().__init__(operands=[value], result_types=[type])

    def verify_(self) -> None:
        check_same("result", self.result, self.input)
