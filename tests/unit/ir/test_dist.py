"""Collectives on lists of per-rank tensors: by hand, and the identities that hold between them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.ir import dist, dist_kernels
from npuc.ir.dist import MeshAttr, ShardingAttr
from xdsl.dialects.builtin import TensorType, f32
from xdsl.ir import Block
from xdsl.utils.exceptions import VerifyException

MESH = MeshAttr.of(dp=2, tp=3)


def test_ranks_are_numbered_row_major() -> None:
    assert MESH.ranks == 6
    assert MESH.groups(["tp"]) == [[0, 1, 2], [3, 4, 5]]
    assert MESH.groups(["dp"]) == [[0, 3], [1, 4], [2, 5]]
    assert MESH.groups(["dp", "tp"]) == [[0, 1, 2, 3, 4, 5]]
    assert MESH.groups([]) == [[0], [1], [2], [3], [4], [5]]
    assert [MESH.coordinate(4, axes) for axes in (["dp"], ["tp"], ["dp", "tp"], [])] == [1, 1, 4, 0]


def values(count: int = 6, shape: tuple[int, ...] = (2, 6)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randint(-9, 9, shape, generator=generator).float() for _ in range(count)]


def collective(name: str, axes: list[str], result: tuple[int, ...], **options: object) -> dist.CollectiveOp:
    """A collective over MESH whose operand is [2, 6]."""
    operation = {
        "all_reduce": dist.AllReduceOp,
        "all_gather": dist.AllGatherOp,
        "reduce_scatter": dist.ReduceScatterOp,
        "shard_slice": dist.ShardSliceOp,
    }[name]
    operand = Block(arg_types=[TensorType(f32, [2, 6])]).args[0]
    kind = {} if name == "all_reduce" else {"type": TensorType(f32, result)}
    op = operation(operand, over=axes, mesh=MESH, **options, **kind)  # type: ignore[arg-type]
    op.verify()
    return op


@pytest.mark.parametrize("kind", ["sum", "max", "min"])
def test_all_reduce(kind: str) -> None:
    x = values()
    found = dist_kernels.evaluate(collective("all_reduce", ["tp"], (2, 6), kind=kind), x)
    reduction = {"sum": torch.sum, "max": torch.amax, "min": torch.amin}[kind]
    for rank, y in enumerate(found):
        group = x[:3] if rank < 3 else x[3:]
        assert torch.equal(y, reduction(torch.stack(group), 0))


def test_all_gather_and_shard_slice() -> None:
    x = values()
    gathered = dist_kernels.evaluate(collective("all_gather", ["dp"], (4, 6), dim=0), x)
    assert torch.equal(gathered[1], torch.cat([x[1], x[4]], 0))
    assert torch.equal(gathered[4], gathered[1])
    cut = dist_kernels.evaluate(collective("shard_slice", ["tp"], (2, 2), dim=1), x)
    assert torch.equal(cut[5], x[5][:, 4:])


@given(
    st.sampled_from([["tp"], ["dp"], ["dp", "tp"]]),
    st.sampled_from(["sum", "max", "min"]),
    st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_scatter_then_gather_is_all_reduce(axes: list[str], kind: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = [torch.randint(-9, 9, (2, 6), generator=generator).float() for _ in range(6)]
    groups = MESH.groups(axes)
    parts = dist_kernels.reduce_scatter(x, kind, 1, groups)
    whole = dist_kernels.all_gather(parts, 1, groups)
    reduced = dist_kernels.all_reduce(x, kind, groups)
    assert all(torch.equal(a, b) for a, b in zip(whole, reduced, strict=True))
    again = dist_kernels.shard_slice(reduced, 1, groups)
    assert all(torch.equal(a, b) for a, b in zip(again, parts, strict=True))


def test_narrow_sums_are_rounded_once() -> None:
    x = [torch.tensor([256.0]).bfloat16(), *[torch.tensor([1.0]).bfloat16()] * 2]
    assert dist_kernels.combine(x, "sum").item() == 258.0  # rounding each sum to bf16 would give 256


def test_shards_are_what_slices_give() -> None:
    sharding = ShardingAttr.of(MESH, [["dp"], ["tp"]])
    x = values(1, (4, 6))[0]
    parts = dist_kernels.shard(x, sharding)
    assert {tuple(part.shape) for part in parts} == {sharding.local_shape((4, 6))} == {(2, 2)}
    columns = dist_kernels.shard_slice([x] * 6, 1, MESH.groups(["tp"]))
    rows = dist_kernels.shard_slice(columns, 0, MESH.groups(["dp"]))
    assert all(torch.equal(a, b) for a, b in zip(parts, rows, strict=True))


def test_uneven_shards_are_refused() -> None:
    with pytest.raises(VerifyException, match=r"dimension 1 of \[4, 8\] is not cut into 3 equal parts"):
        ShardingAttr.of(MESH, [[], ["tp"]]).local_shape((4, 8))
