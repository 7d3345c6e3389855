"""Where tensors lie whose rows are spread over the slices; wide products are cut instead."""

from __future__ import annotations

from math import prod

from npuc.ir import dist, graph
from npuc.ir.tile_placements import GridAttr, HostAttr, SlicedAttr, SpreadAttr
from npuc.passes.placing import (
    ELEMENTWISE,
    FLEXIBLE,
    Assigner,
    H,
    Placement,
    R,
    keeps_last,
    placement_of,
    with_placement,
)
from npuc.passes.roles import BODY
from npuc.passes.row_dims import RowDims, row_dims
from npuc.passes.shares import Shares
from xdsl.dialects.builtin import IntAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.rewriter import Rewriter


def along(dim: int) -> SpreadAttr:
    """Spread along a dimension."""
    return SpreadAttr(IntAttr(dim))


class SpreadHeadAssigner(Assigner):
    """Placements of a head whose hidden states have spread rows; those it wants are cut, as in any head."""

    def argument_placement(self, function: FuncOp, argument: BlockArgument) -> Placement:
        """Hidden states lie as the body leaves them."""
        return along(1)

    def rule(self, op: Operation, function: FuncOp) -> tuple[list[Placement | None], list[Placement]]:
        """A row whose number the program computes is found by way of main memory."""
        if isinstance(op, graph.SelectRowsOp) and graph.static_shape(op.input) != graph.static_shape(
            op.result
        ):
            return [H], [self.cut(op.result)]
        return super().rule(op, function)


class SpreadAssigner(Assigner):
    """Placements of one function of a bucket whose rows are spread over the slices.

    Of a linear layer's two operands one is broadcast to all slices, round the ring: the input, for a result
    that is cut along its last dimension, or the weight, for one that is spread. The smaller one is, unless
    everybody wants the result cut. Sums over ranks take what is cut and give what is spread. A rank's share
    of the rows is too small to spread: it lies on a grid of slices, or is cut.

    Attributes:
        rows: the row dimension of each tensor that has one.
        shares: the tensors of which the rank has its share of the rows.
        grid: the grid of slices that those lie on; without one they are cut.
    """

    rows: RowDims
    shares: Shares
    grid: GridAttr | None

    def run(self, function: FuncOp) -> list[Placement]:
        """Assigns the function's values; returns its arguments' placements."""
        self.rows, self.shares = row_dims(function), Shares(function)
        self.grid = self.shares.grid(self.machine)
        return super().run(function)

    def argument_placement(self, function: FuncOp, argument: BlockArgument) -> Placement:
        """The program's inputs lie in main memory, rows are spread, all else is everywhere."""
        if function.sym_name.data == BODY:
            return H
        return self._share(argument) if argument in self.shares else self._spread(argument)

    def _spread(self, value: SSAValue) -> Placement:
        dim = self.rows.get(value, -1)
        return R if dim < 0 else along(dim)

    def place_rows(self, op: graph.RowsOp, function: FuncOp) -> None:
        """The body works on tiles of the rows that every slice has, or that the rank has a share of."""
        dims, _ = op.dims
        arguments = list(op.body.block.args)
        for index, (operand, dim) in enumerate(zip(list(op.inputs), dims, strict=True)):
            stays = isinstance(placement_of(operand), HostAttr) and dim < 0
            placement = (
                H if stays else self._tiled(operand, dim) if dim >= 0 else self._whole(arguments[index])
            )
            op.operands[index] = self.placed(operand, placement, op)
            argument = arguments[index]
            Rewriter.replace_value_with_new_type(argument, with_placement(argument.type, placement))
        self.place_block(op.body.block, function)

    def _whole(self, value: SSAValue) -> Placement:
        """Of what is the same for all rows: where shares are that it meets, or everywhere."""
        return self._met(value) if self.shares.all_meet(value) else R

    def _share(self, value: SSAValue) -> Placement:
        """Of a share."""
        return self.cut(value) if self.grid is None else self.grid

    def _met(self, value: SSAValue) -> Placement:
        """Of what all rows of shares meet: a part for each column of the grid."""
        if self.grid is None or graph.static_shape(value)[-1:] in ((), (1,)):
            return self.sliced(value)
        return GridAttr(IntAttr(0), self.grid.columns)

    def _tiled(self, value: SSAValue, dim: int) -> Placement:
        """Of what is cut into tiles along a dimension, or put together from them."""
        return self._share(value) if value in self.shares else along(dim)

    def rule(self, op: Operation, function: FuncOp) -> tuple[list[Placement | None], list[Placement]]:
        """Operands' and results' placements of one op."""
        results = [self._spread(v) for v in op.results]
        match op:
            case graph.EmbeddingOp():
                return [None, H], results
            case graph.LinearOp():
                return self._linear(op)
            case graph.KvUpdateOp():
                return [along(1)] * 2, [H, H]
            case graph.AttentionOp():
                return [along(2), H, H, along(2)], results
            case graph.RowsOp():
                yielded = zip(op.yielded.values, op.dims[1], strict=True)
                return [None] * len(op.inputs), [self._tiled(v, d) for v, d in yielded]
            case graph.YieldOp():
                rows = op.parent_op()
                assert isinstance(rows, graph.RowsOp)
                return [self._tiled(v, d) for v, d in zip(op.values, rows.dims[1], strict=True)], []
            case graph.LayersOp():
                return list(self.callees[op.callee.string_value()]), [self._tiled(v, 1) for v in op.carried]
            case dist.AllReduceOp():
                return [self.cut(op.input)], results
            case dist.AllGatherOp():
                return [self._share(op.input)], results
            case dist.ReduceScatterOp():
                return [self.cut(op.input)], [self._share(op.result)]
            case dist.ShardSliceOp():
                return [H], [self._share(op.result)]
            case ReturnOp():
                return [self._tiled(v, 1) for v in op.operands], []
            case graph.SliceOp() | graph.ReshapeOp() if keeps_last(op) and self.shares.all_meet(op.result):
                return [self._met(op.input)], [self._met(op.result)]
            case _ if op in self.shares.making:
                return [self._like_share(v, op) for v in op.operands], [self._share(v) for v in op.results]
            case _:
                return self._rowwise(op, results)

    def _rowwise(
        self, op: Operation, results: list[Placement]
    ) -> tuple[list[Placement | None], list[Placement]]:
        """Rows are spread, but what stands between two linear layers may stay cut."""
        if isinstance(op, ELEMENTWISE) and self._wanted_cut(op.results[0]) and self._cuttable(op.results[0]):
            wide = graph.static_shape(op.results[0])[-1]
            sizes = [graph.static_shape(v)[-1:] for v in op.operands]
            operands = [
                self.sliced(v) if s == (wide,) else R for v, s in zip(op.operands, sizes, strict=True)
            ]
            return list(operands), [self.sliced(op.results[0])]
        return [self._as_spread(v) for v in op.operands], results

    def _like_share(self, value: SSAValue, op: Operation) -> Placement:
        """Of a share, or of what it meets: cut as that is, if it has as many columns."""
        if value in self.shares:
            return self._share(value)
        columns = graph.static_shape(op.results[0])[-1:]
        return self._met(value) if graph.static_shape(value)[-1:] == columns else R

    def _as_spread(self, value: SSAValue) -> Placement:
        """Spread, if the value has rows."""
        found = placement_of(value)
        if isinstance(found, SpreadAttr):
            return found
        if isinstance(found, SlicedAttr):  # of a linear layer: [batch, rows, size]
            return along(1)
        if isinstance(found, HostAttr) and isinstance(value, BlockArgument):  # positions
            return along(1)
        return self._spread(value)

    def _linear(self, op: graph.LinearOp) -> tuple[list[Placement | None], list[Placement]]:
        rows, columns = graph.static_shape(op.result)[1:]
        whole = isinstance(placement_of(op.input), SpreadAttr)
        cut = not whole or self._wanted_cut(op.result) or columns > rows
        vectors: list[Placement | None] = [self.cut(v) if cut else R for v in op.operands[2:]]
        return [None, None, *vectors], [self.cut(op.result) if cut else along(1)]

    def _wanted_cut(self, value: SSAValue) -> bool:
        """Whether all users take a tensor that is cut along its last dimension."""
        return all(self._takes_cut(use.operation, use.index) for use in value.uses)

    def _takes_cut(self, op: Operation, index: int) -> bool:
        if isinstance(op, graph.LinearOp):
            return index == 0
        if isinstance(op, ELEMENTWISE):
            return self._cuttable(op.results[0]) and self._wanted_cut(op.results[0])
        return isinstance(op, dist.CollectiveOp)

    def _cuttable(self, value: SSAValue) -> bool:
        """Whether a tensor comes from linear layers, and scalars, by way of elementwise operations alone."""
        owner = value.owner
        if isinstance(owner, graph.LinearOp):
            return True
        if not isinstance(owner, ELEMENTWISE):
            return False
        wide = graph.static_shape(value)
        operands = [v for v in owner.operands if not isinstance(v.owner, FLEXIBLE) and not _scalar(v)]
        return all(graph.static_shape(v) == wide and self._cuttable(v) for v in operands)


def _scalar(value: SSAValue) -> bool:
    """Whether a tensor has one element, the scale of a quantized tensor for example."""
    return prod(graph.static_shape(value)) == 1
