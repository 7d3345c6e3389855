"""What a `tile.pass` and a `tile.copy` say, as plain values; to and from their attributes.

The command model (nests, ports, chains) is docs/design.md, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

from npuc.ir.arrays import int_array
from npuc.ir.meetings import MEETINGS as MEETINGS
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    f32,
)
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

MAX_NEST = 8
MAX_CHAIN = 12

PASS_PORTS = ("stream", "stationary", "operand", "vrf", "out")
COPY_PORTS = ("src", "dst", "index")

UNARY_STEPS = ("exp", "sqrt", "tanh", "sigmoid", "erf", "log", "sin", "cos", "abs", "floor")
BINARY_STEPS = (
    "add", "sub", "rsub", "mul", "div", "rdiv", "max", "min",
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "select",
)  # fmt: skip
REDUCE_STEPS = ("reduce_add", "reduce_max", "reduce_min")
RING_STEPS = ("ring_add", "ring_max", "ring_min")
SOURCES = ("none", "imm", "stash", "operand", "vrf")


def ints(attr: Attribute) -> tuple[int, ...]:
    """The integers of an ``array<i64: …>`` attribute.

    Raises:
        VerifyException: when it is something else.
    """
    if not isinstance(attr, DenseArrayBase) or not isinstance(attr.elt_type, IntegerType):
        raise VerifyException(f"expected an array of integers, got {attr}")
    return tuple(cast(DenseArrayBase[IntegerType], attr).get_values())


def integer(attr: Attribute) -> int:
    """The value of an integer attribute.

    Raises:
        VerifyException: when it is something else.
    """
    if not isinstance(attr, IntegerAttr):
        raise VerifyException(f"expected an integer, got {attr}")
    return attr.value.data


def _entry(attr: DictionaryAttr, key: str) -> Attribute:
    if key not in attr.data:
        raise VerifyException(f"{attr} has no entry {key}")
    return attr.data[key]


@dataclass(frozen=True)
class Port:
    """How one operand is walked by a nest; everything in elements of the buffer's type.

    Attributes:
        buffer: position among the op's buffer operands.
        offset: element offset inside one slice of the buffer.
        strides: one per nest dimension; 0 where the operand is reused or reduced.
        slices: one per nest dimension, in slices; empty means all zero.
        index: pairs (k, c): adds c × (k-th index operand) elements to the offset.
    """

    buffer: int
    offset: int
    strides: tuple[int, ...]
    slices: tuple[int, ...] = ()
    index: tuple[tuple[int, int], ...] = ()

    @lru_cache(4096)
    def to_attr(self) -> DictionaryAttr:
        """The port as an attribute; empty parts are left out."""
        entries: dict[str, Attribute] = {
            "buffer": IntegerAttr(self.buffer, 64),
            "offset": IntegerAttr(self.offset, 64),
            "strides": int_array(self.strides),
        }
        if any(self.slices):
            entries["slices"] = int_array(self.slices)
        if self.index:
            entries["index"] = ArrayAttr([int_array(pair) for pair in self.index])
        return DictionaryAttr(entries)

    @staticmethod
    def from_attr(attr: DictionaryAttr) -> Port:
        """The inverse of ``to_attr``.

        Raises:
            VerifyException: when the attribute is no port.
        """
        strides = ints(_entry(attr, "strides"))
        slices = ints(attr.data["slices"]) if "slices" in attr.data else (0,) * len(strides)
        index = attr.data.get("index", ArrayAttr[Attribute]([]))
        if not isinstance(index, ArrayAttr) or any(len(ints(pair)) != 2 for pair in index):
            raise VerifyException(f"expected pairs of index operand and coefficient, got {index}")
        pairs = [ints(pair) for pair in index]
        return Port(
            integer(_entry(attr, "buffer")),
            integer(_entry(attr, "offset")),
            strides,
            slices,
            tuple((pair[0], pair[1]) for pair in pairs),
        )


@dataclass(frozen=True)
class Step:
    """One step of a pass's chain: ``op`` with a source (none, imm, stash, operand, vrf) and a value."""

    op: str
    source: str = "none"
    value: float = 0.0

    def to_attr(self) -> DictionaryAttr:
        """The step as an attribute; defaults are left out."""
        entries: dict[str, Attribute] = {"op": StringAttr(self.op)}
        if self.source != "none":
            entries["source"] = StringAttr(self.source)
        if self.value != 0.0 or self.source == "imm":
            entries["value"] = FloatAttr(self.value, f32)
        return DictionaryAttr(entries)

    @staticmethod
    def from_attr(attr: DictionaryAttr) -> Step:
        """The inverse of ``to_attr``.

        Raises:
            VerifyException: when the attribute is no step.
        """
        op, source, value = _entry(attr, "op"), attr.data.get("source"), attr.data.get("value")
        if not isinstance(op, StringAttr):
            raise VerifyException(f"expected the name of a step, got {op}")
        return Step(
            op.data,
            source.data if isinstance(source, StringAttr) else "none",
            float(value.value.data) if isinstance(value, FloatAttr) else 0.0,
        )


@dataclass(frozen=True)
class Limit:
    """Elements with index[dim] + slice · slice_stride ≥ limit are out of range.

    Attributes:
        dim: nest dimension (ignored by copies, whose limit clips dimension 0).
        limit: the constant bound, unless ``index`` names an index operand holding it.
        slice_stride: what one slice adds to the index.
        index: position among the op's index operands, or −1.
    """

    dim: int
    limit: int = 0
    slice_stride: int = 0
    index: int = -1

    def to_attr(self) -> DictionaryAttr:
        """The limit as an attribute."""
        values = {
            "dim": self.dim,
            "limit": self.limit,
            "slice_stride": self.slice_stride,
            "index": self.index,
        }
        return DictionaryAttr({k: IntegerAttr(v, 64) for k, v in values.items()})

    @staticmethod
    def from_attr(attr: DictionaryAttr) -> Limit:
        """The inverse of ``to_attr``.

        Raises:
            VerifyException: when the attribute is no limit.
        """
        names = ("dim", "limit", "slice_stride", "index")
        return Limit(*(integer(_entry(attr, name)) for name in names))


@dataclass
class PassSpec:
    """Everything a `tile.pass` says, as plain values (see docs/design.md, section 6)."""

    size: tuple[int, ...]
    ports: dict[str, Port]
    reduce: tuple[int, ...] = ()
    ring_dim: int = -1
    mask: Limit | None = None
    chain: tuple[Step, ...] = ()
    limit: Limit | None = None
    fill: float | None = None


@dataclass
class CopySpec:
    """Everything a `tile.copy` says, as plain values.

    A copy with ``meet`` starts when all ranks of the chip or of the system are ready to start it.
    """

    size: tuple[int, ...]
    ports: dict[str, Port]
    limit: Limit | None = None
    index_dim: int = -1
    index_scale: int = 0
    meet: str = ""
    attributes: dict[str, Attribute] = field(default_factory=dict[str, Attribute])


def ports_attr(ports: Mapping[str, Port]) -> DictionaryAttr:
    """Ports as an attribute, in their order."""
    return DictionaryAttr({name: port.to_attr() for name, port in ports.items()})


def ports_of(attr: DictionaryAttr) -> dict[str, Port]:
    """The inverse of ``ports_attr``."""
    return {k: Port.from_attr(v) for k, v in attr.data.items() if isinstance(v, DictionaryAttr)}
