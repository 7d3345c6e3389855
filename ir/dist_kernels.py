"""What the `dist` operations compute: from one tensor per rank to one tensor per rank.

Sums are accumulated in f32 (integers in their own type) in the order of the ranks and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from npuc.ir import dist
from torch import Tensor

COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
}


def combine(values: Sequence[Tensor], kind: str) -> Tensor:
    """The elementwise sum, maximum or minimum of the tensors of a group."""
    dtype = values[0].dtype
    wide = [value.float() if dtype.is_floating_point else value for value in values]
    return reduce(COMBINE[kind], wide).to(dtype)


def all_reduce(values: Sequence[Tensor], kind: str, groups: Sequence[Sequence[int]]) -> list[Tensor]:
    """Every rank gets what its group's tensors combine to."""
    return _by_group(groups, lambda group: [combine([values[r] for r in group], kind)] * len(group))


def all_gather(values: Sequence[Tensor], dim: int, groups: Sequence[Sequence[int]]) -> list[Tensor]:
    """Every rank gets its group's tensors, one after the other."""
    return _by_group(groups, lambda group: [torch.cat([values[r] for r in group], dim)] * len(group))


def reduce_scatter(
    values: Sequence[Tensor], kind: str, dim: int, groups: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Each rank gets its part of what its group's tensors combine to."""
    return _by_group(
        groups, lambda group: list(combine([values[r] for r in group], kind).chunk(len(group), dim))
    )


def shard_slice(values: Sequence[Tensor], dim: int, groups: Sequence[Sequence[int]]) -> list[Tensor]:
    """Each rank's part of its own tensor."""
    return _by_group(groups, lambda group: [values[r].chunk(len(group), dim)[i] for i, r in enumerate(group)])


def _by_group(
    groups: Sequence[Sequence[int]], run: Callable[[Sequence[int]], Sequence[Tensor]]
) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for group in groups:
        found.update(zip(group, run(group), strict=True))
    return [found[rank] for rank in sorted(found)]


def evaluate(op: dist.CollectiveOp, values: Sequence[Tensor]) -> list[Tensor]:
    """The results of a collective, one per rank of its mesh."""
    groups = op.mesh.groups(op.axes)
    match op:
        case dist.AllReduceOp():
            return all_reduce(values, op.kind.data, groups)
        case dist.AllGatherOp():
            return all_gather(values, op.dim.value.data, groups)
        case dist.ReduceScatterOp():
            return reduce_scatter(values, op.kind.data, op.dim.value.data, groups)
        case dist.ShardSliceOp():
            return shard_slice(values, op.dim.value.data, groups)
        case _:
            raise ValueError(f"{op.name} is no collective")


def shard(value: Tensor, sharding: dist.ShardingAttr) -> list[Tensor]:
    """What each rank holds of a tensor."""
    mesh, parts = sharding.mesh, list[Tensor]()
    for rank in range(mesh.ranks):
        part = value
        for dim, axes in enumerate(sharding.axes):
            if axes:
                part = part.chunk(mesh.size_over(axes), dim)[mesh.coordinate(rank, axes)]
        parts.append(part)
    return parts
