"""State of lowering one function: where each tensor lies, and helpers that every rule uses."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod

from npuc.ir import graph, tile
from npuc.ir.tile import Step
from npuc.ir.tile_placements import GridAttr, HostAttr, SlicedAttr, SpreadAttr
from npuc.passes.lowering import grids
from npuc.passes.lowering.emitter import Emitter
from npuc.passes.lowering.views import Nest, View, Walk, dense
from npuc.passes.pack_weights import storage_type
from npuc.passes.placing import placement_of
from xdsl.dialects.builtin import MemRefType, StringAttr, TensorType, bf16, f32
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException


@dataclass(frozen=True)
class Deferred:
    """An elementwise value not yet written anywhere: a chain over one stream and at most one operand."""

    stream: View
    steps: tuple[Step, ...]
    operand: View | None


@dataclass
class FunctionLowering:
    """Lowers one static `graph` function, op by op, into a `tile` function's block.

    Attributes:
        emit: where operations go.
        packed: packed weights of the module by symbol.
        caches: cache declarations by symbol.
        layer: the layer ordinal, in a layer-kind function.
        batch: rows of the bucket.
        length: its attention length.
        staging: bytes of local memory that one copy of weights may fill.
        ranks: how many cores of a chip run the function at the same time.
        strand: the number of the tile of an unrolled `graph.rows`; tiles' commands will be interleaved.
        values: view (or deferred chain) of each tensor value lowered so far.
        destinations: where a value that is still to come must be put.
        cache_symbols: the cache behind each value of keys or values.
        loaded: keys and values of a cache that the stationary memory holds during a loop over rows.
        stationary: tensors that the stationary memory holds, for all that multiply with them.
        readers: how many operations take each parameter that lies in local memory.
        registers: parameters that the vector registers hold in a block.
    """

    emit: Emitter
    packed: Mapping[str, tile.PackedOp]
    caches: Mapping[str, tile.CacheOp]
    layer: SSAValue | None
    batch: int
    length: int
    staging: int
    ranks: int = 1
    strand: int = 0
    values: dict[SSAValue, View | Deferred] = field(default_factory=dict)
    destinations: dict[SSAValue, View] = field(default_factory=dict)
    cache_symbols: dict[SSAValue, str] = field(default_factory=dict)
    loaded: dict[str, tuple[View, View]] = field(default_factory=dict[str, tuple[View, View]])
    stationary: dict[tuple[Block, View], View] = field(default_factory=dict[tuple[Block, View], View])
    readers: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])
    registers: dict[tuple[Block, SSAValue], SSAValue] = field(
        default_factory=dict[tuple[Block, SSAValue], SSAValue]
    )

    def begin(self, op: Operation) -> None:
        """Notes whose operations are being emitted."""
        module = op.attributes.get("module")
        self.emit.module = module.data if isinstance(module, StringAttr) else ""
        self.emit.location = op.location
        self.emit.hint = op.results[0].name_hint if op.results else None

    @contextmanager
    def on_behalf_of(self, value: SSAValue) -> Generator[None, None, None]:
        """Emits under the name and module of the operation that computes a value."""
        module, location, hint = self.emit.module, self.emit.location, self.emit.hint
        if isinstance(value.owner, Operation):
            self.begin(value.owner)
        self.emit.hint = value.name_hint or hint
        yield
        self.emit.module, self.emit.location, self.emit.hint = module, location, hint

    def view(self, value: SSAValue) -> View:
        """The tensor in a buffer, computing it now if it was deferred."""
        if value not in self.values and isinstance(value.owner, graph.ParamOp):
            with self.on_behalf_of(value):
                self.values[value] = self._load_param(value)
        if value not in self.values and value in self.cache_symbols:
            raise PassFailedException(
                f"lower-to-tile: keys and values of a cache are for graph.attention ({self.emit.module})"
            )
        found = self.values[value]
        if isinstance(found, Deferred):
            with self.on_behalf_of(value):
                target = self.fresh(value)
                self.elementwise(found.stream, found.steps, target, found.operand)
            self.values[value] = found = target
        return found

    def elementwise(self, stream: View, steps: Sequence[Step], out: View, operand: View | None) -> None:
        """out = chain(stream, operand); what is one parameter comes from the registers where that pays."""
        emit, shape = self.emit, out.shape
        if operand is None or prod(operand.shape) > 1 or not self.may_hold(operand):
            emit.elementwise(shape, stream, steps, out, operand)
            return
        place, taken = operand, [replace(s, source="vrf") if s.source == "operand" else s for s in steps]
        fetching = emit.cycles(lambda: emit.elementwise(shape, stream, steps, out, place))
        rest = emit.cycles(
            lambda: emit.elementwise(shape, stream, taken, out, vrf=self._registers_for(place))
        )
        if (vrf := self.held(operand, fetching - rest)) is not None:
            emit.elementwise(shape, stream, taken, out, vrf=vrf)
        else:
            emit.elementwise(shape, stream, steps, out, operand)

    def may_hold(self, view: View) -> bool:
        """Whether a view is of a parameter that takes no more than a quarter of the vector registers."""
        elements, quarter = prod(buffer_shape(view)), self.emit.geometry.register_bytes // 4
        return view.buffer in self.readers and 4 * elements <= quarter and view.element in (f32, bf16)

    def held(self, view: View, saved: float) -> View | None:
        """A parameter in the vector registers, where steps take it without a fetch.

        It is brought there whole, once in a block, and its readers share what that costs. None where one
        does not save twice its share in cycles, for it also has to wait for it.
        """
        key = self.emit.block, view.buffer
        if key not in self.registers:
            shared = self.emit.cycles(lambda: self._to_registers(view)) / self.readers[view.buffer]
            if saved < 2 * shared:
                return None
            self.registers[key] = self._to_registers(view).buffer
        return replace(view, buffer=self.registers[key])

    def _to_registers(self, view: View) -> View:
        """Brings a view's whole buffer to the vector registers."""
        target, count = self._registers_for(view), prod(buffer_shape(view))
        self.emit.copy_view(dense(view.buffer, (count,)), dense(target.buffer, (count,)))
        return target

    def _registers_for(self, view: View) -> View:
        """The place in the vector registers of a view, if all of its buffer is there."""
        buffer = self.emit.alloc(buffer_shape(view), f32, self.emit.geometry.registers)
        buffer.name_hint = view.buffer.name_hint
        return replace(view, buffer=buffer)

    def fresh(self, value: SSAValue) -> View:
        """Where a result goes: its destination if it has one, else a new buffer, by its placement."""
        if value in self.destinations:
            return self.destinations[value]
        kind = value.type
        assert isinstance(kind, TensorType)
        element = storage_type(kind.element_type)
        if isinstance(placement_of(value), SlicedAttr):
            return self.emit.sliced(kind.get_shape(), element)
        return self.emit.replicated(self.own_shape(value), element)

    def own_shape(self, value: SSAValue) -> tuple[int, ...]:
        """The shape of what a slice has of a tensor whose last dimension is not cut."""
        return own_shape(value.type, self.emit.geometry.slices)

    def weight(self, value: SSAValue) -> tuple[tile.PackedOp, SSAValue]:
        """The packed declaration and the main-memory buffer of a weight operand."""
        owner = value.owner
        if not isinstance(owner, graph.ParamOp):
            raise PassFailedException(f"lower-to-tile: expected a weight, got {owner}")
        packed = self.packed[owner.symbol.string_value()]
        layer = self.layer if packed.layers is not None else None
        op = tile.WeightOp(packed.sym_name.data, packed.type, layer)
        op.result.name_hint = value.name_hint
        self.emit.add(op)
        return packed, op.result

    def _load_param(self, value: SSAValue) -> View:
        """Copies a small weight next to the slices, in the placement its type says."""
        _, buffer = self.weight(value)
        kind, placement = value.type, placement_of(value)
        assert isinstance(kind, TensorType)
        assert isinstance(buffer.type, MemRefType)
        shape, slices = kind.get_shape(), self.emit.geometry.slices
        packed_shape, element = buffer.type.get_shape(), buffer.type.element_type
        if isinstance(placement, GridAttr):
            result = self.fresh(value)
            grids.load(self.emit, dense(buffer, shape), result, placement)
            self.readers[result.buffer] = len(list(value.uses))
            return result
        if isinstance(placement, SlicedAttr):
            _, lead, chunk = packed_shape
            target = dense(self.emit.alloc((lead, chunk), element), (lead, chunk))
            run = lead * chunk
            result = dense(target.buffer, (*shape[:-1], chunk), shape[-1], chunk)
        else:
            run = packed_shape[0]
            target = dense(self.emit.alloc((run,), element), (run,))
            result = dense(target.buffer, shape or (1,))
        walks = {
            "src": Walk(dense(buffer, packed_shape), (run if isinstance(placement, SlicedAttr) else 0, 1)),
            "dst": Walk(target, (0, 1), (1, 0)),
        }
        self.emit.emit_copy(Nest((slices, run), walks))
        self.readers[target.buffer] = len(list(value.uses))
        return result

    def define(self, value: SSAValue, view: View | Deferred) -> None:
        """Records where a result lies."""
        if isinstance(view, Deferred) and len(list(value.uses)) != 1:
            self.values[value] = view
            self.values[value] = self.view(value)
            return
        self.values[value] = view

    def on_host(self, value: SSAValue) -> bool:
        """Whether a value lies in main memory."""
        return isinstance(placement_of(value), HostAttr)


def own_shape(kind: Attribute, slices: int) -> tuple[int, ...]:
    """The shape of what a slice has of a tensor: of one whose rows are spread, its share of the rows."""
    assert isinstance(kind, TensorType)
    shape, placement = kind.get_shape(), placement_of(kind)
    if isinstance(placement, GridAttr):
        *lead, size = shape
        if placement.block.data:
            lead[-1] //= slices // placement.columns.data
        return (*lead, size // placement.columns.data)
    if not isinstance(placement, SpreadAttr):
        return shape
    dim = placement.dim.data
    return (*shape[:dim], shape[dim] // slices, *shape[dim + 1 :])


def buffer_shape(view: View) -> tuple[int, ...]:
    """What of a view's buffer lies in one slice."""
    kind = view.buffer.type
    assert isinstance(kind, MemRefType)
    return kind.get_shape()[1:]


def is_spread(value: SSAValue) -> bool:
    """Whether a tensor's rows are spread over the slices."""
    return isinstance(placement_of(value), SpreadAttr)


def nest_over(shape: Sequence[int], **views: View) -> Nest:
    """A nest over `shape` with every view broadcast to it."""
    walks = {name: Walk(view, view.broadcast_strides(shape)) for name, view in views.items()}
    return Nest(tuple(shape), walks)


def leading(view: View) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and strides of all but the last dimension."""
    return view.shape[:-1], view.strides[:-1]


def element_type(value: SSAValue) -> Attribute:
    """How a tensor value's elements are stored."""
    return storage_type(graph.element_of(value))
