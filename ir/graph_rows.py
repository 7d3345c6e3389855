"""`graph.rows`: a part of a function that treats each row (token) by itself, run a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from npuc.ir.arrays import int_array
from npuc.ir.assembly import (
    TextualOp,
    ints_text,
    parse_ints,
    parse_value,
    print_attributes,
)
from npuc.ir.graph_types import check_dim, ints, shape_of
from npuc.ir.shapes import same_size, shape_text
from xdsl.dialects.builtin import DenseArrayBase, TensorType, UnitAttr
from xdsl.ir import Attribute, Block, BlockArgument, Region, SSAValue
from xdsl.irdl import (
    attr_def,
    irdl_op_definition,
    opt_attr_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import IsTerminator, MemoryReadEffect, Pure
from xdsl.utils.exceptions import VerifyException


@irdl_op_definition
class YieldOp(TextualOp):
    """The results of a `graph.rows` body."""

    name = "graph.yield"
    values = var_operand_def()
    traits = traits_def(IsTerminator(), Pure())

    def __init__(self, values: Sequence[SSAValue]) -> None:
        super().__init__(operands=[values])


@irdl_op_definition
class RowsOp(TextualOp):
    """Runs its body on tiles of rows; the tiles' results, one after the other, are the results.

    Body argument i is input i, or, where `input_dims[i]` is not negative, a tile of it along that
    dimension; result i is put together along `output_dims[i]`. With symbolic sizes the tile is the whole.
    The body may read caches but writes none. An `unrolled` one becomes no loop, so that the commands of its
    tiles can be interleaved.
    """

    name = "graph.rows"
    inputs = var_operand_def(TensorType)
    input_dims = attr_def(DenseArrayBase)
    output_dims = attr_def(DenseArrayBase)
    unrolled = opt_attr_def(UnitAttr)
    body = region_def("single_block")
    outputs = var_result_def(TensorType)
    traits = traits_def(MemoryReadEffect())

    def __init__(
        self,
        inputs: Sequence[SSAValue],
        input_dims: Sequence[int],
        output_dims: Sequence[int],
        body: Block,
        result_types: Sequence[Attribute],
    ) -> None:
        super().__init__(
            operands=[inputs],
            attributes={
                "input_dims": int_array(input_dims),
                "output_dims": int_array(output_dims),
            },
            regions=[Region(body)],
            result_types=[result_types],
        )

    @property
    def dims(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Row dimension of each input (negative: none) and of each output."""
        return ints(self.input_dims), ints(self.output_dims)

    @property
    def yielded(self) -> YieldOp:
        """The body's terminator."""
        last = self.body.block.last_op
        assert isinstance(last, YieldOp)
        return last

    def print(self, printer: Printer) -> None:
        """``(%tile : type = %x along 1, %k : type = %keys) along [1] : types { … }``."""
        dims, output_dims = self.dims
        arguments = zip(self.body.block.args, self.inputs, dims, strict=True)

        def print_argument(triple: tuple[BlockArgument, SSAValue, int]) -> None:
            argument, value, dim = triple
            printer.print_ssa_value(argument)
            printer.print_string(" : ")
            printer.print_attribute(argument.type)
            printer.print_string(" = ")
            printer.print_ssa_value(value)
            printer.print_string(f" along {dim}" if dim >= 0 else "")

        with printer.in_parens():
            printer.print_list(arguments, print_argument)
        printer.print_string(f" along {ints_text(output_dims)}")
        self.print_result_types(printer)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False)
        print_attributes(printer, self, ("input_dims", "output_dims"))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        def parse_argument() -> tuple[Parser.Argument, SSAValue, int]:
            argument = parser.parse_argument()
            parser.parse_punctuation("=")
            value = parse_value(parser)
            along = parser.parse_optional_keyword("along")
            return argument, value, -1 if along is None else parser.parse_integer(allow_boolean=False)

        paren = parser.Delimiter.PAREN
        arguments = parser.parse_comma_separated_list(paren, parse_argument)
        parser.parse_keyword("along")
        output_dims = parse_ints(parser)
        types = cls.parse_result_types(parser, len(output_dims))
        body = parser.parse_region([argument for argument, _, _ in arguments])
        attributes: dict[str, Attribute] = {
            "input_dims": int_array([dim for _, _, dim in arguments]),
            "output_dims": int_array(output_dims),
            **parser.parse_optional_attr_dict(),
        }
        return cls.build(
            operands=[[value for _, value, _ in arguments]],
            attributes=attributes,
            regions=[body],
            result_types=[types],
        )

    def verify_(self) -> None:
        dims, output_dims = self.dims
        arguments = self.body.block.args
        if len(dims) != len(self.inputs) or len(arguments) != len(self.inputs):
            raise VerifyException(
                f"{len(self.inputs)} inputs, {len(dims)} dimensions, {len(arguments)} body arguments"
            )
        if not isinstance(self.body.block.last_op, YieldOp):
            raise VerifyException("the body does not end in graph.yield")
        values = self.yielded.values
        if len(output_dims) != len(self.outputs) or len(values) != len(self.outputs):
            raise VerifyException(
                f"{len(self.outputs)} results, {len(output_dims)} dimensions, {len(values)} yielded values"
            )
        for number, (value, argument, dim) in enumerate(zip(self.inputs, arguments, dims, strict=True)):
            if dim >= 0:
                _check_tile(f"input {number}", value, argument, dim)
            elif value.type != argument.type:
                raise VerifyException(f"input {number} is {value.type}, its argument {argument.type}")
        for number, (whole, tile, dim) in enumerate(zip(self.outputs, values, output_dims, strict=True)):
            _check_tile(f"result {number}", whole, tile, dim)


def _check_tile(what: str, whole: SSAValue, tile: SSAValue, dim: int) -> None:
    """A tile is as its whole but along the row dimension."""
    sizes, own = shape_of(whole), shape_of(tile)
    check_dim(f"row dimension of {what}", dim, len(sizes))
    rest = [(a, b) for i, (a, b) in enumerate(zip(sizes, own, strict=False)) if i != dim]
    if len(sizes) != len(own) or not all(same_size(a, b) for a, b in rest):
        raise VerifyException(
            f"{what} has shape {shape_text(sizes)}, its tile {shape_text(own)}: "
            f"they differ beside dimension {dim}"
        )
