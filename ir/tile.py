"""The `tile` dialect: passes and copies over explicit buffers, and the placements before it.

Buffers are memrefs whose memory space names a memory of the machine; in per-slice memories
dimension 0 is the slice. The command model (nests, ports, chains) is docs/design.md, section 6.
Declarations are defined in `tile_declarations`, placements in `tile_placements`, operations that give
buffers and indices in `tile_buffers` and `tile_indices`, ports and specs in `tile_spec`; what operations need
is found here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from npuc.ir.assembly import TextualOp, parse_values, print_attributes, print_values
from npuc.ir.symbols import require_function
from npuc.ir.tile_assembly import parse_copy, parse_pass, print_copy, print_pass
from npuc.ir.tile_buffers import (
    AllocOp,
    CacheSlotOp,
    SharedOp,
    WeightOp,
    buffer_type,
    memory_of,
    slice_strides,
)
from npuc.ir.tile_declarations import CacheOp, PackedOp
from npuc.ir.tile_indices import RUNTIME_PARAMETERS, ChipOp, ConstantOp, RankOp, RuntimeOp, SumOp
from npuc.ir.tile_placements import GridAttr, HostAttr, ReplicatedAttr, SlicedAttr, SpreadAttr
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
    f32,
)
from xdsl.ir import Attribute, Block, Dialect, Operation, Region, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    attr_def,
    irdl_op_definition,
    opt_attr_def,
    region_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, NoTerminator, SymbolUserOpInterface
from xdsl.utils.exceptions import VerifyException


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
    [ReplicatedAttr, SlicedAttr, SpreadAttr, GridAttr, HostAttr],
)  # fmt: skip

__all__ = [
    "MAX_CHAIN", "MAX_NEST", "MEETINGS", "RUNTIME_PARAMETERS", "TILE", "AllocOp", "CacheOp", "CacheSlotOp",
    "CallOp", "ChipOp", "ConstantOp", "CopyOp", "CopySpec", "ForOp", "Limit", "PackedOp",
    "PassOp", "PassSpec", "Port", "RankOp", "RuntimeOp", "SharedOp",
    "Step", "SumOp", "WeightOp", "buffer_type", "int_array", "integer", "ints", "memory_of",
    "ports_of", "slice_strides",
]  # fmt: skip
