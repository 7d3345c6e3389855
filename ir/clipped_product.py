"""Products with a stationary operand of which only the elements before a limit count, the others being 0.

Only what counts is multiplied. The rest of the result is what a product with zeros is: 0, or NaN where the
stream is not finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from npuc.ir.contraction import Contraction
from npuc.ir.pass_binding import Binding, Call, Limits
from torch import Tensor


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


def bind_clipped(plan: Contraction, prefix: Prefix, b: Binding, x: Tensor, w: Tensor) -> Tensor:
    """The product of x [b, m, k] and w [b, k, n] of any type up to the mask's limit, in the plan's shape."""
    out = b.new(plan.shape)
    product = out.view(plan.batch, plan.rows, plan.columns)
    b.calls.append((_summed_prefix if prefix.summed else _column_prefix)(prefix, b.limits, x, w, product))
    return plan.times(b, out)


def _summed_prefix(prefix: Prefix, limits: Limits, x: Tensor, w: Tensor, out: Tensor) -> Call:
    inner = w.shape[1]

    def call() -> None:
        n = prefix.length(limits.mask)
        if n == inner:
            torch.bmm(x, w.float(), out=out)
            return
        rest = x.narrow(2, n, inner - n).mul(0.0).sum(2, keepdim=True)
        torch.baddbmm(rest, x.narrow(2, 0, n), w.narrow(1, 0, n).float(), out=out)

    return call


def _column_prefix(prefix: Prefix, limits: Limits, x: Tensor, w: Tensor, out: Tensor) -> Call:
    columns = w.shape[2]

    def call() -> None:
        n = prefix.length(limits.mask)
        if n:
            out.narrow(2, 0, n).copy_(torch.bmm(x, w.narrow(2, 0, n).float()))
        if n < columns:
            out.narrow(2, n, columns - n).copy_(x.mul(0.0).sum(2, keepdim=True))

    return call
