"""Packing recipes: hand-made layouts, round trips, and packing a few groups at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from npuc.ir.errors import UserError
from npuc.runtime.packing import pack, packed_shape, unpack
from npuc.runtime.packing_groups import pack_groups

BLOCKED = [
    {"op": "pad", "shape": [8, 6]},
    {"op": "reshape", "shape": [4, 2, 3, 2]},
    {"op": "permute", "perm": [0, 2, 1, 3]},
]


def test_blocked_layout_by_hand() -> None:
    w = torch.arange(7 * 5).reshape(7, 5).float()
    packed = pack(w, BLOCKED)
    assert packed.shape == packed_shape(w.shape, BLOCKED) == (4, 3, 2, 2)
    assert packed[1, 2].tolist() == [[w[2, 4], 0], [w[3, 4], 0]]
    assert packed[3, 0].tolist() == [[w[6, 0], w[6, 1]], [0, 0]]


def test_transpose_and_cast() -> None:
    w = torch.tensor([[1.0, 2.0], [3.0, 1.00390625]])
    packed = pack(w, [{"op": "transpose"}, {"op": "cast", "type": "bf16"}])
    assert packed.dtype == torch.bfloat16
    assert packed.tolist() == [[1.0, 3.0], [2.0, 1.0]]  # ties go to even


@st.composite
def recipes(draw: st.DrawFn) -> tuple[list[int], list[dict[str, Any]]]:
    """A shape and a recipe that applies to it: pad, split every dimension, permute, maybe transpose."""
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    split = draw(st.lists(st.integers(1, 3), min_size=len(shape), max_size=len(shape)))
    padded = [math.ceil(n / b) * b + b * draw(st.integers(0, 1)) for n, b in zip(shape, split, strict=True)]
    parts = [part for n, b in zip(padded, split, strict=True) for part in (n // b, b)]
    perm = draw(st.permutations(range(len(parts))))
    steps: list[dict[str, Any]] = [
        {"op": "pad", "shape": padded},
        {"op": "reshape", "shape": parts},
        {"op": "permute", "perm": perm},
    ]
    if draw(st.booleans()):
        steps.append({"op": "transpose"})
    return shape, steps


@given(recipes())
def test_unpack_inverts_pack(case: tuple[list[int], list[dict[str, Any]]]) -> None:
    shape, recipe = case
    tensor = torch.arange(1, math.prod(shape) + 1, dtype=torch.float32).reshape(shape)
    packed = pack(tensor, recipe)
    assert tuple(packed.shape) == packed_shape(shape, recipe)
    assert packed.is_contiguous()
    assert packed.sum() == tensor.sum()
    assert torch.equal(unpack(packed, recipe, shape, tensor.dtype), tensor)


@given(recipes(), st.integers(1, 40))
def test_groups_concatenate_to_the_whole(case: tuple[list[int], list[dict[str, Any]]], limit: int) -> None:
    shape, recipe = case
    tensor = torch.arange(1, math.prod(shape) + 1, dtype=torch.float32).reshape(shape)
    pieces = list(pack_groups(lambda a, b: tensor[a:b], shape, recipe, limit))
    assert torch.equal(torch.cat(pieces), pack(tensor, recipe))


def test_groups_read_only_their_rows() -> None:
    """Packing by row blocks asks for two rows at a time, not for the tensor."""
    w = torch.arange(35.0).reshape(7, 5)
    reads: list[tuple[int, int]] = []

    def read_rows(start: int, stop: int) -> torch.Tensor:
        reads.append((start, stop))
        return w[start:stop]

    pieces = list(pack_groups(read_rows, w.shape, BLOCKED, max_elements=1))
    assert reads == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert torch.equal(torch.cat(pieces), pack(w, BLOCKED))


def test_groups_of_rows_that_lie_apart() -> None:
    """As linear layers are packed: every slice has rows of its own, a tile takes a few of each slice."""
    slices, tiles, rows, width = 4, 3, 2, 5
    w = torch.arange(22.0 * width).reshape(22, width)
    recipe: list[dict[str, Any]] = [
        {"op": "pad", "shape": [slices * tiles * rows, 6]},
        {"op": "reshape", "shape": [slices, tiles, rows, 2, 3]},
        {"op": "permute", "perm": [1, 3, 0, 2, 4]},
        {"op": "reshape", "shape": [tiles, 2, slices, rows * 3]},
    ]
    reads: list[tuple[int, int]] = []

    def read_rows(start: int, stop: int) -> torch.Tensor:
        reads.append((start, stop))
        return w[start:stop]

    pieces = list(pack_groups(read_rows, w.shape, recipe, max_elements=1))
    assert len(pieces) == tiles
    assert reads[:4] == [(0, 2), (6, 8), (12, 14), (18, 20)]
    assert sum(stop - start for start, stop in reads) == 22
    assert torch.equal(torch.cat(pieces), pack(w, recipe))


@pytest.mark.parametrize(
    "step",
    [
        {"op": "pad", "shape": [3, 3]},
        {"op": "pad", "shape": [4]},
        {"op": "reshape", "shape": [5]},
        {"op": "reshape", "shape": "16"},
        {"op": "permute", "perm": [0, 0]},
        {"op": "cast", "type": "f7"},
        {"op": "rotate"},
        {},
    ],
)
def test_bad_steps_are_named(step: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        pack(torch.zeros(4, 4), [step])
    assert caught.value.kind in ("bad-recipe", "unknown-type")
