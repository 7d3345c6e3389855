"""Orders of a contraction's loops: all of them compute the same sums."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from npuc.passes.algorithms.contractions import Axis, orders
from torch import Tensor

EXTENTS = st.tuples(st.integers(1, 3), st.sampled_from((1, 4)), st.integers(1, 2), st.sampled_from((4, 24)))


def sums(axes: tuple[Axis, ...], stream: Tensor, weight: Tensor, count: int) -> Tensor:
    """The results of a nest, walked step by step."""
    out = torch.zeros(count)
    for steps in torch.cartesian_prod(*(torch.arange(axis.size) for axis in axes)).reshape(-1, len(axes)):
        a, b, c = (
            sum(int(i) * axis.strides[port] for i, axis in zip(steps, axes, strict=True)) for port in range(3)
        )
        out[c] += stream[a] * weight[b]
    return out


@given(EXTENTS)
def test_all_orders_give_the_same_sums(extents: tuple[int, int, int, int]) -> None:
    rows, columns, blocks, inner = extents
    depth = blocks * inner
    axes = (
        Axis(rows, (depth, 0, columns)),
        Axis(columns, (0, depth, 1)),
        Axis(blocks, (inner, inner, 0), reduced=True),
        Axis(inner, (1, 1, 0), reduced=True),
    )
    stream, weight = torch.arange(rows * depth) % 7 - 3.0, torch.arange(columns * depth) % 5 - 2.0
    expected = stream.view(rows, depth) @ weight.view(columns, depth).T
    found = list(orders(axes))
    assert len(found) >= 3
    for order in found:
        assert torch.equal(sums(order, stream, weight, rows * columns).view(rows, columns), expected)


def test_columns_may_stand_inside_a_part_of_the_sum() -> None:
    """One fetch of eight elements then serves all columns."""
    axes = (Axis(5, (32, 0, 2)), Axis(2, (0, 32, 1)), Axis(32, (1, 1, 0), reduced=True))
    assert (5, 4, 2, 8) in {tuple(axis.size for axis in order) for order in orders(axes)}


RING = (Axis(8, (4, 0, 2)), Axis(2, (0, 64, 1)), Axis(16, (0, 4, 0), reduced=True, ring=True))
INNER = Axis(4, (1, 1, 0), reduced=True)


def test_the_ring_stays_whole() -> None:
    for order in orders((*RING, INNER)):
        assert [axis.size for axis in order if axis.ring] == [16]


def test_rows_that_lie_behind_each_other_may_stand_inside_the_ring() -> None:
    found = {tuple(axis.size for axis in order) for order in orders((*RING, INNER))}
    assert {(2, 16, 4, 2, 4), (2, 16, 2, 4, 4), (1, 16, 8, 2, 4)} <= found
    apart = (replace(RING[0], strides=(8, 0, 2)), *RING[1:], INNER)
    assert {order[0].size for order in orders(apart)} == {8, 2}, "rows outside, or the columns"
