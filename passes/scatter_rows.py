"""Has every rank do a share of the rows where all of them would do the same to all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from npuc.ir import dist, graph
from npuc.ir.dist import MeshAttr
from npuc.passes.assign_shardings import AXIS
from npuc.passes.resizing import resize, update_signatures
from npuc.passes.rewriting import take_attributes
from npuc.passes.roles import BODY, is_layer
from npuc.passes.row_dims import RowDims, row_dims
from npuc.passes.row_tiles import ROWS, inputs_of, replace_by_tiles, tiled
from npuc.passes.specialized import buckets_of
from npuc.passes.spread_rows import SPREAD, spread_functions
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, UnitAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue, Use
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

ROW_WISE = (graph.UnaryOp, graph.BinaryOp, graph.CastOp, graph.RmsNormOp, graph.LayerNormOp)
"""What is done to the ranks' shares of the rows."""


@dataclass(frozen=True)
class ScatterRowsPass(ModulePass):
    """Gives every rank a share of the rows from each sum over ranks to the linear layers that follow it.

    All-reduces become reduce-scatters, and what linear layers take is gathered: the two halves of what an
    all-reduce does, so that as much is sent, or less where values are rounded between them. Residual sums
    and norms are of shares, and layers hand shares on. That is sequence parallelism (Korthikanti et al.,
    "Reducing Activation Recomputation in Large Transformer Models", 2023). It is done within the groups of
    rows that `stagger-rows` makes: a rank has a share of every group.
    """

    name = "scatter-rows"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        cores = machine_of(self.target).cores_per_chip
        for bucket in buckets_of(op):
            if SPREAD in bucket.attributes:
                _scatter(bucket, cores)
        update_signatures(op)


def _scatter(bucket: ModuleOp, cores: int) -> None:
    """Scatters the rows of all layers of a bucket, or of none: layers hand on what the next ones take."""
    functions = spread_functions(bucket)
    layers = [_plan(function) for function in functions if is_layer(function)]
    found = [layer for layer in layers if layer is not None]
    kinds = {(layer.groups, layer.mesh) for layer in found}
    body = next(f for f in functions if f.sym_name.data == BODY)
    runs = [op for op in body.body.block.ops if isinstance(op, graph.LayersOp)]
    if len(found) < len(layers) or len(kinds) != 1 or any(len(run.carried) > 1 for run in runs):
        return
    ((groups, mesh),) = kinds
    if mesh.ranks <= cores:
        for layer in found:
            layer.rewrite()
        _scatter_between(runs, groups, mesh)


def _scatter_between(runs: Sequence[graph.LayersOp], groups: int, mesh: MeshAttr) -> None:
    """Cuts what the first layers take and gathers what the last ones give."""
    for run in runs:
        (value,), (output,) = run.carried, run.outputs
        if not isinstance(value.owner, graph.LayersOp):
            run.operands[0] = _by_groups(value, groups, partial(_cut, mesh=mesh)).outputs[0]
        resize({output: _sized(output, _rows(output) // mesh.ranks)})
    for run in runs:
        output = run.outputs[0]
        others = [use for use in output.uses if not isinstance(use.operation, graph.LayersOp)]
        _gather_for(others, groups, mesh)


@dataclass
class _Layer:
    """What is to become of a layer.

    Attributes:
        tiles: its end, in groups of rows.
        groups: how many there are.
        shares: of what ranks will have shares; the hidden states are the first.
        entering: the share that is gathered for what stands before the end.
        meeting: those that are gathered in it.
        mesh: of the ranks.
    """

    tiles: graph.RowsOp
    groups: int
    shares: list[SSAValue]
    entering: SSAValue
    meeting: list[SSAValue]
    mesh: MeshAttr

    def rewrite(self) -> None:
        """Changes the layer; it takes and returns shares from now on."""
        new = resize({value: _sized(value, _rows(value) // self.mesh.ranks) for value in self.shares})
        self.shares, self.meeting = [new[v] for v in self.shares], [new[v] for v in self.meeting]
        self.entering = new[self.entering]
        for value in self.meeting:
            gathered = _gather(value, self.mesh)
            _put_behind(gathered, value)
            value.replace_uses_with_if(gathered.result, lambda use: self._takes_whole(use.operation))
        for op in list(self.tiles.body.block.ops):
            if isinstance(op, dist.AllReduceOp):
                part = op.result.type
                assert isinstance(part, TensorType)
                scattered = dist.ReduceScatterOp(op.input, op.kind.data, ROWS, [AXIS], self.mesh, part)
                take_attributes(scattered, op)
                Rewriter.replace_op(op, scattered)
        self._enter()

    def _takes_whole(self, op: Operation) -> bool:
        """Whether an operation takes the rows of all ranks."""
        local = isinstance(op, graph.YieldOp | dist.AllGatherOp) or op is self.tiles
        return not local and not {*op.results} & {*self.shares}

    def _enter(self) -> None:
        """What leads from the hidden states to what stands before the end, group by group, and gathered."""
        value, hidden = self.entering, self.shares[0]
        if value is hidden:
            _gather_for(
                [use for use in value.uses if use.operation is not self.tiles], self.groups, self.mesh
            )
            return
        block = hidden.owner
        assert isinstance(block, Block)
        region = [op for op in block.ops if op is not self.tiles and {*op.results} & {*self.shares}]
        inputs = {v: ROWS if v in self.shares else -1 for v in inputs_of(region)}
        tiles = tiled(region, inputs, value, _rows(value) // self.groups)
        (part,) = tiles.yielded.values
        gathered = _gather(part, self.mesh)
        _put_behind(gathered, part)
        tiles.yielded.operands[0] = gathered.result
        Rewriter.replace_value_with_new_type(tiles.outputs[0], _typed(value, _rows(value) * self.mesh.ranks))
        tiles.unrolled = UnitAttr()
        replace_by_tiles(region, value, tiles)


def _plan(function: FuncOp) -> _Layer | None:
    """What is to become of a layer; None where shares would not do."""
    block = function.body.block
    returned = block.last_op
    assert isinstance(returned, ReturnOp)
    tiles = returned.operands[0].owner
    if not isinstance(tiles, graph.RowsOp) or not _in_groups(tiles) or len(returned.operands) > 1:
        return None
    dims, hidden, inner = row_dims(function), block.args[0], tiles.body.block
    outside, entering = _shares_in(block, [hidden], dims)
    taken = [a for a, value in zip(inner.args, tiles.inputs, strict=True) if value is hidden]
    inside, meeting = _shares_in(inner, taken, dims)
    sums = [op for op in inner.ops if isinstance(op, dist.AllReduceOp)]
    once = len(entering) == 1 and outside[-1] is entering[0] and not {*tiles.inputs} & {*outside[1:]}
    kept = {*tiles.yielded.values} <= {*inside} and _take_turns(inner, meeting)
    if not once or not kept or len({(op.mesh, op.over) for op in sums}) != 1:
        return None
    mesh, rows = sums[0].mesh, _rows(sums[0].result)
    if sums[0].group_size != mesh.ranks or rows % mesh.ranks:
        return None
    groups, shares = _rows(tiles.outputs[0]) // rows, [*outside, *inside, *tiles.outputs]
    return _Layer(tiles, groups, shares, entering[0], meeting, mesh)


def _shares_in(
    block: Block, given: Sequence[SSAValue], dims: RowDims
) -> tuple[list[SSAValue], list[SSAValue]]:
    """The tensors of a block of which ranks can have shares, and those of them that others take whole.

    Args:
        given: such tensors that the block takes.
        dims: the row dimensions of all tensors.
    """
    shares, whole = list(given), list[SSAValue]()
    for op in block.ops:
        rows = [value for value in op.operands if value in dims]
        if isinstance(op, dist.AllReduceOp):
            shares.append(op.result)
        elif isinstance(op, ROW_WISE) and rows and {*rows} <= {*shares}:
            shares += op.results
        elif not isinstance(op, graph.YieldOp | ReturnOp) and not _in_groups(op):
            whole += [value for value in rows if value in shares and value not in whole]
    return shares, whole


def _in_groups(op: Operation) -> bool:
    """Whether an operation is a `graph.rows` of groups of rows."""
    return isinstance(op, graph.RowsOp) and op.unrolled is not None


def _take_turns(block: Block, gathered: Sequence[SSAValue]) -> bool:
    """Whether sums and gathers take turns, sums first and last: their exchange buffers do."""
    found: list[bool] = []
    for op in block.ops:
        found += [True] * isinstance(op, dist.AllReduceOp) + [False] * bool({*op.results} & {*gathered})
    return found == [turn % 2 == 0 for turn in range(2 * len(gathered) + 1)]


def _gather_for(uses: Sequence[Use], groups: int, mesh: MeshAttr) -> None:
    """Gathers a share for those that take it whole."""
    if uses:
        value = uses[0].operation.operands[uses[0].index]
        whole = _by_groups(value, groups, partial(_gather, mesh=mesh)).outputs[0]
        for use in uses:
            use.operation.operands[use.index] = whole


def _by_groups(value: SSAValue, groups: int, make: Callable[[SSAValue], dist.CollectiveOp]) -> graph.RowsOp:
    """A collective of each group of a tensor's rows, behind it."""
    body = Block(arg_types=[_typed(value, _rows(value) // groups)])
    (part,) = body.args
    part.name_hint = value.name_hint
    made = make(part)
    body.add_ops([made, graph.YieldOp([made.result])])
    rows = graph.RowsOp([value], [ROWS], [ROWS], body, [_typed(value, groups * _rows(made.result))])
    rows.unrolled = UnitAttr()
    _put_behind(rows, value)
    take_attributes(made, rows)
    return rows


def _cut(value: SSAValue, mesh: MeshAttr) -> dist.CollectiveOp:
    """A rank's share of some rows."""
    return dist.ShardSliceOp(value, ROWS, [AXIS], mesh, _typed(value, _rows(value) // mesh.ranks))


def _gather(value: SSAValue, mesh: MeshAttr) -> dist.CollectiveOp:
    """The rows of all ranks' shares."""
    return dist.AllGatherOp(value, ROWS, [AXIS], mesh, _typed(value, _rows(value) * mesh.ranks))


def _put_behind(new: Operation, value: SSAValue) -> None:
    """Puts an operation behind what makes a tensor, with its name and module; of an argument, its user's."""
    owner = value.owner
    if isinstance(owner, Operation):
        take_attributes(new, owner)
        Rewriter.insert_op(new, InsertPoint.after(owner))
    else:
        take_attributes(new, next(iter(value.uses)).operation)
        Rewriter.insert_op(new, InsertPoint.at_start(owner))
    new.results[0].name_hint = value.name_hint


def _rows(value: SSAValue) -> int:
    return graph.static_shape(value)[ROWS]


def _sized(value: SSAValue, rows: int) -> list[int]:
    """A tensor's shape with so many rows."""
    shape = [*graph.static_shape(value)]
    shape[ROWS] = rows
    return shape


def _typed(value: SSAValue, rows: int) -> TensorType[Attribute]:
    return TensorType(graph.element_of(value), _sized(value, rows))
