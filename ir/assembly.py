"""Custom assembly of our dialects: values by name alone, keyword arguments, the dictionary at the end.

    %y = graph.rms_norm %x, %w eps 1.0e-05 : tensor<1x16x64xf32> {module = "model.norm"}

An operation class describes its text in ``SYNTAX``; what the text has no place for (`module`, attributes of
an unexpected type) stands in the dictionary, so that every valid operation prints and parses back. Operands
have no types in the text: they must be defined above.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from npuc.ir.arrays import int_array
from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    SymbolRefAttr,
    f32,
    i1,
    i64,
)
from xdsl.ir import Attribute, SSAValue, TypeAttribute
from xdsl.irdl import IRDLOperation, OptOperandDef, VarOperandDef
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer

SEGMENTS = "operandSegmentSizes"
_IDENTIFIER = re.compile(r"[A-Za-z_][\w$.]*", re.ASCII)


def parse_value(parser: Parser) -> SSAValue:
    """A value that is defined above, by its name."""
    return _defined(parser, parser.parse_unresolved_operand())


def parse_values(parser: Parser) -> list[SSAValue]:
    """Values separated by commas, or none."""
    first = parser.parse_optional_unresolved_operand()
    values = [] if first is None else [_defined(parser, first)]
    while values and parser.parse_optional_punctuation(",") is not None:
        values.append(parse_value(parser))
    return values


def _defined(parser: Parser, operand: UnresolvedOperand) -> SSAValue:
    values = parser.ssa_values.get(operand.operand_name)
    if values is None:
        parser.raise_error(f"value %{operand.operand_name} is used before its definition", operand.span)
    if operand.index >= len(values):
        parser.raise_error(f"%{operand.operand_name} has {len(values)} results", operand.span)
    return values[operand.index]


def print_values(printer: Printer, values: Iterable[SSAValue]) -> None:
    """Names separated by commas."""
    printer.print_list(values, printer.print_ssa_value)


def float_text(value: float) -> str:
    """The shortest decimal that reads back as this f32: ``1.0e-05``, ``0.125``, ``inf``, ``nan``."""
    if not math.isfinite(value):
        return str(value)
    narrow = _to_f32(value)
    shortest = next(v for digits in range(1, 18) if _to_f32(v := float(f"{value:.{digits}g}")) == narrow)
    mantissa, exponent, power = repr(shortest).partition("e")
    return (mantissa if "." in mantissa else f"{mantissa}.0") + exponent + power


def _to_f32(value: float) -> float:
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def parse_number(parser: Parser) -> int | float:
    """An integer or a float as ``float_text`` writes it."""
    negative = parser.parse_optional_punctuation("-") is not None
    word = parser.parse_optional_keyword_in(("inf", "nan"))
    value = float(word) if word is not None else parser.parse_number()
    return -value if negative else value


def parse_ints(parser: Parser) -> tuple[int, ...]:
    """``[0, 2, -1]``."""
    square = parser.Delimiter.SQUARE
    return tuple(parser.parse_comma_separated_list(square, lambda: parser.parse_integer(allow_boolean=False)))


def ints_text(values: Iterable[int]) -> str:
    """The inverse of ``parse_ints``."""
    return f"[{', '.join(map(str, values))}]"


def is_identifier(text: str) -> bool:
    """Whether a string may stand without quotes."""
    return _IDENTIFIER.fullmatch(text) is not None


@dataclass(frozen=True)
class Codec:
    """How one kind of attribute is written without its type.

    Attributes:
        accepts: whether the text can say everything about an attribute.
        write: prints it.
        read: parses it.
    """

    accepts: Callable[[Attribute], bool]
    write: Callable[[Printer, Any], None]
    read: Callable[[Parser], Attribute]


def _symbol(name: StringAttr) -> SymbolRefAttr:
    return SymbolRefAttr(name)


INTS = Codec(
    lambda a: isinstance(a, DenseArrayBase) and a.elt_type == i64,
    lambda printer, a: printer.print_string(ints_text(a.get_values())),
    lambda parser: int_array(parse_ints(parser)),
)
INT = Codec(
    lambda a: isinstance(a, IntegerAttr) and a.type == i64,
    lambda printer, a: printer.print_string(str(a.value.data)),
    lambda parser: IntegerAttr(parser.parse_integer(allow_boolean=False), 64),
)
F32 = Codec(
    lambda a: isinstance(a, FloatAttr) and a.type == f32,
    lambda printer, a: printer.print_string(float_text(a.value.data)),
    lambda parser: FloatAttr(float(parse_number(parser)), f32),
)
WORD = Codec(
    lambda a: isinstance(a, StringAttr),
    lambda printer, a: printer.print_identifier_or_string_literal(a.data),
    lambda parser: StringAttr(parser.parse_identifier_or_str_literal()),
)
SYMBOL_NAME = Codec(
    lambda a: isinstance(a, StringAttr),
    lambda printer, a: printer.print_symbol_name(a.data),
    lambda parser: parser.parse_symbol_name(),
)
SYMBOL = Codec(
    lambda a: isinstance(a, SymbolRefAttr) and not a.nested_references.data,
    lambda printer, a: printer.print_symbol_name(a.string_value()),
    lambda parser: _symbol(parser.parse_symbol_name()),
)
FLAG = Codec(
    lambda a: isinstance(a, IntegerAttr) and a.type == i1,
    lambda printer, a: None,
    lambda parser: BoolAttr.from_bool(True),
)
TYPE = Codec(
    lambda a: isinstance(a, TypeAttribute),
    lambda printer, a: printer.print_attribute(a),
    lambda parser: parser.parse_type(),
)
ANY = Codec(
    lambda a: True,
    lambda printer, a: printer.print_attribute(a),
    lambda parser: parser.parse_attribute(),
)


@dataclass(frozen=True)
class Syntax:
    """The text of an operation between its name and its result types.

    Attributes:
        lead: attributes before the operands, in order; all are required.
        keywords: attributes after them, each behind its name.
        defaults: what an absent keyword stands for; such values are not printed.
    """

    lead: Mapping[str, Codec]
    keywords: Mapping[str, Codec]
    defaults: Mapping[str, Attribute]


def syntax(
    lead: Mapping[str, Codec] | None = None,
    defaults: Mapping[str, Attribute] | None = None,
    **keywords: Codec,
) -> Syntax:
    """A ``Syntax``; a flag is false where nothing else is said."""
    off: dict[str, Attribute] = {
        name: BoolAttr.from_bool(False) for name, codec in keywords.items() if codec is FLAG
    }
    return Syntax(lead or {}, keywords, {**off, **(defaults or {})})


def print_attributes(printer: Printer, op: IRDLOperation, printed: Collection[str]) -> None:
    """The dictionary at the end: everything that the text before it has not said."""
    printer.print_op_attributes(op.attributes, reserved_attr_names={*printed, SEGMENTS})


class TextualOp(IRDLOperation):
    """Base of the operations with custom assembly; ``SYNTAX`` describes it."""

    SYNTAX: ClassVar[Syntax] = syntax()

    def print(self, printer: Printer) -> None:
        """Prints what follows the operation's name."""
        for name, codec in self.SYNTAX.lead.items():
            printer.print_string(" ")
            codec.write(printer, self.attributes[name])
        self._print_operands(printer)
        printed = [*self.SYNTAX.lead, *self.print_keywords(printer)]
        self.print_result_types(printer)
        print_attributes(printer, self, printed)

    def print_keywords(self, printer: Printer) -> list[str]:
        """Prints the keyword attributes; returns the names of those that need no dictionary."""
        said: list[str] = []
        for name, codec in self.SYNTAX.keywords.items():
            attr = self.attributes.get(name)
            if attr is None or not codec.accepts(attr):
                continue
            said.append(name)
            if attr == self.SYNTAX.defaults.get(name):
                continue
            printer.print_string(f" {name}" if codec is FLAG else f" {name} ")
            codec.write(printer, attr)
        return said

    def print_result_types(self, printer: Printer) -> None:
        """``: type, type``, nothing where there are no results."""
        if self.results:
            printer.print_string(" : ")
            printer.print_list(self.result_types, printer.print_attribute)

    def _print_operands(self, printer: Printer) -> None:
        values: dict[str, SSAValue] = {}
        plain: list[SSAValue] = []
        for name, kind in self.get_irdl_definition().operands:
            value = getattr(self, name)
            if isinstance(kind, OptOperandDef):
                values |= {name: value} if value is not None else {}
            else:
                plain += value if isinstance(kind, VarOperandDef) else [value]
        if plain:
            printer.print_string(" ")
            print_values(printer, plain)
        for name, value in values.items():
            printer.print_string(f" {name} ")
            printer.print_ssa_value(value)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        """Parses what ``print`` prints."""
        definition = cls.get_irdl_definition()
        attributes = {name: codec.read(parser) for name, codec in cls.SYNTAX.lead.items()}
        operands: dict[str, SSAValue | list[SSAValue]] = {name: [] for name, _ in definition.operands}
        plain = [name for name, kind in definition.operands if not isinstance(kind, OptOperandDef)]
        if plain and isinstance(dict(definition.operands)[plain[0]], VarOperandDef):
            operands[plain[0]] = parse_values(parser)
        elif plain:
            operands |= zip(plain, cls._parse_plain(parser, len(plain)), strict=True)
        optional = {
            name: found for name, found in operands.items() if isinstance(found, list) and name not in plain
        }
        attributes |= cls.parse_keywords(parser, optional)
        types = cls.parse_result_types(parser, len(definition.results))
        attributes |= parser.parse_optional_attr_dict()
        return cls.build(
            operands=list(operands.values()), result_types=types, attributes=cls.complete(attributes)
        )

    @classmethod
    def _parse_plain(cls, parser: Parser, count: int) -> list[SSAValue]:
        values = parse_values(parser)
        if len(values) != count:
            parser.raise_error(f"{cls.name} takes {count} operands, got {len(values)}")
        return values

    @classmethod
    def parse_keywords(
        cls, parser: Parser, operands: Mapping[str, list[SSAValue]] | None = None
    ) -> dict[str, Attribute]:
        """Keyword attributes, and optional operands, which go into the lists of ``operands``."""
        attributes: dict[str, Attribute] = {}
        operands = operands or {}
        missing = [*cls.SYNTAX.keywords, *operands]
        while (word := parser.parse_optional_keyword_in(missing)) is not None:
            missing.remove(word)
            if word in operands:
                operands[word].append(parse_value(parser))
            else:
                attributes[word] = cls.SYNTAX.keywords[word].read(parser)
        return attributes

    @classmethod
    def parse_result_types(cls, parser: Parser, count: int) -> list[Attribute]:
        """``: type, type``."""
        if not count:
            return []
        parser.parse_punctuation(":")
        return parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)

    @classmethod
    def complete(cls, attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
        """The attributes in the order of the text, with those that the text left out."""
        known = {**cls.SYNTAX.defaults, **attributes}
        named = {name: known[name] for name in (*cls.SYNTAX.lead, *cls.SYNTAX.keywords) if name in known}
        return {**named, **known}
