"""How a linear layer's weight is cut into tiles that pass through the stationary memory.

Every slice owns some output columns, cut into tiles of `rows` columns. The inner dimension is cut into
`parts`: of every slice's chunk of it where the input is cut over the slices, of the whole where every slice
holds it. The products of a tile's parts are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

TRIED = 6
"""How many depths are tried whether they divide the inner dimension or not."""


class NoTile(Exception):
    """Not even the smallest tile fits; the message names the sizes."""


@dataclass(frozen=True)
class LinearShape:
    """A linear layer as one slice sees it.

    Attributes:
        columns: output columns of a slice.
        inner: elements of the inner dimension that are cut into parts.
        repeats: how many slices' chunks a part takes its elements from; 1 where the input is replicated.
        element_bytes: of a stored weight element.
        unit: elements that columns and parts must be multiples of.
    """

    columns: int
    inner: int
    repeats: int
    element_bytes: int
    unit: int


@dataclass(frozen=True)
class LinearTile:
    """`rows` output columns by `depth` elements of each chunk; `tiles` by `parts` of them make the weight."""

    rows: int
    depth: int
    tiles: int
    parts: int


def candidates(shape: LinearShape, budget: int) -> Iterator[LinearTile]:
    """Tiles of at most `budget` bytes: for some numbers of parts the tallest, and rounder ones below."""
    for depth in _depths(shape, budget):
        most = _most_rows(shape, depth, budget)
        for rows in _heights(shape, most):
            yield LinearTile(rows, depth, -(-shape.columns // rows), -(-shape.inner // depth))
        if most >= shape.columns:
            return


def _most_rows(shape: LinearShape, depth: int, budget: int) -> int:
    return budget // (depth * shape.repeats * shape.element_bytes) // shape.unit * shape.unit


def _depths(shape: LinearShape, budget: int) -> Iterator[int]:
    """Depths of which a tile fits, deepest first: some, then only those that divide the inner dimension."""
    counts = range(1, -(-shape.inner // shape.unit) + 1)
    depths = dict.fromkeys(_align(-(-shape.inner // parts), shape.unit) for parts in counts)
    fitting = [depth for depth in depths if _most_rows(shape, depth, budget)]
    for number, depth in enumerate(fitting):
        if number < TRIED or shape.inner % depth == 0:
            yield depth


def _heights(shape: LinearShape, most: int) -> list[int]:
    """The tallest tile, the one that leaves the last tile fullest, and powers of two."""
    most = min(most, _align(shape.columns, shape.unit))
    even = _align(-(-shape.columns // -(-shape.columns // most)), shape.unit)
    powers = [shape.unit << k for k in range(16) if most // 4 <= shape.unit << k <= most]
    return sorted({most, even, *powers}, reverse=True)


def choose(shape: LinearShape, budget: int, costs: Callable[[LinearTile], Sequence[float]]) -> LinearTile:
    """The tile that is best for all uses of the weight together; of equally good ones the largest.

    Args:
        shape: of the layer.
        budget: bytes of a tile.
        costs: cycles of each use with a tile, infinite where it is impossible.

    Raises:
        NoTile: when none fits.
    """
    found = {tile: tuple(costs(tile)) for tile in candidates(shape, budget)}
    possible = {tile: cycles for tile, cycles in found.items() if inf not in cycles}
    if not possible:
        least = shape.unit * min(shape.unit, shape.inner) * shape.repeats * shape.element_bytes
        raise NoTile(f"the smallest weight tile takes {least} bytes, {budget} are there for it")
    best = [min(use) for use in zip(*possible.values(), strict=True)]

    def rank(tile: LinearTile) -> tuple[float, int]:
        lost = sum(cycles / least for cycles, least in zip(possible[tile], best, strict=True))
        return lost, -tile.rows * tile.depth

    return min(possible, key=rank)


def _align(value: int, unit: int) -> int:
    return -(-value // unit) * unit
