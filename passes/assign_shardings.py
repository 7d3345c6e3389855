"""Says of every tensor how ranks share it."""

from __future__ import annotations

from dataclasses import dataclass

from npuc.ir import graph
from npuc.ir.dist import MeshAttr, ShardingAttr
from npuc.passes.shardings import cuts, sizes
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

AXIS = "tp"


@dataclass(frozen=True)
class AssignShardingsPass(ModulePass):
    """Sets `shardings`, a `#dist.sharding` for each result, of the operations whose results ranks share.

    What is cut follows from the data flow (passes/shardings.py); weights and caches are cut with their uses.
    """

    name = "assign-shardings"
    tensor_parallel: int

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        found = cuts(op)
        mesh = MeshAttr.of(**{AXIS: self.tensor_parallel})
        if not found:
            raise PassFailedException(
                f"assign-shardings: nothing of the model can be shared by {self.tensor_parallel} ranks"
            )
        cut: dict[SSAValue, set[int]] = {}
        for one in found:
            if one.blocks % self.tensor_parallel:
                raise PassFailedException(
                    f"assign-shardings: {one.blocks} blocks do not make {self.tensor_parallel} equal shares; "
                    "run pad-shards first"
                )
            for value, dim in one.dims:
                cut.setdefault(value, set()).add(dim)
            for declared in op.body.block.ops:
                if isinstance(declared, graph.CacheDeclOp) and declared.sym_name.data in one.caches:
                    declared.attributes["shardings"] = ArrayAttr([ShardingAttr.of(mesh, [[AXIS]])])
        for inner in op.walk():
            if any(result in cut for result in inner.results):
                kinds = [_sharding(mesh, result, cut.get(result, set())) for result in inner.results]
                inner.attributes["shardings"] = ArrayAttr(kinds)


def _sharding(mesh: MeshAttr, value: SSAValue, cut: set[int]) -> ShardingAttr:
    return ShardingAttr.of(mesh, [[AXIS] if dim in cut else [] for dim in range(len(sizes(value)))])


def shardings_of(op: Operation) -> list[ShardingAttr]:
    """The shardings of an operation's results (of a cache: of its heads), none where it is not shared."""
    found = op.attributes.get("shardings")
    return [s for s in found if isinstance(s, ShardingAttr)] if isinstance(found, ArrayAttr) else []
