"""xDSL's parser with two things that it lacks: bit patterns in dense literals, and locations."""

from __future__ import annotations

from bisect import bisect_right

from xdsl.context import Context
from xdsl.dialects.builtin import AnyFloat, FileLineColLoc, IntAttr, StringAttr, UnknownLoc, f32
from xdsl.ir import Attribute, Operation
from xdsl.parser import AttrParser, Parser

_NEWLINE = ord("\n")
_Literal = AttrParser._TensorLiteralElement  # pyright: ignore[reportPrivateUsage]


class IRParser(Parser):
    """Reads ``dense<0xFF800000> : tensor<f32>`` as MLIR does: the bits of a value (infinities, NaN).

    xDSL prints them so and reads them as whole numbers, and not at all in ``array<f32: …>``.
    """

    def parse_float(self, *, allow_negative: bool = True) -> float:
        """A float; bits are those of an f32, of which all arrays of ours are."""
        token = self._current_token
        if not token.text.lower().startswith("0x"):
            return super().parse_float(allow_negative=allow_negative)
        bits = self.parse_integer(allow_boolean=False, allow_negative=False)
        if bits >> 32:
            self.raise_error("f32 has 4 bytes, this literal more", at_position=token.span)
        return f32.unpack(bits.to_bytes(4, "little"), 1)[0]

    def _parse_tensor_literal_element(self) -> _Literal:
        found = super()._parse_tensor_literal_element()
        if found.span.text[:2].lower() == "0x":
            return _Bits(found.is_negative, found.value, found.span)
        return found


class _Bits(_Literal):
    """A hexadecimal literal, whose meaning depends on the type."""

    def to_type(self, parser: AttrParser, type: Attribute) -> int | float:
        if not isinstance(type, AnyFloat):
            return self.to_int(parser)
        bits, size = self.to_int(parser), type.compile_time_size
        if bits >> 8 * size:
            parser.raise_error(f"{type} has {size} bytes, this literal more", at_position=self.span)
        return type.unpack(bits.to_bytes(size, "little"), 1)[0]


class LocatedParser(IRParser):
    """A parser of one file, or of a piece of one; operations without a location get their line and column.

    Args:
        ctx: knows the dialects.
        text: of the file or piece.
        name: of the file.
        first_line: lines of the file before the piece.
    """

    def __init__(self, ctx: Context, text: str, name: str, first_line: int = 0) -> None:
        super().__init__(ctx, text, name)
        self._file = StringAttr(name)
        self._first = first_line
        self._starts = [0, *(i + 1 for i, byte in enumerate(text.encode()) if byte == _NEWLINE)]

    def parse_operation(self) -> Operation:
        start = self._current_token.span.start
        op = super().parse_operation()
        if isinstance(op.location, UnknownLoc):
            line = bisect_right(self._starts, start)
            column = start - self._starts[line - 1] + 1
            op.location = FileLineColLoc(self._file, IntAttr(self._first + line), IntAttr(column))
        return op
