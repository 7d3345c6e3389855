"""`graph.rows`: a part of a function that treats each row (token) by itself, run a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import DenseArrayBase, TensorType, i64
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    attr_def,
    irdl_op_definition,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import IsTerminator, MemoryReadEffect, Pure
from xdsl.utils.exceptions import VerifyException


@irdl_op_definition
class YieldOp(IRDLOperation):
    """The results of a `graph.rows` body."""

    name = "graph.yield"
    values = var_operand_def()
    traits = traits_def(IsTerminator(), Pure())

    def __init__(self, values: Sequence[SSAValue]) -> None:
        super().__init__(operands=[values])


@irdl_op_definition
class RowsOp(IRDLOperation):
    """Runs its body on tiles of rows; the tiles' results, one after the other, are the results.

    Body argument i is input i, or, where `input_dims[i]` is not negative, a tile of it along that
    dimension; result i is put together along `output_dims[i]`. With symbolic sizes the tile is the whole.
    The body may read caches but writes none.
    """

    name = "graph.rows"
    inputs = var_operand_def(TensorType)
    input_dims = attr_def(DenseArrayBase)
    output_dims = attr_def(DenseArrayBase)
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
                "input_dims": DenseArrayBase.from_list(i64, list(input_dims)),
                "output_dims": DenseArrayBase.from_list(i64, list(output_dims)),
            },
            regions=[Region(body)],
            result_types=[result_types],
        )

    @property
    def dims(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Row dimension of each input (negative: none) and of each output."""
        return tuple(
            tuple(int(v) for v in attribute.get_values()) for attribute in (self.input_dims, self.output_dims)
        )  # type: ignore[return-value]

    @property
    def yielded(self) -> YieldOp:
        """The body's terminator."""
        last = self.body.block.last_op
        assert isinstance(last, YieldOp)
        return last

    def verify_(self) -> None:
        inputs, outputs = self.dims
        if len(inputs) != len(self.inputs) or len(self.body.block.args) != len(self.inputs):
            raise VerifyException(
                f"graph.rows: {len(self.inputs)} inputs, {len(inputs)} dimensions, "
                f"{len(self.body.block.args)} body arguments"
            )
        if not isinstance(self.body.block.last_op, YieldOp):
            raise VerifyException("graph.rows: the body does not end in graph.yield")
        if len(outputs) != len(self.outputs) or len(self.yielded.values) != len(self.outputs):
            raise VerifyException(
                f"graph.rows: {len(self.outputs)} results, {len(outputs)} dimensions, "
                f"{len(self.yielded.values)} yielded values"
            )
