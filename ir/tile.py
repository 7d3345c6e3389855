"""The `tile` dialect: passes and copies over explicit buffers, and the placements before it.

Buffers are memrefs whose memory space names a memory of the machine; in per-slice memories
dimension 0 is the slice. The command model (nests, ports, chains) is docs/design.md, section 6.
Declarations are defined in `tile_declarations`, placements in `tile_placements`, ports and specs in
`tile_spec`; those of operations are found here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from npuc.ir.assembly import (
    TextualOp,
    parse_values,
    print_attributes,
    print_values,
)
from npuc.ir.shapes import row_major_strides
from npuc.ir.symbols import require_function, require_symbol
from npuc.ir.tile_assembly import parse_copy, parse_pass, print_copy, print_pass
from npuc.ir.tile_declarations import CacheOp, PackedOp
from npuc.ir.tile_placements import HostAttr, ReplicatedAttr, SlicedAttr, SpreadAttr
from npuc.ir.tile_spec import (
    MAX_CHAIN,
    MAX_NEST,
    MEETINGS,
    CopySpec,
    Limit,
    PassSpec,
    Port,
    Step,
    int_array,
    integer,
    ints,
    ports_attr,
    ports_of,
)
from npuc.ir.tile_verify import verify_copy, verify_pass
from xdsl.dialects.builtin import (
    I64,
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    FlatSymbolRefAttrConstr,
    FloatAttr,
    IndexType,
    IntegerAttr,
    MemRefType,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
    f32,
)
from xdsl.ir import Attribute, Block, Dialect, Operation, Region, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    attr_def,
    irdl_op_definition,
    operand_def,
    opt_attr_def,
    opt_operand_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, NoTerminator, Pure, SymbolUserOpInterface
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


@irdl_op_definition
class SharedOp(IRDLOperation):
    """A buffer in the chip's main memory that its ranks see; those of one number lie at one place.

    With `system` it is that buffer of every chip: dimension 0 is the chip, and ports walk along it in steps
    of their `slices`.
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
    def chips(self) -> int:
        """How many chips' buffers it is."""
        kind = self.result.type
        assert isinstance(kind, MemRefType)
        return kind.get_shape()[0] if self.system is not None else 1


@irdl_op_definition
class RankOp(IRDLOperation):
    """The number of the rank that runs the program."""

    name = "tile.rank"
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "`:` type($result) attr-dict"

    def __init__(self) -> None:
        super().__init__(result_types=[IndexType()])


@irdl_op_definition
class ChipOp(IRDLOperation):
    """The number of the chip whose core runs the program."""

    name = "tile.chip"
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "`:` type($result) attr-dict"

    def __init__(self) -> None:
        super().__init__(result_types=[IndexType()])


RUNTIME_PARAMETERS = ("slot", "position", "valid", "last", "end")


@irdl_op_definition
class RuntimeOp(IRDLOperation):
    """A row's runtime parameter: slot, position, valid, last = max(valid − 1, 0), end = position + valid."""

    name = "tile.runtime"
    parameter = attr_def(StringAttr)
    row = operand_def(IndexType)
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "$parameter `[` $row `]` `:` type($result) attr-dict"

    def __init__(self, parameter: str, row: SSAValue) -> None:
        attributes: dict[str, Attribute] = {"parameter": StringAttr(parameter)}
        super().__init__(operands=[row], attributes=attributes, result_types=[IndexType()])

    def verify_(self) -> None:
        if self.parameter.data not in RUNTIME_PARAMETERS:
            known = ", ".join(RUNTIME_PARAMETERS)
            raise VerifyException(f"parameter is {self.parameter.data}, expected one of {known}")


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A constant index."""

    name = "tile.constant"
    value = attr_def(IntegerAttr[I64])
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "$value attr-dict"

    def __init__(self, value: int) -> None:
        super().__init__(attributes={"value": IntegerAttr(value, 64)}, result_types=[IndexType()])


@irdl_op_definition
class SumOp(IRDLOperation):
    """The index base + coefficient · index: how many valid rows are left in a loop over tiles of them."""

    name = "tile.sum"
    base = operand_def(IndexType)
    coefficient = attr_def(IntegerAttr[I64])
    index = operand_def(IndexType)
    result = result_def(IndexType)
    traits = traits_def(Pure())
    assembly_format = "$base `+` $coefficient `*` $index attr-dict"

    def __init__(self, base: SSAValue, coefficient: int, index: SSAValue) -> None:
        super().__init__(
            operands=[base, index],
            attributes={"coefficient": IntegerAttr(coefficient, 64)},
            result_types=[IndexType()],
        )


@irdl_op_definition
class ForOp(TextualOp):
    """Runs its body `count` times; the block argument counts from `start`."""

    name = "tile.for"
    start = attr_def(IntegerAttr)
    count = attr_def(IntegerAttr)
    body = region_def("single_block")
    traits = traits_def(NoTerminator())

    def __init__(self, count: int, start: int = 0) -> None:
        super().__init__(
            attributes={"count": IntegerAttr(count, 64), "start": IntegerAttr(start, 64)},
            regions=[Region(Block(arg_types=[IndexType()]))],
        )

    @property
    def induction(self) -> SSAValue:
        """The index of the current iteration."""
        return self.body.block.args[0]

    def print(self, printer: Printer) -> None:
        """``%i = 0 to 4 { … }``."""
        start, count = integer(self.start), integer(self.count)
        printer.print_string(" ")
        printer.print_ssa_value(self.induction)
        printer.print_string(f" = {start} to {start + count} ")
        printer.print_region(self.body, print_entry_block_args=False, print_empty_block=False)
        print_attributes(printer, self, ("start", "count"))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        induction = parser.parse_argument(expect_type=False).resolve(IndexType())
        parser.parse_punctuation("=")
        start = parser.parse_integer(allow_boolean=False)
        parser.parse_keyword("to")
        stop = parser.parse_integer(allow_boolean=False)
        body = parser.parse_region([induction])
        attributes = {
            "count": IntegerAttr(stop - start, 64),
            "start": IntegerAttr(start, 64),
            **parser.parse_optional_attr_dict(),
        }
        return cls.build(attributes=attributes, regions=[body])

    def verify_(self) -> None:
        if integer(self.count) < 1:
            raise VerifyException(f"loop runs {integer(self.count)} times, expected at least once")
        kinds = [argument.type for argument in self.body.block.args]
        if kinds != [IndexType()]:
            raise VerifyException(f"loop body takes {len(kinds)} arguments, expected one index")


class _CallsFunction(SymbolUserOpInterface):
    """The function exists and takes these arguments."""

    def verify(self, op: Operation) -> None:
        assert isinstance(op, CallOp)
        require_function(op, op.callee, op.operand_types)


@irdl_op_definition
class CallOp(TextualOp):
    """Calls a `tile` function: index operands and buffers, no results."""

    name = "tile.call"
    callee = attr_def(FlatSymbolRefAttrConstr)
    arguments = var_operand_def()
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect(), _CallsFunction())

    def __init__(self, callee: str, arguments: Sequence[SSAValue]) -> None:
        super().__init__(operands=[arguments], attributes={"callee": SymbolRefAttr(callee)})

    def print(self, printer: Printer) -> None:
        """``@f(%a, %b)``."""
        printer.print_string(" ")
        printer.print_symbol_name(self.callee.string_value())
        with printer.in_parens():
            print_values(printer, self.arguments)
        print_attributes(printer, self, ("callee",))

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        callee = SymbolRefAttr(parser.parse_symbol_name())
        with parser.in_parens():
            arguments = parse_values(parser)
        attributes = {"callee": callee, **parser.parse_optional_attr_dict()}
        return cls.build(operands=[arguments], attributes=attributes)


@irdl_op_definition
class PassOp(TextualOp):
    """A pipeline command over buffers: ports stream, stationary, operand, vrf, out."""

    name = "tile.pass"
    buffers = var_operand_def(MemRefType)
    indices = var_operand_def(IndexType)
    size = attr_def(DenseArrayBase)
    ports = attr_def(DictionaryAttr)
    reduce = opt_attr_def(DenseArrayBase)
    ring_dim = opt_attr_def(IntegerAttr)
    mask = opt_attr_def(DictionaryAttr)
    chain = opt_attr_def(ArrayAttr[DictionaryAttr])
    limit = opt_attr_def(DictionaryAttr)
    fill = opt_attr_def(FloatAttr)
    irdl_options = (AttrSizedOperandSegments(),)
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self, spec: PassSpec, buffers: Sequence[SSAValue], indices: Sequence[SSAValue] = (), module: str = ""
    ) -> None:
        attributes: dict[str, Attribute] = {
            "size": int_array(spec.size),
            "ports": ports_attr(spec.ports),
        }
        if spec.reduce:
            attributes["reduce"] = int_array(spec.reduce)
        if spec.ring_dim >= 0:
            attributes["ring_dim"] = IntegerAttr(spec.ring_dim, 64)
        if spec.mask is not None:
            attributes["mask"] = spec.mask.to_attr()
        if spec.chain:
            attributes["chain"] = ArrayAttr([step.to_attr() for step in spec.chain])
        if spec.limit is not None:
            attributes["limit"] = spec.limit.to_attr()
        if spec.fill is not None:
            attributes["fill"] = FloatAttr(spec.fill, f32)
        if module:
            attributes["module"] = StringAttr(module)
        super().__init__(operands=[buffers, indices], attributes=attributes)

    @property
    def spec(self) -> PassSpec:
        """The attributes as plain values."""
        optional: dict[str, Any] = {}
        if self.reduce is not None:
            optional["reduce"] = ints(self.reduce)
        if self.ring_dim is not None:
            optional["ring_dim"] = integer(self.ring_dim)
        if self.mask is not None:
            optional["mask"] = Limit.from_attr(self.mask)
        if self.chain is not None:
            optional["chain"] = tuple(Step.from_attr(step) for step in self.chain)
        if self.limit is not None:
            optional["limit"] = Limit.from_attr(self.limit)
        if self.fill is not None:
            optional["fill"] = float(self.fill.value.data)
        return PassSpec(ints(self.size), ports_of(self.ports), **optional)

    def print(self, printer: Printer) -> None:
        print_pass(printer, self.spec, self.buffers, self.indices)
        print_attributes(printer, self, self.get_irdl_definition().attributes)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        spec, operands = parse_pass(parser)
        op = cls(spec, operands.buffers, operands.indices)
        op.attributes |= parser.parse_optional_attr_dict()
        return op

    def verify_(self) -> None:
        verify_pass(self.spec, self.ports, self.buffers, self.indices)


@irdl_op_definition
class CopyOp(TextualOp):
    """A DMA command over buffers: ports src, dst, and index for a gather.

    With `meet` it starts when every rank of the chip is ready to start it: all have done what comes before in
    its queue. With `meet system` it waits for the ranks of all chips.
    """

    name = "tile.copy"
    buffers = var_operand_def(MemRefType)
    indices = var_operand_def(IndexType)
    size = attr_def(DenseArrayBase)
    ports = attr_def(DictionaryAttr)
    limit = opt_attr_def(DictionaryAttr)
    index_dim = opt_attr_def(IntegerAttr)
    index_scale = opt_attr_def(IntegerAttr)
    meet = opt_attr_def(StringAttr)
    irdl_options = (AttrSizedOperandSegments(),)
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self, spec: CopySpec, buffers: Sequence[SSAValue], indices: Sequence[SSAValue] = (), module: str = ""
    ) -> None:
        attributes: dict[str, Attribute] = {
            "size": int_array(spec.size),
            "ports": ports_attr(spec.ports),
        }
        if spec.limit is not None:
            attributes["limit"] = spec.limit.to_attr()
        if spec.index_dim >= 0:
            attributes["index_dim"] = IntegerAttr(spec.index_dim, 64)
            attributes["index_scale"] = IntegerAttr(spec.index_scale, 64)
        if spec.meet:
            attributes["meet"] = StringAttr(spec.meet)
        if module:
            attributes["module"] = StringAttr(module)
        super().__init__(operands=[buffers, indices], attributes=attributes)

    @property
    def spec(self) -> CopySpec:
        """The attributes as plain values."""
        return CopySpec(
            ints(self.size),
            ports_of(self.ports),
            Limit.from_attr(self.limit) if self.limit is not None else None,
            integer(self.index_dim) if self.index_dim is not None else -1,
            integer(self.index_scale) if self.index_scale is not None else 0,
            self.meet.data if self.meet is not None else "",
        )

    def print(self, printer: Printer) -> None:
        print_copy(printer, self.spec, self.buffers, self.indices)
        print_attributes(printer, self, self.get_irdl_definition().attributes)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        spec, operands = parse_copy(parser)
        op = cls(spec, operands.buffers, operands.indices)
        op.attributes |= parser.parse_optional_attr_dict()
        return op

    def verify_(self) -> None:
        if self.meet is not None and self.meet.data not in MEETINGS:
            message = f"meet is {self.meet.data}, expected one of {', '.join(MEETINGS)}"
            raise VerifyException(message)
        verify_copy(self.spec, self.ports, self.buffers, self.indices)


TILE = Dialect(
    "tile",
    [
        PackedOp, CacheOp, AllocOp, WeightOp, CacheSlotOp, SharedOp, RankOp, ChipOp, RuntimeOp, ConstantOp,
        SumOp, ForOp, CallOp, PassOp, CopyOp,
    ],
    [ReplicatedAttr, SlicedAttr, SpreadAttr, HostAttr],
)  # fmt: skip

__all__ = [
    "MAX_CHAIN", "MAX_NEST", "MEETINGS", "RUNTIME_PARAMETERS", "TILE", "AllocOp", "CacheOp", "CacheSlotOp",
    "CallOp", "ChipOp", "ConstantOp", "CopyOp", "CopySpec", "ForOp", "Limit", "PackedOp",
    "PassOp", "PassSpec", "Port", "RankOp", "RuntimeOp", "SharedOp",
    "Step", "SumOp", "WeightOp", "buffer_type", "int_array", "integer", "ints", "memory_of",
    "ports_of", "slice_strides",
]  # fmt: skip
