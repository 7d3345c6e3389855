"""Printed IR: aliases for long types, weights and large constants elided on request.

Names and locations are kept. What is printed without elision parses back, and its generic form is accepted
by MLIR's own parser with unregistered dialects allowed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from io import StringIO

from npuc.ir.graph import DimsAttr, WeightOp
from npuc.ir.tile_placements import GridAttr, HostAttr, ReplicatedAttr, SlicedAttr, SpreadAttr
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AnyFloat,
    ArrayAttr,
    DenseIntOrFPElementsAttr,
    Float32Type,
    MemRefType,
    NoneAttr,
    StringAttr,
    TensorType,
)
from xdsl.ir import Attribute, Operation
from xdsl.printer import Printer

ELIDED_ELEMENTS = 16  # dense attributes with more elements are elided, where elision is asked for
SHAPED = (TensorType, MemRefType)


@dataclass(eq=False, repr=False)
class IRPrinter(Printer):
    """xDSL's printer with type aliases and elision.

    Attributes:
        aliases: type → the name under which it is printed.
        max_elements: dense attributes with more elements are replaced by a note; None prints all.
        max_resource: lists of weight sources with more characters are replaced by a note; None prints all.
        selected: the operations whose place in the text is wanted.
        spans: the place of each selected operation in the text, from its first character to its last.
    """

    aliases: dict[Attribute, str] = field(default_factory=dict[Attribute, str])
    max_elements: int | None = None
    max_resource: int | None = None
    selected: Callable[[Operation], bool] | None = None
    spans: list[tuple[Operation, int, int]] = field(default_factory=list[tuple[Operation, int, int]])

    def print_attribute(self, attribute: Attribute) -> None:
        if isinstance(attribute, SHAPED) and attribute in self.aliases:
            self.print_string(self.aliases[attribute])
        elif (
            self.max_elements is not None
            and isinstance(attribute, DenseIntOrFPElementsAttr)
            and len(attribute) > self.max_elements
        ):
            self.print_string("dense_resource<__elided__> : ")
            self.print_attribute(attribute.type)
        else:
            super().print_attribute(attribute)

    def print_float(self, value: float, type: AnyFloat) -> None:
        """As xDSL, but never in hexadecimal where a decimal does: its parser reads none in dense arrays."""
        integral = isinstance(type, Float32Type) and math.isfinite(value) and value == int(value)
        if integral and abs(value) < 1e9 and float(f"{value:.5e}") != value:
            self.print_string(f"{value:.8e}")
        else:
            super().print_float(value, type)

    def print_op(self, op: Operation) -> None:
        assert isinstance(self.stream, StringIO)
        start = self.stream.tell()
        long = isinstance(op, WeightOp) and self.max_resource is not None
        super().print_op(_without_sources(op, self.max_resource or 0) if long else op)
        if self.selected is not None and self.selected(op):
            self.spans.append((op, start, self.stream.tell()))


def _without_sources(op: Operation, limit: int) -> Operation:
    """The weight, or a copy with a note in place of a list of sources longer than `limit` characters."""
    sources = op.attributes["sources"]
    if not isinstance(sources, ArrayAttr) or len(str(sources)) <= limit:
        return op
    op = op.clone()
    op.attributes["sources"] = StringAttr(f"{len(sources)} elided")
    return op


def types_in(op: Operation) -> Iterator[Attribute]:
    """The types of all values below an operation, once per value, and of its weights."""
    for inner in op.walk():
        yield from inner.result_types
        if isinstance(inner, WeightOp):
            yield inner.type
        for region in inner.regions:
            for block in region.blocks:
                yield from block.arg_types


def alias_stem(kind: Attribute) -> str:
    """A name that says what the type is.

    ``t_batch_seq_64_f32`` for a tensor with symbolic sizes, ``R_``, ``L4_`` (chunk 4) and ``H_`` for its
    placements, the memory's name for a buffer: ``dm_64_1_128_f32``.
    """
    assert isinstance(kind, TensorType | MemRefType)
    sizes = ["d" if size == DYNAMIC_INDEX else str(size) for size in kind.get_shape()]
    prefix = "t"
    if isinstance(kind, MemRefType):
        prefix = kind.memory_space.data if isinstance(kind.memory_space, StringAttr) else "memref"
    elif isinstance(kind.encoding, DimsAttr):
        names = ["batch", "seq", "ctx"]
        texts = (str(e) for e in kind.encoding.map.data.results)
        sizes = [re.sub(r"d(\d)", lambda m: names[int(m[1])], text) for text in texts]
    elif isinstance(kind.encoding, ReplicatedAttr):
        prefix = "R"
    elif isinstance(kind.encoding, SlicedAttr):
        prefix = f"L{kind.encoding.chunk.data}"
    elif isinstance(kind.encoding, SpreadAttr):
        prefix = f"S{kind.encoding.dim.data}"
    elif isinstance(kind.encoding, GridAttr):
        prefix = f"G{kind.encoding.block.data}x{kind.encoding.columns.data}"
    elif isinstance(kind.encoding, HostAttr):
        prefix = "H"
    return "_".join(re.findall(r"\w+", " ".join([prefix, *sizes, str(kind.element_type)])))


def is_long(kind: Attribute) -> bool:
    """Whether a type is worth an alias: a buffer, or a tensor with an encoding."""
    return isinstance(kind, MemRefType) or (isinstance(kind, TensorType) and kind.encoding != NoneAttr())


def choose_aliases(op: Operation) -> dict[Attribute, str]:
    """Aliases for the encoded tensor types and the buffer types, in order of first occurrence."""
    aliases: dict[Attribute, str] = {}
    taken: Counter[str] = Counter()
    for kind in filter(is_long, dict.fromkeys(types_in(op))):
        stem = alias_stem(kind)
        aliases[kind] = f"!{stem}_{taken[stem]}" if taken[stem] else f"!{stem}"
        taken[stem] += 1
    return aliases


@dataclass(frozen=True)
class TextForm:
    """How IR is printed.

    Attributes:
        generic: MLIR's generic form of every operation.
        locations: print each operation's location.
        aliases: name long types at the top.
        max_elements: dense attributes with more elements are left out; None prints all.
        max_resource: lists of weight sources with more characters are left out; None prints all.

    What is printed with anything left out is for reading only.
    """

    generic: bool = False
    locations: bool = False
    aliases: bool = True
    max_elements: int | None = None
    max_resource: int | None = None


ELIDED = TextForm(max_elements=ELIDED_ELEMENTS, max_resource=0)


def print_with_spans(
    op: Operation, form: TextForm, selected: Callable[[Operation], bool] | None = None
) -> tuple[dict[str, str], str, list[tuple[Operation, int, int]]]:
    """The aliases (name → type) of an operation's text, the text, and where selected operations are in it.

    An operation's place is from its first character to its last; those inside of it come before it.
    """
    chosen = choose_aliases(op) if form.aliases else {}
    printer = IRPrinter(
        stream=StringIO(),
        print_generic_format=form.generic,
        print_debuginfo=form.locations,
        aliases=chosen,
        max_elements=form.max_elements,
        max_resource=form.max_resource,
        selected=selected,
    )
    printer.print_op(op)
    assert isinstance(printer.stream, StringIO)
    return {name: str(kind) for kind, name in chosen.items()}, printer.stream.getvalue(), printer.spans


def print_ir(
    op: Operation,
    *,
    generic: bool = False,
    locations: bool = False,
    elide: bool = False,
    aliases: bool = True,
    form: TextForm | None = None,
) -> str:
    """An operation as text, ending in a newline.

    Args:
        op: usually a module.
        generic: MLIR's generic form of every operation.
        locations: print each operation's location.
        elide: leave out weight sources and large constants; the text is then for reading only.
        aliases: name long types at the top.
        form: all of the above in one; the others are not looked at then.
    """
    if form is None:
        elided = ELIDED if elide else TextForm()
        form = replace(elided, generic=generic, locations=locations, aliases=aliases)
    names, text, _ = print_with_spans(op, form)
    return "".join([*(f"{name} = {kind}\n" for name, kind in names.items()), text, "\n"])
