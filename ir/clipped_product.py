"""Products with a stationary operand of which only the elements before a limit count, the others being 0.

Only what counts is multiplied. The rest of the result is what a product with zeros is: 0, or NaN where the
stream is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from npuc.ir.contraction import Contraction
from torch import Tensor

Product = Callable[[Tensor, int], Tensor]
"""(stream_form, limit) → f32 tensor of the contraction's shape, which the next call overwrites."""


@dataclass(frozen=True)
class Prefix:
    """What counts is the first part of the columns, or else of the inner axis.

    Attributes:
        summed: whether it is the inner axis.
        unit: what an element's position grows by along the axis.
        width: neighbours on the axis that have one position.
        steps: extent of the axis in such neighbours.
    """

    summed: bool
    unit: int
    width: int
    steps: int

    def length(self, limit: int) -> int:
        """How many elements of the axis have a position below a limit."""
        return min(max(-(-limit // self.unit), 0), self.steps) * self.width


def prefix_of(plan: Contraction, shape: Sequence[int], coefficients: Mapping[int, int]) -> Prefix | None:
    """The prefix of the elements whose position is below a limit, if they are one.

    Args:
        plan: the contraction.
        shape: of the stationary operand, in the plan's order.
        coefficients: what a step along a place of that order adds to the position; those that add nothing
            are left out.
    """
    for places in (plan.column_places, plan.inner_places):
        outer, inside = places[: len(coefficients)], places[len(coefficients) :]
        if not coefficients or set(outer) != set(coefficients):
            continue
        unit = coefficients[outer[-1]]
        expected = unit
        for place in reversed(outer):
            if coefficients[place] != expected:
                return None
            expected *= shape[place]
        width, steps = prod(shape[i] for i in inside), prod(shape[i] for i in outer)
        return Prefix(places is plan.inner_places, unit, width, steps)
    return None


def clipped_product(plan: Contraction, prefix: Prefix, w: Tensor) -> Product:
    """The product with w, of any type, in the stationary form."""
    w = w.view(plan.batch, plan.inner, plan.columns)
    form = (plan.batch, plan.rows, plan.inner)
    multiply = _summed_prefix(prefix, w) if prefix.summed else _column_prefix(prefix, w, plan.rows)

    def run(x: Tensor, limit: int) -> Tensor:
        v = multiply(x.view(form), limit).view(plan.shape)
        return v.mul_(plan.factor) if plan.factor != 1 else v

    return run


def _summed_prefix(prefix: Prefix, w: Tensor) -> Product:
    inner = w.shape[1]

    def run(x: Tensor, limit: int) -> Tensor:
        n = prefix.length(limit)
        if n == inner:
            return torch.bmm(x, w.float())
        rest = x.narrow(2, n, inner - n).mul(0.0).sum(2, keepdim=True)
        return torch.baddbmm(rest, x.narrow(2, 0, n), w.narrow(1, 0, n).float())

    return run


def _column_prefix(prefix: Prefix, w: Tensor, rows: int) -> Product:
    batch, _, columns = w.shape
    out = torch.empty(batch, rows, columns)

    def run(x: Tensor, limit: int) -> Tensor:
        n = prefix.length(limit)
        if n:
            out.narrow(2, 0, n).copy_(torch.bmm(x, w.narrow(2, 0, n).float()))
        if n < columns:
            out.narrow(2, n, columns - n).copy_(x.mul(0.0).sum(2, keepdim=True))
        return out

    return run
