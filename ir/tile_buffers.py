"""Operations of the `tile` dialect that give buffers."""

from __future__ import annotations

from collections.abc import Sequence

from npuc.ir.shapes import row_major_strides
from npuc.ir.symbols import require_symbol
from npuc.ir.tile_declarations import CacheOp, PackedOp
from xdsl.dialects.builtin import (
    I64,
    FlatSymbolRefAttrConstr,
    IndexType,
    IntegerAttr,
    MemRefType,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    attr_def,
    irdl_op_definition,
    operand_def,
    opt_attr_def,
    opt_operand_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure, SymbolUserOpInterface
from xdsl.utils.exceptions import VerifyException


def buffer_type(shape: Sequence[int], element: Attribute, memory: str) -> MemRefType[Attribute]:
    """A dense row-major buffer in the named memory."""
    return MemRefType(element, shape, memory_space=StringAttr(memory))


def memory_of(value: SSAValue | Attribute) -> str:
    """The name of the memory a buffer lies in."""
    kind = value.type if isinstance(value, SSAValue) else value
    assert isinstance(kind, MemRefType)
    assert isinstance(kind.memory_space, StringAttr)
    return kind.memory_space.data


def slice_strides(type: MemRefType[Attribute], per_slice: bool) -> tuple[int, ...]:
    """Row-major element strides inside one slice; a per-slice buffer's dimension 0 is left out."""
    shape = type.get_shape()
    return row_major_strides(shape[1:] if per_slice else shape)


@irdl_op_definition
class AllocOp(IRDLOperation):
    """A buffer in on-chip (or scratch main) memory, uninitialised; lives to its last use."""

    name = "tile.alloc"
    result = result_def(MemRefType)
    assembly_format = "`:` type($result) attr-dict"

    def __init__(self, shape: Sequence[int], element: Attribute, memory: str) -> None:
        super().__init__(result_types=[buffer_type(shape, element, memory)])

    def verify_(self) -> None:
        if not isinstance(self.result.type.memory_space, StringAttr):
            raise VerifyException(f"{self.result.type} names no memory")


class _ReadsWeight(SymbolUserOpInterface):
    """The packed weight exists and is of this type; a weight per layer is read with a layer."""

    def verify(self, op: Operation) -> None:
        assert isinstance(op, WeightOp)
        packed = require_symbol(op, op.symbol, "packed weight", (PackedOp.name,))
        assert isinstance(packed, PackedOp)
        name = op.symbol.string_value()
        if packed.type != op.result.type:
            raise VerifyException(f"packed weight @{name} is {packed.type}, read as {op.result.type}")
        if (packed.layers is None) != (op.layer is None):
            wanted = "no layer" if packed.layers is None else "a layer"
            raise VerifyException(f"packed weight @{name} is read with {wanted}")


@irdl_op_definition
class WeightOp(IRDLOperation):
    """A packed weight in main memory; `layer` is the ordinal within the layer kind."""

    name = "tile.weight"
    symbol = attr_def(FlatSymbolRefAttrConstr)
    layer = opt_operand_def(IndexType)
    result = result_def(MemRefType)
    traits = traits_def(Pure(), _ReadsWeight())
    assembly_format = "$symbol (`[` $layer^ `]`)? `:` type($result) attr-dict"

    def __init__(self, symbol: str, type: MemRefType[Attribute], layer: SSAValue | None = None) -> None:
        super().__init__(
            operands=[[] if layer is None else [layer]],
            attributes={"symbol": SymbolRefAttr(symbol)},
            result_types=[type],
        )


class _ReadsCache(SymbolUserOpInterface):
    """The cache exists and its part is of this type."""

    def verify(self, op: Operation) -> None:
        assert isinstance(op, CacheSlotOp)
        cache = require_symbol(op, op.symbol, "cache", (CacheOp.name,))
        assert isinstance(cache, CacheOp)
        declared = cache.key_type if op.part.data == "key" else cache.value_type
        if declared != op.result.type:
            text = f"{op.part.data} of cache @{op.symbol.string_value()}"
            raise VerifyException(f"{text} is {declared}, read as {op.result.type}")


@irdl_op_definition
class CacheSlotOp(IRDLOperation):
    """The keys or values ([length, heads, size]) of one slot of one layer; `layer` as in tile.weight."""

    name = "tile.cache"
    symbol = attr_def(FlatSymbolRefAttrConstr)
    part = attr_def(StringAttr)
    layer = operand_def(IndexType)
    slot = operand_def(IndexType)
    result = result_def(MemRefType)
    traits = traits_def(Pure(), _ReadsCache())
    assembly_format = "$symbol $part `[` $layer `,` $slot `]` `:` type($result) attr-dict"

    def __init__(
        self, symbol: str, part: str, type: MemRefType[Attribute], layer: SSAValue, slot: SSAValue
    ) -> None:
        super().__init__(
            operands=[layer, slot],
            attributes={"symbol": SymbolRefAttr(symbol), "part": StringAttr(part)},
            result_types=[type],
        )

    def verify_(self) -> None:
        if self.part.data not in ("key", "value"):
            raise VerifyException(f"part is {self.part.data}, expected key or value")


EXCHANGE_BUFFERS = 8
"""How many numbers of shared buffers belong to one exchange."""


@irdl_op_definition
class SharedOp(IRDLOperation):
    """A buffer in the chip's main memory that its ranks see; those of one number lie at one place.

    Of `EXCHANGE_BUFFERS` numbers each, those of one exchange are used in turn; several exchanges may be under
    way at the same time. With `system` it is that buffer of every chip: dimension 0 is the chip, and ports
    walk along it in steps of their `slices`.
    """

    name = "tile.shared"
    number = attr_def(IntegerAttr[I64])
    system = opt_attr_def(UnitAttr)
    result = result_def(MemRefType)
    traits = traits_def(Pure())
    assembly_format = "$number (`system` $system^)? `:` type($result) attr-dict"

    def __init__(self, number: int, type: MemRefType[Attribute], *, system: bool = False) -> None:
        attributes: dict[str, Attribute] = {"number": IntegerAttr(number, 64)}
        if system:
            attributes["system"] = UnitAttr()
        super().__init__(attributes=attributes, result_types=[type])

    @property
    def exchange(self) -> int:
        """The exchange that the buffer is for."""
        return self.number.value.data // EXCHANGE_BUFFERS

    @property
    def chips(self) -> int:
        """How many chips' buffers it is."""
        kind = self.result.type
        assert isinstance(kind, MemRefType)
        return kind.get_shape()[0] if self.system is not None else 1
