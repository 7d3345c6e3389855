"""Cuts what treats each token by itself into tiles of rows, where all tokens at once do not fit on chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from npuc.ir import dist, graph
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.live_bytes import live_bytes, room
from npuc.passes.pack_weights import storage_bits
from npuc.passes.roles import is_head, is_layer
from npuc.passes.row_tiles import ROWS, TOKENWISE, WEIGHTS, inputs_of, replace_by_tiles, tiled
from npuc.passes.spread_rows import SPREAD
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass


@dataclass(frozen=True)
class SplitRowsPass(ModulePass):
    """Puts the end of a function into `graph.rows` if its tensors, cut over the slices, take too much memory.

    That is what follows attention in a layer, or makes logits. Every tile of rows reads the weights again.
    """

    name = "split-rows"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        geometry = geometry_of(machine_of(self.target))
        for function in op.walk():
            if isinstance(function, FuncOp):
                _split(function, geometry)


def _split(function: FuncOp, geometry: Geometry) -> None:
    block = function.body.block
    budget = room(geometry)

    def size(value: SSAValue) -> int:
        return slice_bytes(value, geometry)

    region = _tokenwise_end(block)
    live = live_bytes(block, size)
    if not region or max(live[op] for op in region) <= budget:
        return
    result = region[-1].results[0]
    inputs = inputs_of(region)
    held = sum(size(v) for v in inputs) + (0 if _elsewhere(function, inputs, result) else size(result))
    rows = graph.static_shape(result)[1]
    least = geometry.slices if SPREAD in _bucket_of(function).attributes else 1
    for count in (n for n in range(rows - 1, 0, -1) if rows % n == 0 and n % least == 0):
        tiles = tiled(region, {v: -1 if _of_weights(v.owner) else ROWS for v in inputs}, result, count)
        if count == least or held + max(live_bytes(tiles.body.block, size).values()) <= budget:
            replace_by_tiles(region, result, tiles)
            return
        tiles.erase()


def _bucket_of(function: FuncOp) -> Operation:
    bucket = function.parent_op()
    assert bucket is not None
    return bucket


def _elsewhere(function: FuncOp, inputs: Sequence[SSAValue], result: SSAValue) -> bool:
    """Whether the result needs no place of its own: logits leave the chip, a layer takes its input's."""
    arguments = function.body.block.args
    if is_head(function):
        return True
    replaced = is_layer(function) and bool(arguments) and arguments[0] in inputs
    return replaced and arguments[0].type == result.type and isinstance(result.owner, graph.BinaryOp)


def slice_bytes(value: SSAValue, geometry: Geometry) -> int:
    """Bytes of a tensor in each slice when it is cut; weights and what is gathered lie elsewhere."""
    shape = graph.static_shape(value)
    if not shape or isinstance(value.owner, (*WEIGHTS, dist.AllGatherOp)):
        return 0
    own = prod(shape[:-1]) * geometry.chunk(shape[-1])
    return own * storage_bits(graph.element_of(value)) // 8


def _tokenwise_end(block: Block) -> list[Operation]:
    """The longest run of token-wise operations that makes the returned value, beside weights."""
    returned = block.last_op
    if not isinstance(returned, ReturnOp) or len(returned.operands) != 1:
        return []
    shape = graph.static_shape(returned.operands[0])
    if len(shape) != 3 or shape[1] == 1:
        return []
    found: list[Operation] = []
    op = returned.prev_op
    while op is not None and (_of_weights(op) or _is_tokenwise(op, shape[:2])):
        if not _of_weights(op):
            found.insert(0, op)
        op = op.prev_op
    while found and returned.operands[0] not in found[-1].results:
        found.pop()
    while found and any(_used_outside(op, found) for op in found[:-1]):
        del found[0]
    return found


def _of_weights(owner: Operation | Block) -> bool:
    """Whether something is a weight or a constant, or a part of one: of parameters that were joined."""
    if isinstance(owner, graph.SliceOp | graph.ReshapeOp):
        return _of_weights(owner.input.owner)
    return isinstance(owner, WEIGHTS)


def _used_outside(op: Operation, region: Sequence[Operation]) -> bool:
    return any(use.operation not in region for result in op.results for use in result.uses)


def _is_tokenwise(op: Operation, lead: tuple[int, ...]) -> bool:
    """Whether every tensor of an operation is [batch, rows, size], or made of weights and constants."""
    tensors = [v for v in (*op.operands, *op.results) if not _of_weights(v.owner)]
    return isinstance(op, TOKENWISE) and all(
        len(s := graph.static_shape(v)) == 3 and s[:2] == lead for v in tensors
    )
