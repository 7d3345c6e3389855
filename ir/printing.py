"""Printed IR: aliases for long types, weights and large constants elided on request.

Names and locations are kept. What is printed without elision parses back, and its generic form is accepted
by MLIR's own parser with unregistered dialects allowed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO

from npuc.ir.graph import DimsAttr, WeightOp
from npuc.ir.tile import HostAttr, ReplicatedAttr, SlicedAttr
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AnyFloat,
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
        elide: replace weight sources and large constants by a note; such text is for reading only.
    """

    aliases: dict[Attribute, str] = field(default_factory=dict[Attribute, str])
    elide: bool = False

    def print_attribute(self, attribute: Attribute) -> None:
        if isinstance(attribute, SHAPED) and attribute in self.aliases:
            self.print_string(self.aliases[attribute])
        elif (
            self.elide
            and isinstance(attribute, DenseIntOrFPElementsAttr)
            and len(attribute) > ELIDED_ELEMENTS
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
        if self.elide and isinstance(op, WeightOp):
            op = op.clone()
            op.attributes["sources"] = StringAttr(f"{len(op.sources)} elided")
        super().print_op(op)


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


def print_ir(
    op: Operation,
    *,
    generic: bool = False,
    locations: bool = False,
    elide: bool = False,
    aliases: bool = True,
) -> str:
    """An operation as text, ending in a newline.

    Args:
        op: usually a module.
        generic: MLIR's generic form of every operation.
        locations: print each operation's location.
        elide: leave out weight sources and large constants; the text is then for reading only.
        aliases: name long types at the top.
    """
    chosen = choose_aliases(op) if aliases else {}
    stream = StringIO()
    for kind, name in chosen.items():
        print(f"{name} = {kind}", file=stream)
    printer = IRPrinter(
        stream=stream, print_generic_format=generic, print_debuginfo=locations, aliases=chosen, elide=elide
    )
    printer.print_op(op)
    print(file=stream)
    return stream.getvalue()
