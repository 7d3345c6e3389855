"""The text of an `npu.command`'s fields and semaphores.

npu.command tu main {size = [16, 4], stream.base = r2 + 64, chain.op = [mul, ring_add]} wait [(3, 1)]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from npuc.backends.instruction import FieldValue, Reg
from npuc.ir.assembly import float_text, is_identifier, parse_number
from xdsl.parser import Parser
from xdsl.printer import Printer

_REGISTER = re.compile(r"r(\d+)")
_FLOATS = ("inf", "nan")


def _print_word(printer: Printer, word: str) -> None:
    """A string; in quotes where it would read as something else."""
    if is_identifier(word) and not _REGISTER.fullmatch(word) and word not in _FLOATS:
        printer.print_string(word)
    else:
        printer.print_string_literal(word)


def _print_element(printer: Printer, value: int | float | str) -> None:
    if isinstance(value, str):
        _print_word(printer, value)
    else:
        printer.print_string(float_text(value) if isinstance(value, float) else str(value))


def _print_field(printer: Printer, value: FieldValue) -> None:
    match value:
        case Reg(imm, reg):
            sign = "-" if imm < 0 else "+"
            printer.print_string(f"r{reg} {sign} {abs(imm)}" if imm else f"r{reg}")
        case tuple():
            elements = cast(Sequence[int | float | str], value)
            with printer.in_square_brackets():
                printer.print_list(elements, lambda element: _print_element(printer, element))
        case _:
            _print_element(printer, value)


def print_fields(printer: Printer, fields: Mapping[str, FieldValue]) -> None:
    """``{name = value, …}``."""

    def print_one(item: tuple[str, FieldValue]) -> None:
        printer.print_identifier_or_string_literal(item[0])
        printer.print_string(" = ")
        _print_field(printer, item[1])

    with printer.in_braces():
        printer.print_list(fields.items(), print_one)


def parse_fields(parser: Parser) -> dict[str, FieldValue]:
    """The inverse of ``print_fields``."""

    def parse_one() -> tuple[str, FieldValue]:
        name = parser.parse_identifier_or_str_literal()
        parser.parse_punctuation("=")
        return name, _parse_field(parser)

    return dict(parser.parse_comma_separated_list(parser.Delimiter.BRACES, parse_one))


def _parse_element(parser: Parser) -> int | float | str:
    quoted = parser.parse_optional_str_literal()
    if quoted is not None:
        return quoted
    word = parser.parse_optional_identifier()
    if word is None:
        return parse_number(parser)
    return float(word) if word in _FLOATS else word


def _parse_field(parser: Parser) -> FieldValue:
    square = parser.Delimiter.SQUARE
    values = parser.parse_optional_comma_separated_list(square, lambda: _parse_element(parser))
    if values is not None:
        if any(isinstance(v, str) for v in values) and not all(isinstance(v, str) for v in values):
            parser.raise_error("a list holds words or numbers, not both")
        floats = any(isinstance(v, float) for v in values)
        return cast(FieldValue, tuple(float(v) for v in values) if floats else tuple(values))
    if (word := parser.parse_optional_identifier()) is not None:
        found = _REGISTER.fullmatch(word)
        if found is not None:
            return Reg(_parse_offset(parser), int(found[1]))
        return float(word) if word in _FLOATS else word
    return _parse_element(parser)


def _parse_offset(parser: Parser) -> int:
    if parser.parse_optional_punctuation("+") is not None:
        return parser.parse_integer(allow_boolean=False, allow_negative=False)
    return parser.parse_optional_integer(allow_boolean=False) or 0  # a minus belongs to the integer


def print_uses(printer: Printer, word: str, uses: Sequence[tuple[int, int]]) -> None:
    """``wait [(3, 1)]``, nothing where there are none."""
    if uses:
        pairs = ", ".join(f"({semaphore}, {count})" for semaphore, count in uses)
        printer.print_string(f" {word} [{pairs}]")


def parse_uses(parser: Parser, word: str) -> list[tuple[int, int]]:
    """The inverse of ``print_uses``."""

    def parse_use() -> tuple[int, int]:
        with parser.in_parens():
            semaphore = parser.parse_integer(allow_boolean=False)
            parser.parse_punctuation(",")
            return semaphore, parser.parse_integer(allow_boolean=False)

    if parser.parse_optional_keyword(word) is None:
        return []
    return parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parse_use)
