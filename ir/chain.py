"""The steps of a pass's chain: name → torch function on f32 (docs/design.md, section 6).

Comparisons and logic give 1.0 or 0.0; NaN counts as nonzero, and max and min propagate it. exp has no
subnormal results.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], object]
Unary = Callable[[Tensor, Tensor], Call]
Binary = Callable[[Tensor, Tensor, Tensor], Call]
Reduction = Callable[[Tensor, tuple[int, ...], Tensor], Call]
SMALLEST = 1.65e-38  # just above e^-87
MANY = 256  # elements above which torch's slow path costs more than clamping


def _unary(function: Any) -> Unary:
    return lambda v, out: partial(function, v, out=out)


def _binary(function: Any) -> Binary:
    """Of a predicate, too: torch writes 1.0 and 0.0 where ``out`` is float."""
    return lambda v, source, out: partial(function, v, source, out=out)


def _reversed(function: Any) -> Binary:
    return lambda v, source, out: partial(function, source, v, out=out)


def _reduction(function: Any) -> Reduction:
    return lambda v, dims, out: partial(function, v, dims, True, out=out)


def _exp(v: Tensor, out: Tensor) -> None:
    """e to the v; 0 below e^-87, as on machines without subnormals, for which torch takes a slow path."""
    kept = out if out.is_contiguous() else None  # a result for elsewhere is computed in a fresh tensor
    y = torch.clamp_min(v, -87.0, out=kept).exp_() if v.numel() > MANY else torch.exp(v, out=kept)
    torch.threshold_(y, SMALLEST, 0.0)
    if y is not out:
        out.copy_(y)


UNARY: dict[str, Unary] = {
    "exp": lambda v, out: partial(_exp, v, out),
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
"""(v, where its result goes) → the call that writes it."""

BINARY: dict[str, Binary] = {
    "add": _binary(torch.add),
    "sub": _binary(torch.sub),
    "rsub": _reversed(torch.sub),
    "mul": _binary(torch.mul),
    "div": _binary(torch.div),
    "rdiv": _reversed(torch.div),
    "max": _binary(torch.maximum),
    "min": _binary(torch.minimum),
    "eq": _binary(torch.eq),
    "ne": _binary(torch.ne),
    "lt": _binary(torch.lt),
    "le": _binary(torch.le),
    "gt": _binary(torch.gt),
    "ge": _binary(torch.ge),
    "and": _binary(torch.logical_and),
    "or": _binary(torch.logical_or),
}
"""(v, source, where the result goes) → the call; ``rsub`` and ``rdiv`` are source − v and source / v."""

SELECT = "select"
"""v where source ≠ 0, else the step's value."""

REDUCTIONS: dict[str, tuple[Reduction, float]] = {
    "add": (_reduction(torch.sum), 0.0),
    "max": (_reduction(torch.amax), float("-inf")),
    "min": (_reduction(torch.amin), float("inf")),
}
"""Suffix of the ``reduce_`` and ``ring_`` steps → (v, dimensions, where the result goes) → the call, and its
identity."""

CHAIN_OPS: tuple[str, ...] = (
    *UNARY,
    *BINARY,
    SELECT,
    *(f"{scope}_{kind}" for scope in ("reduce", "ring") for kind in REDUCTIONS),
)
"""Every step name."""

SOURCES: tuple[str, ...] = ("none", "imm", "stash", "operand", "vrf")
