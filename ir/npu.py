"""The `npu` dialect: a program as the target's commands, in order, with their queues and semaphores."""

from __future__ import annotations

from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, DictionaryAttr, StringAttr, SymbolNameConstraint
from xdsl.ir import Attribute, Dialect, Region
from xdsl.irdl import (
    IRDLOperation,
    attr_def,
    irdl_op_definition,
    opt_attr_def,
    region_def,
    traits_def,
)
from xdsl.traits import NoTerminator, SymbolOpInterface


@irdl_op_definition
class ProgramOp(IRDLOperation):
    """The code of one bucket: blocks of commands under labels; labels without a caller are entries."""

    name = "npu.program"
    sym_name = attr_def(SymbolNameConstraint())
    description = opt_attr_def(DictionaryAttr)
    body = region_def("single_block")
    traits = traits_def(NoTerminator(), SymbolOpInterface())

    def __init__(self, name: str, body: Region, description: DictionaryAttr | None = None) -> None:
        attributes: dict[str, Attribute] = {"sym_name": StringAttr(name)}
        if description is not None:
            attributes["description"] = description
        super().__init__(attributes=attributes, regions=[body])


@irdl_op_definition
class LabelOp(IRDLOperation):
    """Names the address of the next command."""

    name = "npu.label"
    sym_name = attr_def(SymbolNameConstraint())

    def __init__(self, name: str) -> None:
        super().__init__(attributes={"sym_name": StringAttr(name)})


@irdl_op_definition
class CommandOp(IRDLOperation):
    """One command: its fields are those that the machine description declares for it.

    A register-offset field is ``{imm, reg}``; the target of a call is a label's name.
    """

    name = "npu.command"
    command = attr_def(StringAttr)
    queue = attr_def(StringAttr)
    fields = attr_def(DictionaryAttr)
    waits = opt_attr_def(ArrayAttr[DenseArrayBase])
    signals = opt_attr_def(ArrayAttr[DenseArrayBase])

    def __init__(
        self,
        command: str,
        queue: str,
        fields: DictionaryAttr,
        waits: ArrayAttr[DenseArrayBase] | None = None,
        signals: ArrayAttr[DenseArrayBase] | None = None,
        module: str = "",
    ) -> None:
        attributes: dict[str, Attribute] = {
            "command": StringAttr(command),
            "queue": StringAttr(queue),
            "fields": fields,
        }
        if waits is not None and waits.data:
            attributes["waits"] = waits
        if signals is not None and signals.data:
            attributes["signals"] = signals
        if module:
            attributes["module"] = StringAttr(module)
        super().__init__(attributes=attributes)


NPU = Dialect("npu", [ProgramOp, LabelOp, CommandOp], [])
