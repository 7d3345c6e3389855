"""Tiles of a linear layer's weight: they cover it, fit their budget, and the cheapest one wins."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from npuc.backends.registry import load_target
from npuc.passes.algorithms.linear_tiles import LinearShape, LinearTile, NoTile, candidates, choose
from npuc.passes.tile_choice import choose_tile

SHAPES = st.builds(
    LinearShape,
    columns=st.integers(1, 80).map(lambda n: 4 * n),
    inner=st.integers(1, 60).map(lambda n: 4 * n),
    repeats=st.sampled_from((1, 4, 64)),
    element_bytes=st.sampled_from((2, 4)),
    unit=st.just(4),
)


@given(SHAPES, st.integers(1 << 6, 1 << 15))
def test_tiles_cover_the_weight_within_the_budget(shape: LinearShape, budget: int) -> None:
    for tile in candidates(shape, budget):
        assert tile.rows * tile.depth * shape.repeats * shape.element_bytes <= budget
        assert tile.rows % shape.unit == tile.depth % shape.unit == 0
        assert tile.rows * (tile.tiles - 1) < shape.columns <= tile.rows * tile.tiles
        assert tile.depth * (tile.parts - 1) < shape.inner <= tile.depth * tile.parts


def test_the_smallest_tile_is_found_where_it_alone_fits() -> None:
    shape = LinearShape(columns=8, inner=12, repeats=2, element_bytes=2, unit=4)
    assert list(candidates(shape, 64)) == [LinearTile(rows=4, depth=4, tiles=2, parts=3)]
    with pytest.raises(NoTile, match="the smallest weight tile takes 64 bytes, 63 are there for it"):
        choose(shape, 63, lambda _: [1.0])


def test_all_uses_count_and_impossible_tiles_do_not() -> None:
    """A use that a tile makes twice as long outweighs one that it makes a little shorter."""
    shape = LinearShape(columns=16, inner=8, repeats=1, element_bytes=2, unit=4)

    def costs(tile: LinearTile) -> list[float]:
        return [{4: 100.0, 8: 110.0, 16: 95.0}[tile.rows], {4: 200.0, 8: 100.0, 16: inf}[tile.rows]]

    assert choose(shape, 1 << 10, costs).rows == 8


def test_a_column_alone_may_exceed_the_budget() -> None:
    """Of 14,336 inner elements no column fits half the stationary memory of a slice: it is cut into parts."""
    machine = load_target("rngd").machine
    shape = LinearShape(columns=64, inner=224, repeats=64, element_bytes=2, unit=4)
    tile = choose_tile(machine, shape, "bf16", (1, 512))
    assert tile.parts > 1
    assert tile.rows * tile.depth * 64 * 2 <= machine.memories["trf"].size // 2


def test_many_rows_fill_the_lanes_of_the_machine() -> None:
    """With few rows any tile of that size will do; with many each fetch must serve two groups of lanes."""
    machine = load_target("rngd").machine
    shape = LinearShape(columns=32, inner=32, repeats=64, element_bytes=2, unit=4)
    assert choose_tile(machine, shape, "bf16", (1,)).parts == 1
    assert choose_tile(machine, shape, "bf16", (1, 512)) == LinearTile(rows=16, depth=16, tiles=2, parts=2)
