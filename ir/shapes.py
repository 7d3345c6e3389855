"""Sizes of tensors: integers, or affine expressions over (batch, seq, ctx)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from math import prod

from xdsl.ir.affine import AffineExpr
from xdsl.utils.exceptions import VerifyException

Dim = int | AffineExpr


def broadcast_shapes(lhs: Sequence[Dim], rhs: Sequence[Dim]) -> tuple[Dim, ...]:
    """The numpy broadcast of two shapes.

    Raises:
        VerifyException: when two sizes differ and neither is 1.
    """
    sizes: list[Dim] = []
    for a, b in zip_longest(reversed(lhs), reversed(rhs), fillvalue=1):
        if a != b and a != 1 and b != 1:
            raise VerifyException(f"shapes do not broadcast: lhs has {tuple(lhs)}, rhs has {tuple(rhs)}")
        sizes.append(b if a == 1 else a)
    return tuple(reversed(sizes))


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a dense row-major array of this shape."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
