"""Where the tensors of a function lie among the slices: each whole, or cut along its last dimension."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from npuc.backends.machine import Machine
from npuc.ir import dist, graph
from npuc.ir.tile_placements import GridAttr, HostAttr, ReplicatedAttr, SlicedAttr, SpreadAttr
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.rewriting import take_attributes
from npuc.passes.roles import BODY, is_head
from xdsl.dialects.builtin import IntAttr, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue
from xdsl.rewriter import Rewriter

Placement = ReplicatedAttr | SlicedAttr | SpreadAttr | GridAttr | HostAttr
R = ReplicatedAttr()
H = HostAttr()

FLEXIBLE = (graph.ParamOp, graph.ConstantOp, graph.IotaOp)
ELEMENTWISE = (graph.UnaryOp, graph.BinaryOp, graph.WhereOp, graph.CastOp, graph.GatedOp)
NO_DEMANDS = (
    graph.LinearOp,
    graph.ReduceOp,
    graph.EmbeddingOp,
    graph.RowsOp,
    graph.YieldOp,
    graph.KvUpdateOp,
)
WANTS_SLICES = (graph.RmsNormOp, graph.LayerNormOp, graph.SelectRowsOp, graph.GatedOp, ReturnOp)
KEEPS_LAST_DIM = (graph.ReshapeOp, graph.BroadcastOp, graph.SliceOp, graph.TransposeOp, graph.PadOp)
FEW = 32
"""What takes at most 1/FEW of the local memory may lie whole in every slice."""


def placement_of(value: SSAValue | Attribute) -> Attribute | None:
    """The placement in a tensor's encoding, if it has one."""
    kind = value.type if isinstance(value, SSAValue) else value
    if isinstance(kind, TensorType) and isinstance(kind.encoding, Placement):
        return kind.encoding
    return None


def with_placement(kind: Attribute, placement: Attribute) -> TensorType[Attribute]:
    assert isinstance(kind, TensorType)
    return TensorType(kind.element_type, kind.get_shape(), placement)


def _last(value: SSAValue) -> int:
    shape = graph.static_shape(value)
    return shape[-1] if shape else 1


@dataclass
class Assigner:
    """Placements of one function."""

    machine: Machine
    callees: dict[str, list[Placement]]
    demand: dict[SSAValue, Placement] = field(default_factory=dict)
    copies: dict[tuple[SSAValue, Attribute], SSAValue] = field(default_factory=dict)

    @property
    def geometry(self) -> Geometry:
        """Where things can lie on the machine."""
        return geometry_of(self.machine)

    def run(self, function: FuncOp) -> list[Placement]:
        """Assigns the function's values; returns its arguments' placements."""
        block = function.body.block
        self._note_block_demands(block)
        arguments = [self.argument_placement(function, a) for a in block.args]
        for argument, placement in zip(list(block.args), arguments, strict=True):
            Rewriter.replace_value_with_new_type(argument, with_placement(argument.type, placement))
        self.place_block(block, function)
        function.update_function_type()
        return arguments

    def _note_block_demands(self, block: Block) -> None:
        for op in reversed(list(block.ops)):
            if isinstance(op, graph.RowsOp):
                self._note_block_demands(op.body.block)
                for operand, argument in zip(op.inputs, op.body.block.args, strict=True):
                    if argument in self.demand:
                        self._ask(operand, self._outside(operand, self.demand[argument]))
            self._note_demands(op)

    def _outside(self, value: SSAValue, inside: Placement) -> Placement:
        """Where a value of all rows lies of which `graph.rows` wants tiles: cut, where it is large."""
        return inside if self._small(value) else self.sliced(value)

    def _small(self, value: SSAValue) -> bool:
        """Whether every slice may hold the whole."""
        return 4 * prod(graph.static_shape(value)) <= self.geometry.local_bytes // FEW

    def place_block(self, block: Block, function: FuncOp) -> None:
        for op in list(block.ops):
            self._place(op, function)
        for op in reversed(list(block.ops)):
            if isinstance(op, FLEXIBLE) and not op.result.uses:
                op.detach()
                op.erase()

    def place_rows(self, op: graph.RowsOp, function: FuncOp) -> None:
        """Inputs stay as they are placed, results are sliced; the body works on tiles of the same kinds."""
        for index, operand in enumerate(op.inputs):
            op.operands[index] = self.placed(operand, self._chosen(operand), op)
        for argument, operand in zip(list(op.body.block.args), op.inputs, strict=True):
            placement = placement_of(operand)
            assert placement is not None
            Rewriter.replace_value_with_new_type(argument, with_placement(argument.type, placement))
        self.place_block(op.body.block, function)

    def sliced(self, value: SSAValue) -> Placement:
        """L for a tensor's last dimension; a last dimension of 1 is the same everywhere."""
        return self.cut(value) if _last(value) > 1 else R

    def cut(self, value: SSAValue) -> Placement:
        """L but for scalars, even for a last dimension of 1: each slice makes or moves its own elements."""
        if not graph.static_shape(value):
            return R
        return SlicedAttr(IntAttr(self.geometry.chunk(_last(value))))

    def argument_placement(self, function: FuncOp, argument: BlockArgument) -> Placement:
        name = function.sym_name.data
        if name == BODY:
            return H
        if is_head(function) or argument.index < len(function.function_type.outputs):
            return self.sliced(argument)
        return self.demand.get(argument, R)

    def _note_demands(self, op: Operation) -> None:
        """What an op asks of its operands, so far as it cares."""
        wanted = self.demand.get(op.results[0]) if op.results else None
        if isinstance(op, graph.AttentionOp):
            self._ask(op.query, R)
            if op.mask is not None:
                self._ask(op.mask, self.sliced(op.mask))
        elif isinstance(op, (*WANTS_SLICES, dist.CollectiveOp)):
            for operand in op.operands:
                self._ask(operand, self.sliced(operand))
        elif isinstance(op, graph.LayersOp):
            for operand, placement in zip(op.operands, self.callees[op.callee.string_value()], strict=True):
                self._ask(operand, placement)
        elif isinstance(op, ELEMENTWISE) or (isinstance(op, KEEPS_LAST_DIM) and keeps_last(op)):
            for operand in op.operands:
                if wanted is not None and _last(operand) == _last(op.results[0]):
                    self._ask(operand, wanted)
        elif not isinstance(op, NO_DEMANDS):
            for operand in op.operands:
                self._ask(operand, R)

    def _ask(self, value: SSAValue, placement: Placement) -> None:
        self.demand[value] = placement

    def _place(self, op: Operation, function: FuncOp) -> None:
        """Chooses operand and result placements of one op."""
        if isinstance(op, FLEXIBLE):
            return
        if isinstance(op, graph.RowsOp):
            self.place_rows(op, function)
        operands, results = self.rule(op, function)
        for index, placement in enumerate(operands):
            if placement is not None:
                op.operands[index] = self.placed(op.operands[index], placement, op)
        for value, placement in zip(list(op.results), results, strict=True):
            Rewriter.replace_value_with_new_type(value, with_placement(value.type, placement))

    def rule(self, op: Operation, function: FuncOp) -> tuple[list[Placement | None], list[Placement]]:
        if isinstance(op, graph.EmbeddingOp):
            return [None, H], [self.cut(op.result)]
        if isinstance(op, graph.LinearOp):
            stream = placement_of(op.input) or R
            vectors: list[Placement | None] = [self.cut(v) for v in op.operands[2:]]
            return [R if isinstance(stream, HostAttr) else None, None, *vectors], [self.cut(op.result)]
        if isinstance(op, ELEMENTWISE):
            return self._elementwise(op)
        if isinstance(op, graph.RmsNormOp | graph.LayerNormOp):
            placement = self._chosen(op.operands[0])
            return [placement] * len(op.operands), [placement]
        if isinstance(op, graph.ReduceOp):
            return self._reduce(op)
        if isinstance(op, KEEPS_LAST_DIM) and keeps_last(op):
            placement = self._chosen(op.input)
            return [placement], [placement]
        if isinstance(op, graph.KvUpdateOp):
            return [self._stored(v) for v in op.operands], [H, H]
        if isinstance(op, graph.RowsOp):
            return [None] * len(op.inputs), [self._result(v, function) for v in op.outputs]
        if isinstance(op, graph.YieldOp):
            rows = op.parent_op()
            assert isinstance(rows, graph.RowsOp)
            return [self._result(v, function) for v in rows.outputs], []
        if isinstance(op, graph.AttentionOp):
            mask: list[Placement | None] = [] if op.mask is None else [self.sliced(op.mask)]
            stored = H if isinstance(placement_of(op.keys), HostAttr) else R
            return [R, stored, stored, *mask], [R]
        if isinstance(op, dist.AllReduceOp):
            return [self.sliced(op.input)], [self.sliced(op.result)]
        if isinstance(op, dist.AllGatherOp):
            return [self.cut(op.input)], [H]
        if isinstance(op, graph.LayersOp):
            placements = self.callees[op.callee.string_value()]
            return list(placements), [self.sliced(v) for v in op.outputs]
        if isinstance(op, graph.SelectRowsOp):
            return [self.cut(op.input)], [self.cut(op.result)]
        if isinstance(op, ReturnOp):
            return [H if is_head(function) else self.sliced(v) for v in op.operands], []
        return [R] * len(op.operands), [R] * len(op.results)

    def _result(self, value: SSAValue, function: FuncOp) -> Placement:
        """Where the tiles of `graph.rows` are put together: logits in main memory, all else in the slices."""
        users = [use.operation for use in value.uses]
        if all(isinstance(user, graph.KvUpdateOp) for user in users):
            return self._stored(value)
        returned = any(isinstance(user, ReturnOp) for user in users)
        return H if returned and is_head(function) else self.sliced(value)

    def _stored(self, value: SSAValue) -> Placement:
        """Where keys or values lie that go to a cache: as they are, if they are cut or of a few tokens."""
        shape = graph.static_shape(value)
        linear = isinstance(value.owner, graph.LinearOp)
        return R if len(shape) == 4 or (self._small(value) and not linear) else self.sliced(value)

    def _chosen(self, value: SSAValue) -> Placement:
        """The placement of a value as it stands, or as demanded if it is flexible or on the host."""
        placement = placement_of(value)
        if isinstance(value.owner, graph.KvUpdateOp):
            return H
        if placement is None or isinstance(placement, HostAttr):
            return self.demand.get(value, R)
        assert isinstance(placement, ReplicatedAttr | SlicedAttr)
        return placement

    def _elementwise(self, op: Operation) -> tuple[list[Placement | None], list[Placement]]:
        result = op.results[0]
        wide = [v for v in op.operands if _last(v) == _last(result) > 1]
        fixed = [p for v in wide if (p := placement_of(v)) is not None and not isinstance(p, HostAttr)]
        if any(isinstance(p, SlicedAttr) for p in fixed):
            placement = self.sliced(result)
        elif fixed or _last(result) == 1:
            placement = R
        else:
            placement = self.demand.get(result, R)
        return [placement if v in wide else R for v in op.operands], [placement]

    def _reduce(self, op: graph.ReduceOp) -> tuple[list[Placement | None], list[Placement]]:
        placement = self._chosen(op.input)
        rank = len(graph.static_shape(op.input))
        if not isinstance(placement, SlicedAttr) or rank - 1 in graph.ints(op.dims):
            return [placement], [R]
        return [placement], [placement]

    def placed(self, value: SSAValue, placement: Placement, user: Operation) -> SSAValue:
        """The value in the wanted placement, made once per placement."""
        if placement_of(value) == placement:
            return value
        key = (value, placement)
        if key not in self.copies:
            self.copies[key] = self._convert(value, placement, user)
        return self.copies[key]

    def _convert(self, value: SSAValue, placement: Placement, user: Operation) -> SSAValue:
        owner = value.owner
        if isinstance(owner, FLEXIBLE):
            converted = owner.clone()
            block = owner.parent_block()
            assert block is not None
            block.insert_ops_after([converted], owner)
            return Rewriter.replace_value_with_new_type(
                converted.result, with_placement(value.type, placement)
            )
        relayout = graph.RelayoutOp(value, with_placement(value.type, placement))
        take_attributes(relayout, user)
        relayout.result.name_hint = value.name_hint
        block = user.parent_block()
        assert block is not None
        if isinstance(owner, Operation):
            block.insert_ops_after([relayout], owner)
        else:
            first = block.first_op
            assert first is not None
            block.insert_ops_before([relayout], first)
        return relayout.result


def keeps_last(op: Operation) -> bool:
    """Whether a shape op leaves the last dimension as it is (a reshape of the leading ones, say)."""
    source, target = graph.static_shape(op.operands[0]), graph.static_shape(op.results[0])
    if not source or not target or source[-1] != target[-1]:
        return False
    if isinstance(op, graph.TransposeOp):
        return graph.ints(op.perm)[-1] == len(source) - 1
    if isinstance(op, graph.SliceOp):
        return graph.ints(op.starts)[-1] == 0
    return not (isinstance(op, graph.PadOp) and (graph.ints(op.low)[-1] or graph.ints(op.high)[-1]))
