"""From one program to the program that all ranks run on their shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.ir import dist, graph
from npuc.ir.dist import MeshAttr, ShardingAttr
from npuc.ir.errors import UserError
from npuc.ir.graph_types import int_array
from npuc.passes.assign_shardings import AXIS, shardings_of
from npuc.passes.pad_shards import DEALT_ATTRIBUTE
from npuc.passes.resizing import resize, update_signatures
from npuc.passes.rewriting import take_attributes
from npuc.passes.shardings import sizes
from npuc.passes.weight_variants import WeightVariants, Wrap, step
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, TensorType
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Attribute, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

MESH_ATTRIBUTE = "npuc.mesh"


@dataclass(frozen=True)
class PartitionPass(ModulePass):
    """Gives shared tensors the shapes of one rank's share and inserts the collectives that this needs.

    The partial sums of a linear layer over a shared dimension are added by `dist.all_reduce`, its bias after
    them; shared logits are put together by `dist.all_gather`. Weights become each rank's part of themselves.
    """

    name = "partition"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        partition = _Partition(op)
        for inner in op.walk():
            partition.note(inner)
        if partition.mesh is not None:
            partition.rewrite(partition.mesh)
            op.attributes[MESH_ATTRIBUTE] = partition.mesh


def ranks_of(module: ModuleOp) -> int:
    """How many ranks run a module's programs."""
    mesh = module.attributes.get(MESH_ATTRIBUTE)
    return mesh.ranks if isinstance(mesh, MeshAttr) else 1


def check_ranks(machine: Machine, ranks: int) -> None:
    """Checks that so many cores of a machine can run a program together: of a chip, or of whole chips.

    Raises:
        UserError: naming what it lacks.
    """
    if ranks == 1:
        return
    cores, chips = machine.cores_per_chip, machine.chips
    whole = [cores * n for n in range(2, chips + 1)]
    reason, remedy = "", f"{machine.name} runs programs on one core only"
    if not 1 <= ranks <= cores and ranks not in whole:
        reason = f"{ranks} ranks are asked for, a chip of {machine.name} has {cores} cores"
        *first, last = [f"1 to {cores}", *map(str, whole)]
        remedy = f"use {', '.join(first)} or {last}" if first else f"use {last}"
    elif machine.main.level != "chip":
        reason = f"the cores of {machine.name} share no memory"
    elif all("meet" not in c.fields for c in machine.commands.values() if c.kind == "copy"):
        reason = f"no copy of {machine.name} waits for other cores (field meet)"
    if reason:
        raise UserError("parallel", reason, where="--tensor-parallel", remedy=remedy)


@dataclass
class _Partition:
    module: ModuleOp
    mesh: MeshAttr | None = None
    shardings: dict[SSAValue, ShardingAttr] = field(default_factory=dict[SSAValue, ShardingAttr])
    summed: list[graph.LinearOp] = field(default_factory=list[graph.LinearOp])
    gathered: list[tuple[ReturnOp, int]] = field(default_factory=list[tuple[ReturnOp, int]])
    params: list[graph.ParamOp] = field(default_factory=list[graph.ParamOp])
    caches: list[graph.CacheDeclOp] = field(default_factory=list[graph.CacheDeclOp])

    def note(self, op: Operation) -> None:
        """Notes the shares of an operation's results, and what it needs."""
        for result, sharding in zip(op.results, shardings_of(op), strict=False):
            self.shardings[result] = sharding
            self.mesh = sharding.mesh
        match op:
            case graph.RowsOp():
                for argument, value in zip(op.body.block.args, op.inputs, strict=True):
                    if value in self.shardings:
                        self.shardings[argument] = self.shardings[value]
            case graph.LinearOp() if self._is_cut(op.input):
                self.summed.append(op)
            case graph.ParamOp() if op.result in self.shardings:
                self.params.append(op)
            case graph.CacheDeclOp() if shardings_of(op):
                self.caches.append(op)
            case ReturnOp():
                self.gathered += [(op, i) for i, value in enumerate(op.operands) if self._is_cut(value)]
            case _:
                pass

    def _is_cut(self, value: SSAValue) -> bool:
        """Whether a value's last dimension is shared."""
        return value in self.shardings and bool(self.shardings[value].axes[-1])

    def rewrite(self, mesh: MeshAttr) -> None:
        """Changes everything noted."""
        for op in self.module.walk():
            op.attributes.pop("shardings", None)
        shapes = {v: _numbers(s.local_shape(sizes(v))) for v, s in self.shardings.items()}
        variants = WeightVariants(self.module)
        for param in self.params:
            axes = self.shardings[param.result].axes
            wraps = {f"shard {d}": _shard(d, mesh.ranks) for d, cut in enumerate(axes) if cut}
            variants.change(param, wraps, shapes.pop(param.result))
        variants.finish()
        resize(shapes)
        for cache in self.caches:
            heads = cache.heads.value.data
            cache.attributes.setdefault(DEALT_ATTRIBUTE, int_array(range(heads)))
            cache.attributes["heads"] = IntegerAttr(heads // mesh.ranks, 64)
        for op, number in self.gathered:
            _gather(op, number, mesh)
        for op in self.summed:
            _add_up(op, mesh)
        update_signatures(self.module)


def _numbers(shape: Sequence[object]) -> list[int]:
    return [n for n in shape if isinstance(n, int)]


def _shard(dim: int, parts: int) -> Wrap:
    return lambda source: step("shard", source, dim=dim, parts=parts)


def _gather(op: ReturnOp | graph.YieldOp, number: int, mesh: MeshAttr) -> None:
    """Returns the whole of a shared value."""
    value = op.operands[number]
    if isinstance(value, OpResult) and isinstance(value.op, graph.RowsOp):
        _gather(value.op.yielded, value.index, mesh)
        Rewriter.replace_value_with_new_type(value, _whole(value, mesh))
        return
    gathered = dist.AllGatherOp(value, len(sizes(value)) - 1, [AXIS], mesh, _whole(value, mesh))
    _follow(gathered, value)
    op.operands[number] = gathered.result


def _whole(value: SSAValue, mesh: MeshAttr) -> TensorType[Attribute]:
    """The type of what all ranks have of a value, along its last dimension."""
    *lead, part = sizes(value)
    return TensorType(graph.element_of(value), (*lead, part * mesh.ranks))


def _add_up(op: graph.LinearOp, mesh: MeshAttr) -> None:
    """Adds the ranks' partial sums, then the bias."""
    total: Operation = dist.AllReduceOp(op.result, "sum", [AXIS], mesh)
    first = total
    _follow(total, op.result)
    if op.bias is not None:
        total = graph.binary("add", first.results[0], op.bias)
        _follow(total, first.results[0])
    op.result.replace_uses_with_if(total.results[0], lambda use: use.operation is not first)
    if op.bias is not None:
        bare = graph.LinearOp(op.input, op.weight, None, op.scale, graph.element_of(op.result))
        _follow(bare, op.result)
        op.result.replace_all_uses_with(bare.result)
        op.detach()
        op.erase()


def _follow(new: Operation, value: SSAValue) -> None:
    """Puts an operation behind the one that gives a value, with its name and module."""
    owner = value.owner
    assert isinstance(owner, Operation)
    take_attributes(new, owner)
    block = owner.parent_block()
    assert block is not None
    block.insert_ops_after([new], owner)
