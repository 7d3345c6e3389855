"""xDSL's parser, except that operations without a location get the line and column where they stand."""

from __future__ import annotations

from bisect import bisect_right

from xdsl.context import Context
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, StringAttr, UnknownLoc
from xdsl.ir import Operation
from xdsl.parser import Parser

_NEWLINE = ord("\n")


class LocatedParser(Parser):
    """A parser of one file, or of a piece of one.

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
