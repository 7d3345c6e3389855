"""Operations of the `tile` dialect that give indices: of ranks and chips, of rows, computed ones."""

from __future__ import annotations

from xdsl.dialects.builtin import I64, IndexType, IntegerAttr, StringAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation, attr_def, irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException


@irdl_op_definition
class RankOp(IRDLOperation):
    """The number of the rank that runs the program."""

    name = "tile.rank"
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "`:` type($result) attr-dict"

    def __init__(self) -> None:
        super().__init__(result_types=[IndexType()])


@irdl_op_definition
class ChipOp(IRDLOperation):
    """The number of the chip whose core runs the program."""

    name = "tile.chip"
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "`:` type($result) attr-dict"

    def __init__(self) -> None:
        super().__init__(result_types=[IndexType()])


RUNTIME_PARAMETERS = ("slot", "position", "valid", "last", "end")


@irdl_op_definition
class RuntimeOp(IRDLOperation):
    """A row's runtime parameter: slot, position, valid, last = max(valid − 1, 0), end = position + valid."""

    name = "tile.runtime"
    parameter = attr_def(StringAttr)
    row = operand_def(IndexType)
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "$parameter `[` $row `]` `:` type($result) attr-dict"

    def __init__(self, parameter: str, row: SSAValue) -> None:
        attributes: dict[str, Attribute] = {"parameter": StringAttr(parameter)}
        super().__init__(operands=[row], attributes=attributes, result_types=[IndexType()])

    def verify_(self) -> None:
        if self.parameter.data not in RUNTIME_PARAMETERS:
            known = ", ".join(RUNTIME_PARAMETERS)
            raise VerifyException(f"parameter is {self.parameter.data}, expected one of {known}")


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A constant index."""

    name = "tile.constant"
    value = attr_def(IntegerAttr[I64])
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "$value attr-dict"

    def __init__(self, value: int) -> None:
        super().__init__(attributes={"value": IntegerAttr(value, 64)}, result_types=[IndexType()])


@irdl_op_definition
class SumOp(IRDLOperation):
    """The index base + coefficient · index: how many valid rows are left in a loop over tiles of them."""

    name = "tile.sum"
    base = operand_def(IndexType)
    coefficient = attr_def(IntegerAttr[I64])
    index = operand_def(IndexType)
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "$base `+` $coefficient `*` $index attr-dict"

    def __init__(self, base: SSAValue, coefficient: int, index: SSAValue) -> None:
        super().__init__(
            operands=[base, index],
            attributes={"coefficient": IntegerAttr(coefficient, 64)},
            result_types=[IndexType()],
        )
