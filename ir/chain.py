"""The steps of a pass's chain: name → torch function on f32 (docs/design.md, section 6).

Every function takes ``out``: the tensor to write, or None for a fresh one. Comparisons and logic give 1.0 or
0.0; NaN counts as nonzero, and max and min propagate it. exp has no subnormal results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Unary = Callable[[Tensor, Tensor | None], Tensor]
Binary = Callable[[Tensor, Tensor, Tensor | None], Tensor]
SMALLEST = 1.65e-38  # just above e^-87
MANY = 256  # elements above which torch's slow path costs more than clamping
Reduction = Callable[[Tensor, tuple[int, ...]], Tensor]


def _unary(function: Any) -> Unary:
    return lambda v, out: function(v, out=out)


def _binary(function: Any) -> Binary:
    return lambda v, source, out: function(v, source, out=out)


def _reversed(function: Any) -> Binary:
    return lambda v, source, out: function(source, v, out=out)


def _truth(function: Any) -> Binary:
    """A predicate with a float result: torch writes 1.0 and 0.0 where ``out`` is float."""

    def run(v: Tensor, source: Tensor, out: Tensor | None) -> Tensor:
        return function(v, source).to(torch.float32) if out is None else function(v, source, out=out)

    return run


def _exp(v: Tensor, out: Tensor | None) -> Tensor:
    """e to the v; 0 below e^-87, as on machines without subnormals, for which torch takes a slow path."""
    kept = out if out is v else None  # a result for elsewhere is computed in a fresh, contiguous tensor
    y = torch.clamp_min(v, -87.0, out=kept).exp_() if v.numel() > MANY else torch.exp(v, out=kept)
    torch.threshold_(y, SMALLEST, 0.0)
    return y if out is None or out is v else out.copy_(y)


UNARY: dict[str, Unary] = {
    "exp": _exp,
    "sqrt": _unary(torch.sqrt),
    "tanh": _unary(torch.tanh),
    "sigmoid": _unary(torch.sigmoid),
    "erf": _unary(torch.erf),
    "log": _unary(torch.log),
    "sin": _unary(torch.sin),
    "cos": _unary(torch.cos),
    "abs": _unary(torch.abs),
    "floor": _unary(torch.floor),
}
"""v → result."""

BINARY: dict[str, Binary] = {
    "add": _binary(torch.add),
    "sub": _binary(torch.sub),
    "rsub": _reversed(torch.sub),
    "mul": _binary(torch.mul),
    "div": _binary(torch.div),
    "rdiv": _reversed(torch.div),
    "max": _binary(torch.maximum),
    "min": _binary(torch.minimum),
    "eq": _truth(torch.eq),
    "ne": _truth(torch.ne),
    "lt": _truth(torch.lt),
    "le": _truth(torch.le),
    "gt": _truth(torch.gt),
    "ge": _truth(torch.ge),
    "and": _truth(torch.logical_and),
    "or": _truth(torch.logical_or),
}
"""v, source → result; ``rsub`` and ``rdiv`` are source − v and source / v."""

SELECT = "select"
"""v where source ≠ 0, else the step's value."""

REDUCTIONS: dict[str, tuple[Reduction, float]] = {
    "add": (lambda v, dims: v.sum(dims, keepdim=True), 0.0),
    "max": (lambda v, dims: v.amax(dims, keepdim=True), float("-inf")),
    "min": (lambda v, dims: v.amin(dims, keepdim=True), float("inf")),
}
"""Suffix of the ``reduce_`` and ``ring_`` steps → the function over the given dimensions and its identity."""

CHAIN_OPS: tuple[str, ...] = (
    *UNARY,
    *BINARY,
    SELECT,
    *(f"{scope}_{kind}" for scope in ("reduce", "ring") for kind in REDUCTIONS),
)
"""Every step name."""

SOURCES: tuple[str, ...] = ("none", "imm", "stash", "operand", "vrf")
