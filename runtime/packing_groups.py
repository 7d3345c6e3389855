"""Packing a tensor a few groups at a time: a group is one index of the packed tensor's first dimension.

Packing recipes cut the rows of a weight (its first dimension) into blocks and bring one of the block indices
to the front. So a group needs some rows only, and these are read, laid out and given away before the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from npuc.runtime.packing import Recipe, Shape, Step, pack, packed_shape, permutation, step_shape
from torch import Tensor

ReadRows = Callable[[int, int], Tensor]
"""Reads rows ``start`` to ``stop`` (exclusive) of the logical tensor."""

MAX_ELEMENTS = 1 << 22
_GROUPS, _ROWS, _PADDING = -1, -2, -1


@dataclass
class _Grouping:
    """How rows become groups, found by following a recipe.

    Attributes:
        rows: numbers of the logical rows in the arrangement of the row dimensions; −1 for padding.
        tail: the other dimensions.
        axis: the row dimension that came to the front; None as long as none did.
        steps: for the rows of some groups, in order; in shapes, −1 and −2 stand for the number of groups and
            of rows.
    """

    rows: Tensor
    tail: Shape
    axis: int | None = None
    steps: list[Step] = field(default_factory=list[Step])

    @property
    def count(self) -> int:
        """The number of groups."""
        return self.rows.shape[self.axis or 0]

    def follow(self, step: Step, before: Shape) -> bool:
        """Takes one step of the recipe; False if groups do not come of it."""
        after = step_shape(before, step)
        if step["op"] == "cast":
            self.steps.append(step)
            return True
        moves = step["op"] in ("permute", "transpose")
        if self.axis is not None:
            kept = permutation(step, len(before))[0] == 0 if moves else after[:1] == (self.count,)
            self.steps.append(step if moves else {**step, "shape": [_GROUPS, *after[1:]]})
            return kept
        return self._bring_forward(permutation(step, len(before))) if moves else self._arrange(step, after)

    def _arrange(self, step: Step, after: Shape) -> bool:
        """A pad or reshape, which must not mix rows with what is in them."""
        if step["op"] == "pad":
            split = self.rows.ndim
            pads = [p for n, m in zip(self.rows.shape, after, strict=False) for p in (m - n, 0)]
            self.rows = torch.nn.functional.pad(self.rows, pads[::-1], value=_PADDING)
        else:
            split = next(
                (k for k in range(1, len(after) + 1) if math.prod(after[:k]) == self.rows.numel()), 0
            )
            if not split or math.prod(after[split:]) != math.prod(self.tail):
                return False
            self.rows = self.rows.reshape(after[:split])
        self.tail = after[split:]
        self.steps.append({**step, "shape": [_ROWS, *self.tail]})
        return True

    def _bring_forward(self, perm: Shape) -> bool:
        if perm[0] >= self.rows.ndim:
            return False
        self.axis = perm[0]
        shape = [_GROUPS if d == self.axis else n for d, n in enumerate(self.rows.shape)]
        self.steps.append({"op": "reshape", "shape": [*shape, *self.tail]})
        self.steps.append({"op": "permute", "perm": list(perm)})
        return True

    def finish(self) -> None:
        """The recipe is at its end."""
        if self.axis is None:
            self.axis = 0
            self.steps.append({"op": "reshape", "shape": [_GROUPS, *self.rows.shape[1:], *self.tail]})

    def rows_of(self, start: int, count: int) -> list[int]:
        """The rows of some groups, −1 for padding, in the order that the steps expect."""
        return self.rows.narrow(self.axis or 0, start, count).reshape(-1).tolist()

    def recipe(self, count: int) -> list[Step]:
        """The steps for ``count`` groups."""
        sizes = {_GROUPS: count, _ROWS: count * self.rows.numel() // max(1, self.count)}
        return [
            {**step, "shape": [sizes.get(n, n) for n in step["shape"]]} if "shape" in step else step
            for step in self.steps
        ]


def _grouping(shape: Sequence[int], recipe: Recipe) -> _Grouping | None:
    if not shape or not math.prod(shape):
        return None
    found, current = _Grouping(torch.arange(shape[0]), tuple(shape[1:])), tuple(shape)
    for step in recipe:
        if not found.follow(step, current):
            return None
        current = step_shape(current, step)
    found.finish()
    return found


def pack_groups(
    read_rows: ReadRows, shape: Sequence[int], recipe: Recipe, max_elements: int = MAX_ELEMENTS
) -> Iterator[Tensor]:
    """Pack a tensor of ``shape`` a few groups at a time.

    Args:
        read_rows: reads rows of the logical tensor.
        shape: the logical tensor's shape.
        recipe: the packing recipe.
        max_elements: packed elements to hold at once, at least one group.

    Yields:
        Pieces whose concatenation along the first dimension is ``pack(tensor, recipe)``. A recipe that mixes
        rows with what is in them gives one piece.
    """
    packed = packed_shape(shape, recipe)
    grouping = _grouping(shape, recipe)
    if grouping is None:
        yield pack(read_rows(0, shape[0] if shape else 1), recipe)
        return
    per_piece = max(1, max_elements // max(1, math.prod(packed[1:])))
    for start in range(0, grouping.count, per_piece):
        count = min(per_piece, grouping.count - start)
        values = _gathered(read_rows, grouping.rows_of(start, count), tuple(shape[1:]))
        yield pack(values, grouping.recipe(count))


def _gathered(read_rows: ReadRows, rows: Sequence[int], tail: Shape) -> Tensor:
    """The rows in this order, zeros for padding; neighbours are read together."""
    runs = list(_runs(rows))
    if len(runs) == 1 and runs[0][1] != _PADDING:
        return read_rows(runs[0][1], runs[0][1] + runs[0][2])
    values: Tensor | None = None
    for position, row, count in runs:
        if row == _PADDING:
            continue
        part = read_rows(row, row + count)
        if values is None:
            values = part.new_zeros((len(rows), *tail))
        values[position : position + count] = part
    return read_rows(0, 0).new_zeros((len(rows), *tail)) if values is None else values


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(position, first row, count) of neighbours; padding apart."""
    start = 0
    for i in range(1, len(rows) + 1):
        padding = rows[start] == _PADDING
        if i == len(rows) or rows[i] != (_PADDING if padding else rows[start] + i - start):
            yield start, rows[start], i - start
            start = i
