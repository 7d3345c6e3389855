"""From placed tensors to passes and copies over buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from npuc.backends.machine import Machine
from npuc.ir import dist, graph, tile
from npuc.ir.shapes import row_major_strides
from npuc.ir.tile_placements import HostAttr, SlicedAttr
from npuc.passes.algorithms.chains import VectorUnits, vector_units
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.algorithms.regions import align
from npuc.passes.live_bytes import live_bytes
from npuc.passes.lowering import attention, caches, collectives, exchange, linear, movement, rules
from npuc.passes.lowering.emitter import Emitter
from npuc.passes.lowering.function import Deferred, FunctionLowering, own_shape
from npuc.passes.lowering.turns import turns
from npuc.passes.lowering.views import View, dense, window
from npuc.passes.pack_weights import storage_type
from npuc.passes.partition import ranks_of
from npuc.passes.placing import placement_of
from npuc.passes.programs import buffer_bytes
from npuc.passes.roles import BODY, is_layer
from npuc.passes.specialized import buckets_of, sizes_of
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import FunctionType, IndexType, MemRefType, ModuleOp, TensorType
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

STAGED = 0.875
"""How much of the local memory tensors and copies of weights may take; the rest is for small things."""
COPIES_UNDER_WAY = 3

Rule = Callable[[FunctionLowering, Any], None]


def _nothing(low: FunctionLowering, op: Operation) -> None:
    """Weights are loaded where they are used."""


RULES: dict[type[Operation], Rule] = {
    graph.ParamOp: _nothing,
    graph.WhereOp: rules.lower_where,
    graph.CastOp: rules.lower_cast,
    graph.GatedOp: rules.lower_gated,
    graph.LinearOp: linear.lower_linear,
    graph.RmsNormOp: rules.lower_rms_norm,
    graph.LayerNormOp: rules.lower_layer_norm,
    graph.ReduceOp: rules.lower_reduce,
    graph.SoftmaxOp: rules.lower_softmax,
    graph.ReshapeOp: movement.lower_reshape,
    graph.BroadcastOp: movement.lower_broadcast,
    graph.TransposeOp: movement.lower_transpose,
    graph.SliceOp: movement.lower_slice,
    graph.ConcatOp: movement.lower_concat,
    graph.PadOp: movement.lower_pad,
    graph.RelayoutOp: movement.lower_relayout,
    graph.EmbeddingOp: movement.lower_embedding,
    graph.SelectRowsOp: movement.lower_select_rows,
    graph.RopeOp: movement.lower_rope,
    graph.KvUpdateOp: caches.lower_kv_update,
    graph.AttentionOp: attention.lower_attention,
    dist.AllReduceOp: collectives.lower_all_reduce,
    dist.AllGatherOp: exchange.lower_all_gather,
    dist.ReduceScatterOp: collectives.lower_reduce_scatter,
    dist.ShardSliceOp: exchange.lower_shard_slice,
    **dict.fromkeys(graph.UNARY.values(), rules.lower_unary),
    **dict.fromkeys(graph.BINARY.values(), rules.lower_binary),
}


@dataclass(frozen=True)
class LowerToTilePass(ModulePass):
    """Turns every bucket's functions into `tile` functions: destination passing, caches in place."""

    name = "lower-to-tile"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        context = _Context(op, machine, geometry_of(machine), vector_units(machine))
        for bucket in buckets_of(op):
            context.lower_bucket(bucket)


@dataclass
class _Context:
    module: ModuleOp
    machine: Machine
    geometry: Geometry
    units: VectorUnits

    def lower_bucket(self, bucket: ModuleOp) -> None:
        """Replaces each function of the bucket by its lowering."""
        batch, _, length = sizes_of(bucket)
        for function in list(bucket.body.block.ops):
            if not isinstance(function, FuncOp):
                continue
            name = function.sym_name.data
            lowered = (
                self._entry(function) if name in ("all", "last") else self._function(function, batch, length)
            )
            bucket.body.block.insert_ops_before([lowered], function)
            function.detach()
            function.erase()

    def _argument(self, kind: Attribute) -> Attribute:
        """The buffer type that carries a tensor of this type across a call."""
        assert isinstance(kind, TensorType)
        shape, placement = kind.get_shape(), placement_of(kind)
        if isinstance(placement, HostAttr):
            return tile.buffer_type(shape, kind.element_type, self.geometry.main)
        element, slices = storage_type(kind.element_type), self.geometry.slices
        if isinstance(placement, SlicedAttr):
            own = (slices, *shape[:-1], placement.chunk.data)
            return tile.buffer_type(own, element, self.geometry.local)
        flat = align(prod(own_shape(kind, slices)), max(self.geometry.granule // 2, 1))
        return tile.buffer_type((slices, flat), element, self.geometry.local)

    def _staging(self, function: FuncOp) -> int:
        """Bytes of local memory for one copy of weights: several shall be under way at once."""

        def size(value: SSAValue) -> int:
            kind = self._argument(value.type)
            assert isinstance(kind, MemRefType)
            local = tile.memory_of(kind) == self.geometry.local
            return buffer_bytes(self.machine, kind) if local else 0

        alive = max(live_bytes(function.body.block, size).values(), default=0)
        return max(0, int(STAGED * self.geometry.local_bytes) - alive) // COPIES_UNDER_WAY

    def _function(self, function: FuncOp, batch: int, length: int) -> FuncOp:
        name = function.sym_name.data
        layer = is_layer(function)
        inputs = [self._argument(a.type) for a in function.body.block.args]
        outputs = list(function.function_type.outputs)
        destinations = [] if layer else [self._argument(t) for t in outputs]
        lead: list[Attribute] = [IndexType()] if layer else []
        block = Block(arg_types=[*lead, *inputs, *destinations])
        low = FunctionLowering(
            Emitter(self.machine, self.geometry, self.units, block),
            {p.sym_name.data: p for p in self.module.body.block.ops if isinstance(p, tile.PackedOp)},
            {c.sym_name.data: c for c in self.module.body.block.ops if isinstance(c, tile.CacheOp)},
            block.args[0] if layer else None,
            batch,
            length,
            self._staging(function),
            ranks_of(self.module),
        )
        if layer:
            block.args[0].name_hint = "layer"
        arguments = block.args[len(lead) :]
        for original, argument in zip(function.body.block.args, arguments, strict=False):
            argument.name_hint = original.name_hint
            low.values[original] = _argument_view(argument, original.type)
        carried = arguments[: len(outputs)] if layer else arguments[len(inputs) :]
        if not layer:
            for destination, value in zip(carried, _returned(function), strict=True):
                destination.name_hint = "result"
                if low.on_host(value):
                    low.destinations[value] = _logits_view(destination, value)
        else:
            low.destinations.update(_in_place(function, carried))
        _lower_block(low, function.body.block, list(carried))
        kind = FunctionType.from_lists([a.type for a in block.args], [])
        return FuncOp(name, kind, Region(block), "private")

    def _entry(self, function: FuncOp) -> FuncOp:
        """An entry allocates the hidden states and calls body and head."""
        calls = [op for op in function.body.block.ops if isinstance(op, CallOp)]
        inputs = [self._argument(a.type) for a in function.body.block.args]
        logits = self._argument(function.function_type.outputs.data[0])
        block = Block(arg_types=[*inputs, logits])
        hidden_type = self._argument(calls[0].results[0].type)
        assert isinstance(hidden_type, MemRefType)
        hidden = tile.AllocOp(hidden_type.get_shape(), hidden_type.element_type, self.geometry.local)
        hidden.result.name_hint = "hidden"
        for argument, original in zip(block.args, function.body.block.args, strict=False):
            argument.name_hint = original.name_hint
        block.args[-1].name_hint = f"logits_{function.sym_name.data}"
        block.add_ops(
            [
                hidden,
                tile.CallOp(BODY, [*block.args[:-1], hidden.result]),
                tile.CallOp(calls[1].callee.string_value(), [hidden.result, block.args[-1]]),
                ReturnOp(),
            ]
        )
        return FuncOp(function.sym_name.data, FunctionType.from_lists([*inputs, logits], []), Region(block))


def _argument_view(argument: SSAValue, kind: Attribute) -> View:
    """The tensor that a buffer argument carries."""
    assert isinstance(kind, TensorType)
    shape, placement = kind.get_shape(), placement_of(kind)
    if isinstance(placement, SlicedAttr):
        chunk = placement.chunk.data
        return dense(argument, (*shape[:-1], chunk), shape[-1], chunk)
    buffer = argument.type
    assert isinstance(buffer, MemRefType)
    slices = 1 if isinstance(placement, HostAttr) else buffer.get_shape()[0]
    return dense(argument, own_shape(kind, slices) or (1,))


def _in_place(function: FuncOp, carried: Sequence[SSAValue]) -> Iterator[tuple[SSAValue, View]]:
    """Results that may be written over the arguments they replace: tiles of rows that are a sum with them."""
    for argument, buffer, value in zip(function.body.block.args, carried, _returned(function), strict=False):
        rows = value.owner
        if not isinstance(rows, graph.RowsOp) or argument.type != value.type:
            continue
        if not isinstance(rows.yielded.values[0].owner, graph.BinaryOp):
            continue
        order = {op: number for number, op in enumerate(function.body.block.ops)}
        along = dict(zip(rows.inputs, rows.dims[0], strict=True))
        if len(rows.outputs) == 1 and along.get(argument, -1) == rows.dims[1][0]:
            if all(order.get(use.operation, -1) <= order[rows] for use in argument.uses):
                yield value, _argument_view(buffer, value.type)


def _returned(function: FuncOp) -> Sequence[SSAValue]:
    """What a function returns."""
    returned = function.body.block.last_op
    assert isinstance(returned, ReturnOp)
    return returned.operands


def _lower_block(low: FunctionLowering, block: Block, destinations: list[SSAValue]) -> None:
    _lower_ops(low, list(block.ops), destinations)


def _lower_ops(low: FunctionLowering, ops: Sequence[Operation], destinations: list[SSAValue]) -> None:
    for op in ops:
        low.begin(op)
        if isinstance(op, ReturnOp):
            _lower_return(low, op, destinations)
        elif isinstance(op, graph.RowsOp):
            _lower_rows(low, op)
        elif isinstance(op, graph.YieldOp):
            _lower_yield(low, op)
        elif isinstance(op, graph.LayersOp):
            _lower_layers(low, op)
        elif isinstance(op, graph.RelayoutOp) and op.result in low.destinations and low.on_host(op.result):
            low.values[op.result] = low.destinations[op.result]
            movement.store_result(low, op)
        elif isinstance(op, graph.ConstantOp):
            if any(_needs_buffer(use.operation) for use in op.result.uses):
                movement.lower_constant(low, op)
        elif type(op) in RULES:
            RULES[type(op)](low, op)
        else:
            raise PassFailedException(
                f"lower-to-tile: {op.name} has no lowering ({low.emit.module}); add a rule to RULES"
            )


def _lower_rows(low: FunctionLowering, op: graph.RowsOp) -> None:
    """A loop over tiles of rows; inputs and results are seen through windows that move with it."""
    block, (input_dims, output_dims) = op.body.block, op.dims
    inputs = [None if v in low.cache_symbols else low.view(v) for v in op.inputs]
    outputs = [low.fresh(v) for v in op.outputs]
    dim = output_dims[0]
    count = graph.static_shape(op.outputs[0])[dim] // graph.static_shape(op.yielded.values[0])[dim]

    def enter(index: SSAValue | int) -> None:
        """Sees inputs and results through the windows of a tile."""
        for argument, value, view, d in zip(block.args, op.inputs, inputs, input_dims, strict=True):
            if view is None:
                low.cache_symbols[argument] = low.cache_symbols[value]
            else:
                low.values[argument] = window(view, d, low.own_shape(argument), index)
        for value, view, d in zip(op.yielded.values, outputs, output_dims, strict=True):
            low.destinations[value] = window(view, d, low.own_shape(value), index)

    if op.unrolled and count > 1:
        _lower_in_turns(low, block, count, enter)
    else:
        outer, index = low.emit.block, 0
        if count > 1:
            attention.prepare(low, op)
            loop = tile.ForOp(count)
            loop.induction.name_hint = "rows"
            low.emit.add(loop)
            low.emit.block, index = loop.body.block, loop.induction
        enter(index)
        _lower_block(low, block, [])
        low.emit.block = outer
    low.loaded.clear()
    for value, view in zip(op.outputs, outputs, strict=True):
        low.values[value] = view


def _lower_in_turns(low: FunctionLowering, block: Block, count: int, enter: Callable[[int], None]) -> None:
    """Without a loop, each tile in turn up to where ranks add up; what they have loaded is there for all."""
    outside = low.values, low.destinations
    tiles = [(dict(low.values), dict(low.destinations)) for _ in range(count)]
    loaded: dict[SSAValue, View | Deferred] = {}
    for number, (low.values, low.destinations) in enumerate(tiles):
        enter(number)
    for low.strand, stage in turns(block, count):
        low.values, low.destinations = tiles[low.strand]
        low.values.update(loaded)
        _lower_ops(low, stage, [])
        loaded.update({v: low.values[v] for v in low.values if isinstance(v.owner, graph.ParamOp)})
    low.strand, (low.values, low.destinations) = 0, outside


def _lower_yield(low: FunctionLowering, op: graph.YieldOp) -> None:
    """Results that were not put in their place already are copied there."""
    for value in op.values:
        view, destination = low.view(value), low.destinations[value]
        if view != destination:
            with low.on_behalf_of(value):
                low.emit.copy_view(view, destination)


def _needs_buffer(user: Operation) -> bool:
    return not isinstance(user, graph.BinaryOp | graph.WhereOp)


def _logits_view(buffer: SSAValue, value: SSAValue) -> View:
    shape = graph.static_shape(value)
    kind = buffer.type
    assert isinstance(kind, MemRefType)
    return View(buffer, shape, row_major_strides(kind.get_shape()), size=shape[-1])


def _lower_return(low: FunctionLowering, op: ReturnOp, destinations: list[SSAValue]) -> None:
    """Copies results to the destinations; logits are there already."""
    views = [low.view(value) for value in op.operands]
    for value, view, destination in zip(op.operands, views, destinations, strict=True):
        if view.buffer is not destination and not low.on_host(value):
            with low.on_behalf_of(value):
                low.emit.copy_view(view, _argument_view(destination, value.type))
    low.emit.add(ReturnOp())


def _lower_layers(low: FunctionLowering, op: graph.LayersOp) -> None:
    """A loop over the layer ordinals; carried tensors are updated in place."""
    carried = [_owned(low, value, index < len(op.carried)) for index, value in enumerate(op.operands)]
    callee = op.callee.string_value()
    earlier = _layers_before(op)
    loop = tile.ForOp(len(op.layer_list), earlier)
    loop.induction.name_hint = "layer"
    call = tile.CallOp(callee, [loop.induction, *(view.buffer for view in carried)])
    call.location = op.location
    loop.body.block.add_op(call)
    low.emit.add(loop)
    for value, view in zip(op.outputs, carried, strict=False):
        low.values[value] = view


def _layers_before(op: graph.LayersOp) -> int:
    """How many layers of this kind earlier calls have run."""
    count, previous = 0, op.prev_op
    while previous is not None:
        if isinstance(previous, graph.LayersOp) and previous.callee == op.callee:
            count += len(previous.layer_list)
        previous = previous.prev_op
    return count


def _owned(low: FunctionLowering, value: SSAValue, written: bool) -> View:
    """The tensor in a buffer of its own that has the argument's layout."""
    view = low.view(value)
    fresh_needed = written and len(list(value.uses)) > 1
    kind = view.buffer.type
    assert isinstance(kind, MemRefType)
    size = prod(kind.get_shape()[1:])
    unit = max(low.emit.geometry.granule // 2, 1)
    is_dense = view.strides == row_major_strides(view.shape) and not view.offset and not view.index
    exact = (
        kind.get_shape()[1:] == view.shape
        if view.chunk
        else kind.get_shape()[1:] == (align(prod(view.shape), unit),)
    )
    if is_dense and exact and size and not fresh_needed:
        return view
    target = low.fresh(value)
    low.emit.copy_view(view, target)
    return target
