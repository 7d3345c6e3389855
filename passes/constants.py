"""Reading constants of the `graph` level."""

from __future__ import annotations

from math import prod

from npuc.ir import graph
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr
from xdsl.ir import SSAValue


def constant_of(value: SSAValue) -> float | None:
    """The value of a one-element constant; None for anything else."""
    owner = value.owner
    if not isinstance(owner, graph.ConstantOp) or prod(graph.static_shape(owner.result)) != 1:
        return None
    assert isinstance(owner.value, DenseIntOrFPElementsAttr)
    number = next(iter(owner.value.get_values()))
    return None if isinstance(number, tuple) else float(number)
