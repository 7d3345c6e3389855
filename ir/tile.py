"""The `tile` dialect: passes and copies over explicit buffers, and the placements before it.

Buffers are memrefs whose memory space names a memory of the machine; in per-slice memories
dimension 0 is the slice. The command model (nests, ports, chains) is docs/design.md, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from npuc.ir.shapes import row_major_strides
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    FlatSymbolRefAttrConstr,
    FloatAttr,
    IndexType,
    IntAttr,
    IntegerAttr,
    MemRefType,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    f32,
    i64,
)
from xdsl.ir import Attribute, Block, Dialect, ParametrizedAttribute, Region, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    attr_def,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_attr_def,
    opt_operand_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, NoTerminator, Pure, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

MAX_NEST = 8
MAX_CHAIN = 12


@irdl_attr_definition
class ReplicatedAttr(ParametrizedAttribute):
    """Placement R: every slice holds the whole tensor, row-major."""

    name = "tile.replicated"


@irdl_attr_definition
class SlicedAttr(ParametrizedAttribute):
    """Placement L: slice s holds elements s·chunk … (s+1)·chunk − 1 of the last dimension."""

    name = "tile.sliced"
    chunk: IntAttr

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return [IntAttr(parser.parse_integer(allow_boolean=False, allow_negative=False))]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(str(self.chunk.data))


@irdl_attr_definition
class HostAttr(ParametrizedAttribute):
    """Placement H: the tensor lies in main memory, row-major."""

    name = "tile.host"


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
        """The inverse of ``to_attr``."""
        data = attr.data
        strides = ints(data["strides"])
        index = data.get("index", ArrayAttr([]))
        assert isinstance(index, ArrayAttr)
        return Port(
            integer(data["buffer"]),
            integer(data["offset"]),
            strides,
            ints(data["slices"]) if "slices" in data else (0,) * len(strides),
            tuple((ints(pair)[0], ints(pair)[1]) for pair in index),
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
        """The inverse of ``to_attr``."""
        op, source, value = attr.data["op"], attr.data.get("source"), attr.data.get("value")
        assert isinstance(op, StringAttr)
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
        """The inverse of ``to_attr``."""
        return Limit(**{k: integer(v) for k, v in attr.data.items()})


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
    """Everything a `tile.copy` says, as plain values."""

    size: tuple[int, ...]
    ports: dict[str, Port]
    limit: Limit | None = None
    index_dim: int = -1
    index_scale: int = 0
    attributes: dict[str, Attribute] = field(default_factory=dict)


def int_array(values: Sequence[int]) -> DenseArrayBase:
    """An ``array<i64: …>`` attribute."""
    return DenseArrayBase.from_list(i64, list(values))


def ints(attr: Attribute) -> tuple[int, ...]:
    """The integers of an ``array<i64: …>`` attribute."""
    assert isinstance(attr, DenseArrayBase)
    return tuple(int(v) for v in attr.get_values())


def integer(attr: Attribute) -> int:
    """The value of an integer attribute."""
    assert isinstance(attr, IntegerAttr)
    return attr.value.data


def buffer_type(shape: Sequence[int], element: Attribute, memory: str) -> MemRefType[Attribute]:
    """A dense row-major buffer in the named memory."""
    return MemRefType(element, shape, memory_space=StringAttr(memory))


def memory_of(value: SSAValue | Attribute) -> str:
    """The name of the memory a buffer lies in."""
    kind = value.type if isinstance(value, SSAValue) else value
    assert isinstance(kind, MemRefType)
    assert isinstance(kind.memory_space, StringAttr)
    return kind.memory_space.data


@irdl_op_definition
class PackedOp(IRDLOperation):
    """How a weight is laid out for the target: `recipe` steps (pad, reshape, permute, cast) as data.

    `offset` is the byte offset in the weights region (of the first layer, for a layer weight), `stride`
    the bytes from one layer of the kind to the next, `layers` the model layers in that order.
    """

    name = "tile.packed"
    sym_name = attr_def(SymbolNameConstraint())
    weight = attr_def(FlatSymbolRefAttrConstr)
    type = attr_def(MemRefType)
    recipe = attr_def(ArrayAttr[DictionaryAttr])
    layers = opt_attr_def(DenseArrayBase)
    offset = attr_def(IntegerAttr)
    stride = attr_def(IntegerAttr)
    traits = traits_def(SymbolOpInterface())

    def __init__(
        self,
        name: str,
        weight: str,
        type: MemRefType[Attribute],
        recipe: Sequence[DictionaryAttr],
        layers: Sequence[int] | None = None,
        offset: int = -1,
        stride: int = 0,
    ) -> None:
        attributes: dict[str, Attribute] = {
            "sym_name": StringAttr(name),
            "weight": SymbolRefAttr(weight),
            "type": type,
            "recipe": ArrayAttr(recipe),
            "offset": IntegerAttr(offset, 64),
            "stride": IntegerAttr(stride, 64),
        }
        if layers is not None:
            attributes["layers"] = int_array(layers)
        super().__init__(attributes=attributes)


@irdl_op_definition
class CacheOp(IRDLOperation):
    """Declares a cache of the artifact; addresses are bytes from the cache region's base.

    Layer l of `layers`, slot s: keys [heads, length, key_size] at `offset` + ordinal · `layer_stride` +
    s · `slot_stride`, values `value_offset` bytes after them.
    """

    name = "tile.cache_decl"
    sym_name = attr_def(SymbolNameConstraint())
    layers = attr_def(DenseArrayBase)
    slots = attr_def(IntegerAttr)
    key_type = attr_def(MemRefType)
    value_type = attr_def(MemRefType)
    offset = attr_def(IntegerAttr)
    layer_stride = attr_def(IntegerAttr)
    slot_stride = attr_def(IntegerAttr)
    value_offset = attr_def(IntegerAttr)
    traits = traits_def(SymbolOpInterface())

    def __init__(
        self,
        name: str,
        layers: Sequence[int],
        key_type: MemRefType[Attribute],
        value_type: MemRefType[Attribute],
        layout: Mapping[str, int],
    ) -> None:
        attributes: dict[str, Attribute] = {
            "sym_name": StringAttr(name),
            "layers": int_array(layers),
            "key_type": key_type,
            "value_type": value_type,
        }
        for key in ("slots", "offset", "layer_stride", "slot_stride", "value_offset"):
            attributes[key] = IntegerAttr(layout[key], 64)
        super().__init__(attributes=attributes)


@irdl_op_definition
class AllocOp(IRDLOperation):
    """A buffer in on-chip (or scratch main) memory, uninitialised; lives to its last use."""

    name = "tile.alloc"
    result = result_def(MemRefType)

    def __init__(self, shape: Sequence[int], element: Attribute, memory: str) -> None:
        super().__init__(result_types=[buffer_type(shape, element, memory)])


@irdl_op_definition
class WeightOp(IRDLOperation):
    """A packed weight in main memory; `layer` is the ordinal within the layer kind."""

    name = "tile.weight"
    symbol = attr_def(FlatSymbolRefAttrConstr)
    layer = opt_operand_def(IndexType)
    result = result_def(MemRefType)
    traits = traits_def(Pure())

    def __init__(self, symbol: str, type: MemRefType[Attribute], layer: SSAValue | None = None) -> None:
        super().__init__(
            operands=[[] if layer is None else [layer]],
            attributes={"symbol": SymbolRefAttr(symbol)},
            result_types=[type],
        )


@irdl_op_definition
class CacheSlotOp(IRDLOperation):
    """The keys or values ([heads, length, size]) of one slot of one layer; `layer` as in tile.weight."""

    name = "tile.cache"
    symbol = attr_def(FlatSymbolRefAttrConstr)
    part = attr_def(StringAttr)
    layer = operand_def(IndexType)
    slot = operand_def(IndexType)
    result = result_def(MemRefType)
    traits = traits_def(Pure())

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
            raise VerifyException(f"tile.cache: part is {self.part.data}, expected key or value")


RUNTIME_PARAMETERS = ("slot", "position", "valid", "last", "end")


@irdl_op_definition
class RuntimeOp(IRDLOperation):
    """A row's runtime parameter: slot, position, valid, last = max(valid − 1, 0), end = position + valid."""

    name = "tile.runtime"
    parameter = attr_def(StringAttr)
    row = operand_def(IndexType)
    result = result_def(IndexType)
    traits = traits_def(Pure())

    def __init__(self, parameter: str, row: SSAValue) -> None:
        attributes: dict[str, Attribute] = {"parameter": StringAttr(parameter)}
        super().__init__(operands=[row], attributes=attributes, result_types=[IndexType()])

    def verify_(self) -> None:
        if self.parameter.data not in RUNTIME_PARAMETERS:
            raise VerifyException(
                f"tile.runtime: parameter is {self.parameter.data}, expected one of {RUNTIME_PARAMETERS}"
            )


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A constant index."""

    name = "tile.constant"
    value = attr_def(IntegerAttr)
    result = result_def(IndexType)
    traits = traits_def(Pure())

    def __init__(self, value: int) -> None:
        super().__init__(attributes={"value": IntegerAttr(value, 64)}, result_types=[IndexType()])


@irdl_op_definition
class ForOp(IRDLOperation):
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


@irdl_op_definition
class CallOp(IRDLOperation):
    """Calls a `tile` function: index operands and buffers, no results."""

    name = "tile.call"
    callee = attr_def(FlatSymbolRefAttrConstr)
    arguments = var_operand_def()

    def __init__(self, callee: str, arguments: Sequence[SSAValue]) -> None:
        super().__init__(operands=[arguments], attributes={"callee": SymbolRefAttr(callee)})


def _port_dictionary(ports: Mapping[str, Port]) -> DictionaryAttr:
    return DictionaryAttr({name: port.to_attr() for name, port in ports.items()})


def _verify_ports(op: PassOp | CopyOp, size: Sequence[int], ports: Mapping[str, Port]) -> None:
    if len(size) > MAX_NEST:
        raise VerifyException(f"{op.name}: nest has {len(size)} dimensions, at most {MAX_NEST}")
    for name, port in ports.items():
        expected = len(size) if name != "index" else 1
        if len(port.strides) != expected or len(port.slices) not in (0, expected):
            raise VerifyException(
                f"{op.name}: port {name} has {len(port.strides)} strides for {expected} dimensions"
            )
        if not 0 <= port.buffer < len(op.buffers):
            raise VerifyException(f"{op.name}: port {name} uses buffer {port.buffer} of {len(op.buffers)}")
        for k, _ in port.index:
            if not 0 <= k < len(op.indices):
                raise VerifyException(f"{op.name}: port {name} uses index {k} of {len(op.indices)}")


@irdl_op_definition
class PassOp(IRDLOperation):
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
            "ports": _port_dictionary(spec.ports),
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

    def verify_(self) -> None:
        spec = self.spec
        _verify_ports(self, spec.size, spec.ports)
        if "out" not in spec.ports:
            raise VerifyException("tile.pass: has no out port")
        if ("stream" in spec.ports) == (spec.fill is not None):
            raise VerifyException("tile.pass: needs a stream port or a fill value, and not both")
        if len(spec.chain) > MAX_CHAIN:
            raise VerifyException(f"tile.pass: chain has {len(spec.chain)} steps, at most {MAX_CHAIN}")
        for dim in spec.reduce:
            if spec.ports["out"].strides[dim] != 0:
                raise VerifyException(f"tile.pass: out moves along reduced dimension {dim}")


@irdl_op_definition
class CopyOp(IRDLOperation):
    """A DMA command over buffers: ports src, dst, and index for a gather."""

    name = "tile.copy"
    buffers = var_operand_def(MemRefType)
    indices = var_operand_def(IndexType)
    size = attr_def(DenseArrayBase)
    ports = attr_def(DictionaryAttr)
    limit = opt_attr_def(DictionaryAttr)
    index_dim = opt_attr_def(IntegerAttr)
    index_scale = opt_attr_def(IntegerAttr)
    irdl_options = (AttrSizedOperandSegments(),)
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self, spec: CopySpec, buffers: Sequence[SSAValue], indices: Sequence[SSAValue] = (), module: str = ""
    ) -> None:
        attributes: dict[str, Attribute] = {
            "size": int_array(spec.size),
            "ports": _port_dictionary(spec.ports),
        }
        if spec.limit is not None:
            attributes["limit"] = spec.limit.to_attr()
        if spec.index_dim >= 0:
            attributes["index_dim"] = IntegerAttr(spec.index_dim, 64)
            attributes["index_scale"] = IntegerAttr(spec.index_scale, 64)
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
        )

    def verify_(self) -> None:
        spec = self.spec
        _verify_ports(self, spec.size, spec.ports)
        for name in ("src", "dst"):
            if name not in spec.ports:
                raise VerifyException(f"tile.copy: has no {name} port")
        types = [self.buffers[spec.ports[name].buffer].type for name in ("src", "dst")]
        elements = [t.element_type for t in types if isinstance(t, MemRefType)]
        if elements[0] != elements[1]:
            raise VerifyException(f"tile.copy: element types differ: {elements[0]} and {elements[1]}")


def ports_of(attr: DictionaryAttr) -> dict[str, Port]:
    """The ports dictionary as plain values."""
    return {k: Port.from_attr(v) for k, v in attr.data.items() if isinstance(v, DictionaryAttr)}


def slice_strides(type: MemRefType[Attribute], per_slice: bool) -> tuple[int, ...]:
    """Row-major element strides inside one slice; a per-slice buffer's dimension 0 is left out."""
    shape = type.get_shape()
    return row_major_strides(shape[1:] if per_slice else shape)


TILE = Dialect(
    "tile",
    [
        PackedOp, CacheOp, AllocOp, WeightOp, CacheSlotOp, RuntimeOp, ConstantOp, ForOp, CallOp, PassOp,
        CopyOp,
    ],
    [ReplicatedAttr, SlicedAttr, HostAttr],
)  # fmt: skip
