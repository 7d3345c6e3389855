"""Where a tensor lies among the slices: the encodings that `assign-layouts` gives to tensors."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntAttr
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException


class _NumberedAttr(ParametrizedAttribute):
    """A placement with one number, which is not negative: ``#tile.sliced<4>``."""

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return [IntAttr(parser.parse_integer(allow_boolean=False, allow_negative=False))]

    def print_parameters(self, printer: Printer) -> None:
        (number,) = self.parameters
        assert isinstance(number, IntAttr)
        with printer.in_angle_brackets():
            printer.print_string(str(number.data))


@irdl_attr_definition
class ReplicatedAttr(ParametrizedAttribute):
    """Placement R: every slice holds the whole tensor, row-major."""

    name = "tile.replicated"


@irdl_attr_definition
class SlicedAttr(_NumberedAttr):
    """Placement L: slice s holds elements s·chunk … (s+1)·chunk − 1 of the last dimension."""

    name = "tile.sliced"
    chunk: IntAttr

    def verify(self) -> None:
        if self.chunk.data < 1:
            raise VerifyException(f"chunk is {self.chunk.data}, expected at least 1")


@irdl_attr_definition
class SpreadAttr(_NumberedAttr):
    """Placement S: index i along the dimension lies in slice i mod S, row-major with the others there."""

    name = "tile.spread"
    dim: IntAttr


@irdl_attr_definition
class GridAttr(ParametrizedAttribute):
    """Placement G: the slices are a grid of so many columns, row after row.

    The last dimension is cut into equal parts, one for each column. The one before is dealt to the grid's
    rows in turn, in blocks of so many indices: ``#tile.grid<4, 8>`` has blocks of 4 and 8 columns. With
    blocks of 0 every row of the grid has all of it.
    """

    name = "tile.grid"
    block: IntAttr
    columns: IntAttr

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            block = parser.parse_integer(allow_boolean=False, allow_negative=False)
            parser.parse_punctuation(",")
            return [IntAttr(block), IntAttr(parser.parse_integer(allow_boolean=False, allow_negative=False))]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(f"{self.block.data}, {self.columns.data}")

    def verify(self) -> None:
        if self.columns.data < 1:
            raise VerifyException(f"a grid has {self.columns.data} columns, expected at least 1")


@irdl_attr_definition
class HostAttr(ParametrizedAttribute):
    """Placement H: the tensor lies in main memory, row-major."""

    name = "tile.host"
