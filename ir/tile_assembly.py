"""The text of `tile.pass` and `tile.copy`.

    tile.pass [16, 4, 64, 4] reduce [2, 3] ring 2
      stream(%x strides [4, 0, 0, 1] slices [0, 0, 1, 0]) stationary(%w + 8 + 64 * %i strides [0, 64, 4, 1])
      out(%y strides [4, 1, 0, 0]) mask(d3 + 4 * slice < %end) chain [mul stash, add 1.0, ring_add]
    tile.copy [8, 64] src(%k + 64 * %row strides [64, 1]) dst(%c strides [64, 1]) limit(%valid)

(each on one line). Buffers and index values are numbered in the order of the text: ports first, then what
bounds them, which is how the lowering numbers them too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from npuc.ir.assembly import (
    float_text,
    ints_text,
    parse_ints,
    parse_number,
    parse_value,
)
from npuc.ir.tile_spec import COPY_PORTS, PASS_PORTS, SOURCES, CopySpec, Limit, PassSpec, Port, Step
from xdsl.ir import SSAValue
from xdsl.parser import Parser
from xdsl.printer import Printer

_DIMENSION = re.compile(r"d(\d+)")


@dataclass
class Operands:
    """The values that ports and limits refer to by number."""

    buffers: list[SSAValue] = field(default_factory=list[SSAValue])
    indices: list[SSAValue] = field(default_factory=list[SSAValue])

    def buffer(self, value: SSAValue) -> int:
        """The number of a buffer, a new one at its first use."""
        return _position(self.buffers, value)

    def index(self, value: SSAValue) -> int:
        """The number of an index value, a new one at its first use."""
        return _position(self.indices, value)


def _position(values: list[SSAValue], value: SSAValue) -> int:
    if value not in values:
        values.append(value)
    return values.index(value)


def _print_port(printer: Printer, name: str, port: Port, operands: Operands) -> None:
    printer.print_string(f" {name}(")
    printer.print_ssa_value(operands.buffers[port.buffer])
    if port.offset:
        printer.print_string(f" {'-' if port.offset < 0 else '+'} {abs(port.offset)}")
    for number, scale in port.index:
        factor = "" if abs(scale) == 1 else f"{abs(scale)} * "
        printer.print_string(f" {'-' if scale < 0 else '+'} {factor}")
        printer.print_ssa_value(operands.indices[number])
    printer.print_string(f" strides {ints_text(port.strides)}")
    if any(port.slices):
        printer.print_string(f" slices {ints_text(port.slices)}")
    printer.print_string(")")


def _parse_port(parser: Parser, operands: Operands) -> Port:
    with parser.in_parens():
        buffer = operands.buffer(parse_value(parser))
        offset, terms = 0, list[tuple[int, int]]()
        while (sign := _parse_sign(parser)) is not None:
            factor = parser.parse_optional_integer(allow_boolean=False, allow_negative=False)
            if factor is not None and parser.parse_optional_punctuation("*") is None:
                offset += sign * factor
            else:
                scale = sign * (1 if factor is None else factor)
                terms.append((operands.index(parse_value(parser)), scale))
        parser.parse_keyword("strides")
        strides = parse_ints(parser)
        slices = parse_ints(parser) if parser.parse_optional_keyword("slices") is not None else ()
    return Port(buffer, offset, strides, slices, tuple(terms))


def _parse_sign(parser: Parser) -> int | None:
    if parser.parse_optional_punctuation("+") is not None:
        return 1
    return None if parser.parse_optional_punctuation("-") is None else -1


def _print_bound(printer: Printer, limit: Limit, operands: Operands) -> None:
    if limit.index < 0:
        printer.print_string(str(limit.limit))
    else:
        printer.print_ssa_value(operands.indices[limit.index])


def _print_limit(printer: Printer, name: str, limit: Limit, operands: Operands) -> None:
    stride = f" + {limit.slice_stride} * slice" if limit.slice_stride else ""
    printer.print_string(f" {name}(d{limit.dim}{stride} < ")
    _print_bound(printer, limit, operands)
    printer.print_string(")")


@dataclass(frozen=True)
class _Range:
    """A limit whose bound, if a value, has no number yet: ports are numbered first."""

    dim: int
    stride: int
    bound: int | SSAValue

    def numbered(self, operands: Operands) -> Limit:
        if isinstance(self.bound, int):
            return Limit(self.dim, self.bound, self.stride)
        return Limit(self.dim, 0, self.stride, operands.index(self.bound))


def _parse_range(parser: Parser) -> _Range:
    with parser.in_parens():
        word = parser.parse_identifier()
        found = _DIMENSION.fullmatch(word)
        if found is None:
            parser.raise_error(f"expected a nest dimension (d0, d1, …), got {word}")
        stride = 0
        if parser.parse_optional_punctuation("+") is not None:
            stride = parser.parse_integer(allow_boolean=False)
            parser.parse_punctuation("*")
            parser.parse_keyword("slice")
        parser.parse_punctuation("<")
        return _Range(int(found[1]), stride, _parse_bound(parser))


def _parse_bound(parser: Parser) -> int | SSAValue:
    constant = parser.parse_optional_integer(allow_boolean=False)
    return parse_value(parser) if constant is None else constant


def step_text(step: Step) -> str:
    """``exp``, ``mul stash``, ``add 1.0e-05``, ``select operand else -3.0e+38``."""
    if step.source == "imm":
        return f"{step.op} {float_text(step.value)}"
    source = "" if step.source == "none" else f" {step.source}"
    otherwise = f" else {float_text(step.value)}" if step.value else ""
    return f"{step.op}{source}{otherwise}"


def _parse_step(parser: Parser) -> Step:
    op = parser.parse_identifier()
    source = parser.parse_optional_keyword_in([s for s in SOURCES if s not in ("none", "imm")])
    if parser.parse_optional_keyword("else") is not None:
        return Step(op, source or "none", float(parse_number(parser)))
    if source is not None:
        return Step(op, source)
    value = _parse_optional_number(parser)
    return Step(op) if value is None else Step(op, "imm", float(value))


def _parse_optional_number(parser: Parser) -> float | None:
    """A number in a chain, unless the step ends here."""
    if parser.parse_optional_punctuation("-") is not None:
        return -float(parse_number(parser))
    word = parser.parse_optional_keyword_in(("inf", "nan"))
    return float(word) if word is not None else parser.parse_optional_number()


def print_pass(
    printer: Printer, spec: PassSpec, buffers: Sequence[SSAValue], indices: Sequence[SSAValue]
) -> None:
    """What follows ``tile.pass``, up to the dictionary."""
    operands = Operands(list(buffers), list(indices))
    printer.print_string(f" {ints_text(spec.size)}")
    if spec.reduce:
        printer.print_string(f" reduce {ints_text(spec.reduce)}")
    if spec.ring_dim >= 0:
        printer.print_string(f" ring {spec.ring_dim}")
    if spec.fill is not None:
        printer.print_string(f" fill {float_text(spec.fill)}")
    for name, port in spec.ports.items():
        _print_port(printer, name, port, operands)
    if spec.mask is not None:
        _print_limit(printer, "mask", spec.mask, operands)
    if spec.chain:
        printer.print_string(f" chain [{', '.join(map(step_text, spec.chain))}]")
    if spec.limit is not None:
        _print_limit(printer, "limit", spec.limit, operands)


def parse_pass(parser: Parser) -> tuple[PassSpec, Operands]:
    """The inverse of ``print_pass``; the parts after the size may come in any order."""
    operands, ranges = Operands(), dict[str, _Range]()
    spec = PassSpec(parse_ints(parser), {})
    words = ["reduce", "ring", "fill", *PASS_PORTS, "mask", "chain", "limit"]
    while (word := parser.parse_optional_keyword_in(words)) is not None:
        words.remove(word)
        match word:
            case "reduce":
                spec.reduce = parse_ints(parser)
            case "ring":
                spec.ring_dim = parser.parse_integer(allow_boolean=False, allow_negative=False)
            case "fill":
                spec.fill = float(parse_number(parser))
            case "chain":
                square = parser.Delimiter.SQUARE
                spec.chain = tuple(parser.parse_comma_separated_list(square, lambda: _parse_step(parser)))
            case "mask" | "limit":
                ranges[word] = _parse_range(parser)
            case _:
                spec.ports[word] = _parse_port(parser, operands)
    if "mask" in ranges:
        spec.mask = ranges["mask"].numbered(operands)
    if "limit" in ranges:
        spec.limit = ranges["limit"].numbered(operands)
    return spec, operands


def print_copy(
    printer: Printer, spec: CopySpec, buffers: Sequence[SSAValue], indices: Sequence[SSAValue]
) -> None:
    """What follows ``tile.copy``, up to the dictionary."""
    operands = Operands(list(buffers), list(indices))
    printer.print_string(f" {ints_text(spec.size)}")
    for name, port in spec.ports.items():
        _print_port(printer, name, port, operands)
    if spec.index_dim >= 0:
        printer.print_string(f" along {spec.index_dim} scale {spec.index_scale}")
    if spec.meet:
        printer.print_string(" meet" if spec.meet == "chip" else f" meet {spec.meet}")
    if spec.limit is not None:
        printer.print_string(" limit(")
        _print_bound(printer, spec.limit, operands)
        printer.print_string(")")


def parse_copy(parser: Parser) -> tuple[CopySpec, Operands]:
    """The inverse of ``print_copy``."""
    operands = Operands()
    bound: int | SSAValue | None = None
    spec = CopySpec(parse_ints(parser), {})
    words = [*COPY_PORTS, "along", "limit", "meet"]
    while (word := parser.parse_optional_keyword_in(words)) is not None:
        words.remove(word)
        if word == "along":
            spec.index_dim = parser.parse_integer(allow_boolean=False, allow_negative=False)
            parser.parse_keyword("scale")
            spec.index_scale = parser.parse_integer(allow_boolean=False)
        elif word == "meet":
            spec.meet = "chip" if parser.parse_optional_keyword("system") is None else "system"
        elif word == "limit":
            with parser.in_parens():
                bound = _parse_bound(parser)
        else:
            spec.ports[word] = _parse_port(parser, operands)
    if bound is not None:
        spec.limit = _Range(0, 0, bound).numbered(operands)
    return spec, operands
