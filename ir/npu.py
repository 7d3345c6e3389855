"""The `npu` dialect: a program as the target's commands, in order, with their queues and semaphores.

`CommandOp` and `Instruction` (backends/instruction.py) say the same thing; each converts to the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Self, cast

from npuc.backends.instruction import FieldValue, Instruction, Reg, SemaphoreUse
from npuc.ir.arrays import int_array
from npuc.ir.assembly import WORD, Syntax, TextualOp, print_attributes, syntax
from npuc.ir.npu_assembly import parse_fields, parse_uses, print_fields, print_uses
from npuc.ir.tile_spec import integer, ints
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    Float32Type,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    f32,
    i64,
)
from xdsl.ir import Attribute, Dialect, Region
from xdsl.irdl import (
    attr_def,
    irdl_op_definition,
    opt_attr_def,
    region_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import NoTerminator, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

CONTROL = "control"


@irdl_op_definition
class ProgramOp(TextualOp):
    """The code of one bucket: commands under labels; labels that no command calls are entries."""

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

    def print(self, printer: Printer) -> None:
        """``@prefill_1x16 { … }``."""
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False, print_empty_block=False)
        print_attributes(printer, self, ("sym_name",))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        name = parser.parse_symbol_name()
        body = parser.parse_region()
        attributes: dict[str, Attribute] = {"sym_name": name, **parser.parse_optional_attr_dict()}
        return cls.build(attributes=attributes, regions=[body])

    def verify_(self) -> None:
        labels = [op.label.data for op in self.body.block.ops if isinstance(op, LabelOp)]
        for name in labels:
            if labels.count(name) > 1:
                raise VerifyException(f"label {name} stands {labels.count(name)} times")
        for op in self.body.block.ops:
            if isinstance(op, CommandOp) and op.callee is not None and op.callee not in labels:
                raise VerifyException(f"call of {op.callee}, which is no label of the program")


@irdl_op_definition
class LabelOp(TextualOp):
    """Names the address of the next command."""

    name = "npu.label"
    label = attr_def(StringAttr)
    SYNTAX: ClassVar[Syntax] = syntax({"label": WORD})

    def __init__(self, name: str) -> None:
        super().__init__(attributes={"label": StringAttr(name)})


@irdl_op_definition
class CommandOp(TextualOp):
    """One command: its fields are those that the machine description declares for it.

    A register-offset field is ``{imm, reg}``; the target of a call is a label's name. ``module`` is the
    checkpoint module and ``source`` the kind of operation that the command came from.
    """

    name = "npu.command"
    command = attr_def(StringAttr)
    queue = attr_def(StringAttr)
    fields = attr_def(DictionaryAttr)
    waits = opt_attr_def(ArrayAttr[DenseArrayBase])
    signals = opt_attr_def(ArrayAttr[DenseArrayBase])
    module = opt_attr_def(StringAttr)
    source = opt_attr_def(StringAttr)

    def __init__(self, instruction: Instruction, module: str = "", source: str = "") -> None:
        fields = {name: field_attr(value) for name, value in instruction.fields.items()}
        attributes: dict[str, Attribute] = {
            "command": StringAttr(instruction.command),
            "queue": StringAttr(instruction.queue),
            "fields": DictionaryAttr(fields),
        }
        if instruction.waits:
            attributes["waits"] = uses_attr(instruction.waits)
        if instruction.signals:
            attributes["signals"] = uses_attr(instruction.signals)
        if module:
            attributes["module"] = StringAttr(module)
        if source:
            attributes["source"] = StringAttr(source)
        super().__init__(attributes=attributes)

    @property
    def callee(self) -> str | None:
        """The label that a call names."""
        target = self.fields.data.get("offset")
        return target.data if self.queue.data == CONTROL and isinstance(target, StringAttr) else None

    @property
    def instruction(self) -> Instruction:
        """The command as a plain value; a call's offset is still a label."""
        return Instruction(
            self.command.data,
            self.queue.data,
            {name: field_value(attr) for name, attr in self.fields.data.items()},
            uses(self.waits),
            uses(self.signals),
            " ".join(attr.data for attr in (self.source, self.module) if attr is not None),
        )

    def print(self, printer: Printer) -> None:
        """``tu main {size = [16, 4], …} wait [(3, 1)] signal [(4, 1)]``."""
        printer.print_string(" ")
        printer.print_identifier_or_string_literal(self.command.data)
        printer.print_string(" ")
        printer.print_identifier_or_string_literal(self.queue.data)
        printer.print_string(" ")
        print_fields(printer, {name: field_value(attr) for name, attr in self.fields.data.items()})
        print_uses(printer, "wait", uses(self.waits))
        print_uses(printer, "signal", uses(self.signals))
        print_attributes(printer, self, ("command", "queue", "fields", "waits", "signals"))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        command, queue = (parser.parse_identifier_or_str_literal() for _ in range(2))
        fields = parse_fields(parser)
        waits, signals = (parse_uses(parser, word) for word in ("wait", "signal"))
        instruction = Instruction(
            command,
            queue,
            fields,
            tuple(SemaphoreUse(*use) for use in waits),
            tuple(SemaphoreUse(*use) for use in signals),
        )
        op = cls(instruction)
        op.attributes |= parser.parse_optional_attr_dict()
        return op

    def verify_(self) -> None:
        for name, attr in self.fields.data.items():
            if not is_field(attr):
                raise VerifyException(f"field {name} is {attr}, which no command field can be")
        for word, attrs in (("wait", self.waits), ("signal", self.signals)):
            for use in map(ints, attrs or ()):
                if len(use) != 2 or use[0] < 0 or use[1] < 1:
                    raise VerifyException(
                        f"{word} is {list(use)}, expected a semaphore and a count of at least 1"
                    )


def is_field(attr: Attribute) -> bool:
    """Whether an attribute is one that ``field_attr`` makes."""
    match attr:
        case DictionaryAttr():
            return set(attr.data) == {"imm", "reg"} and all(map(_is_i64, attr.data.values()))
        case FloatAttr():
            return attr.type == f32
        case ArrayAttr():
            return all(isinstance(v, StringAttr) for v in attr)
        case DenseArrayBase():
            return attr.elt_type in (i64, f32)
        case _:
            return isinstance(attr, StringAttr) or _is_i64(attr)


def _is_i64(attr: Attribute) -> bool:
    return isinstance(attr, IntegerAttr) and attr.type == i64


def field_attr(value: FieldValue) -> Attribute:
    """A field's value as an attribute."""
    match value:
        case Reg(imm, reg):
            return DictionaryAttr({"imm": IntegerAttr(imm, 64), "reg": IntegerAttr(reg, 64)})
        case int():
            return IntegerAttr(value, 64)
        case float():
            return FloatAttr(value, f32)
        case str():
            return StringAttr(value)
        case tuple() if all(isinstance(v, int) for v in value):
            return int_array([int(v) for v in value])
        case tuple() if all(isinstance(v, str) for v in value):
            return ArrayAttr([StringAttr(str(v)) for v in value])
        case tuple():
            return DenseArrayBase.from_list(f32, [float(v) for v in value])


def field_value(attr: Attribute) -> FieldValue:
    """The inverse of ``field_attr``."""
    match attr:
        case DictionaryAttr():
            return Reg(integer(attr.data["imm"]), integer(attr.data["reg"]))
        case IntegerAttr():
            return attr.value.data
        case FloatAttr():
            return attr.value.data
        case StringAttr():
            return attr.data
        case ArrayAttr():
            return tuple(v.data for v in attr if isinstance(v, StringAttr))
        case DenseArrayBase() if isinstance(attr.elt_type, Float32Type):
            return tuple(cast("DenseArrayBase[Float32Type]", attr).get_values())
        case _:
            return ints(attr)


def uses_attr(uses: Iterable[tuple[int, int]]) -> ArrayAttr[DenseArrayBase]:
    """Waits or signals as an attribute."""
    return ArrayAttr([int_array(use) for use in uses])


def uses(attr: Attribute | None) -> tuple[SemaphoreUse, ...]:
    """The inverse of ``uses_attr``; none where there is no attribute."""
    return tuple(SemaphoreUse(*ints(use)) for use in attr) if isinstance(attr, ArrayAttr) else ()


NPU = Dialect("npu", [ProgramOp, LabelOp, CommandOp], [])
