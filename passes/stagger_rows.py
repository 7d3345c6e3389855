"""Takes the row-wise end of a layer apart into groups of rows: while one travels, another is multiplied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, prod

from npuc.backends.machine import Machine
from npuc.ir import dist, graph
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.command_fields import element_name
from npuc.passes.costs import copy_cycles
from npuc.passes.live_bytes import live_bytes, room
from npuc.passes.pack_weights import storage_bits, storage_type
from npuc.passes.row_dims import RowDims, row_dims
from npuc.passes.row_tiles import (
    ROWS,
    TOKENWISE,
    WEIGHTS,
    inputs_of,
    joined,
    replace_by_tiles,
    tiled,
    with_tiles,
)
from npuc.passes.specialized import buckets_of
from npuc.passes.split_rows import slice_bytes
from npuc.passes.spread_rows import SPREAD, spread_functions
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

READ_AGAIN = 1.5
"""Reading the weights may take so many times as long as multiplying a group: attention hides some of it."""
FEW, MANY = 8, 32768
"""Bytes for each slice of a copy that hardly does more than start, and of one that mostly moves."""
TRIPS, COPIES = 3, 4
"""How often an all-reduce moves its tensor (values are written, shares of them read, sums read), by how many
copies."""


@dataclass(frozen=True)
class StaggerRowsPass(ModulePass):
    """Puts what leads to the end of a layer by way of all-reduces into an unrolled `graph.rows`.

    While the sums of one group of rows travel, another group is multiplied, as serving systems have it with
    two batches (Zhu et al., "NanoFlow", 2025). A group is a multiple of the slices, so that it is a view of
    tensors whose rows are spread. Every group reads the weights for itself: groups are made where that, and
    what the commands cost that come with it, is less than there is to hide.
    """

    name = "stagger-rows"
    target: str
    groups: int = 2

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        for bucket in buckets_of(op):
            if SPREAD in bucket.attributes:
                for function in spread_functions(bucket):
                    _stagger(function, self.groups, machine)


def _stagger(function: FuncOp, groups: int, machine: Machine) -> None:
    dims = row_dims(function)
    region = _row_wise_end(function, dims)
    if not any(isinstance(op, dist.AllReduceOp) for op in region):
        return
    result = region[-1].results[0]
    rows = graph.static_shape(result)[ROWS]
    if rows % (groups * machine.slices) == 0 and pays(region, rows // groups, machine):
        inputs = {value: dims.get(value, -1) for value in inputs_of(region)}
        tiles = tiled(region, inputs, result, rows // groups)
        if not _fits(tiles, geometry_of(machine)):
            tiles.erase()
            return
        tiles.unrolled = UnitAttr()
        replace_by_tiles(region, result, tiles)
        for value in inputs:
            if isinstance(value.owner, graph.RowsOp) and value.has_one_use():
                tiles = joined(with_tiles(value.owner, rows // groups, dims), tiles)


def _fits(tiles: graph.RowsOp, geometry: Geometry) -> bool:
    """Whether a slice can hold what is alive in a group."""
    live = live_bytes(tiles.body.block, lambda value: slice_bytes(value, geometry))
    return max(live.values()) <= room(geometry)


def _row_wise_end(function: FuncOp, dims: RowDims) -> list[Operation]:
    """The operations on rows that lead to the returned value and to nothing else, in program order."""
    block = function.body.block
    returned = block.last_op
    if not isinstance(returned, ReturnOp) or len(returned.operands) != 1:
        return []
    found: set[Operation] = set()
    work = [returned.operands[0].owner]
    while work:
        op = work.pop()
        if isinstance(op, Operation) and op not in found and _is_row_wise(op, dims):
            found.add(op)
            work += [operand.owner for operand in op.operands]
    for op in reversed(block.ops):
        users = {use.operation for value in op.results for use in value.uses}
        if op in found and not users <= {*found, returned}:
            found.discard(op)
    return [op for op in block.ops if op in found]


def _is_row_wise(op: Operation, dims: RowDims) -> bool:
    """Whether an operation makes rows, [batch, rows, size], each of one row of its operands."""
    tensors = [v for v in (*op.operands, *op.results) if not isinstance(v.owner, WEIGHTS)]
    makes_rows = all(v in dims for v in op.results)
    return isinstance(op, TOKENWISE) and makes_rows and all(_is_plain(v, dims) for v in tensors)


def _is_plain(value: SSAValue, dims: RowDims) -> bool:
    """Whether a tensor has no rows, or is [batch, rows, size]."""
    return value not in dims or (dims[value] == ROWS and len(graph.static_shape(value)) == ROWS + 2)


def pays(region: Sequence[Operation], rows: int, machine: Machine) -> bool:
    """Whether groups of so many rows are faster than all rows at once, by what the machine can do at most."""
    linears = [op for op in region if isinstance(op, graph.LinearOp)]
    sums = [op for op in region if isinstance(op, dist.AllReduceOp)]
    ranks = min(sums[0].mesh.ranks, machine.cores_per_chip)
    start = _copying(machine, ranks, FEW)
    pace = _copying(machine, ranks, MANY) / (MANY * machine.slices)
    read = sum(_bytes(op.weight) for op in linears) * pace
    travel = sum(TRIPS * _bytes(op.input) for op in sums) * pace
    more = (len(linears) + COPIES * len(sums)) * start
    return read <= READ_AGAIN * sum(_multiplying(linears, rows, machine)) and more <= travel


def _bytes(value: SSAValue) -> float:
    return prod(graph.static_shape(value)) * storage_bits(graph.element_of(value)) / 8


def _multiplying(linears: Sequence[graph.LinearOp], rows: int, machine: Machine) -> Iterator[float]:
    """Cycles of each linear layer at the multipliers' rate."""
    for op in linears:
        name = element_name(machine, storage_type(graph.element_of(op.input)))
        rate = machine.element_types[name].macs * machine.slices
        yield rows * prod(graph.static_shape(op.weight)) / rate if rate else inf


def _copying(machine: Machine, ranks: int, size: int) -> float:
    """Cycles of a copy of so many bytes to each slice, when so many ranks make theirs."""
    geometry = geometry_of(machine)
    walks = {"src": (geometry.main, ((size, 1), ())), "dst": (geometry.local, ((0, 1), (1, 0)))}
    return copy_cycles(machine, (machine.slices, size), walks, 8, ranks)
