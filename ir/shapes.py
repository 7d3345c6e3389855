"""Sizes of tensors: integers, or affine expressions over (batch, seq, ctx)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from math import prod

from xdsl.ir.affine import AffineExpr
from xdsl.utils.exceptions import VerifyException

Dim = int | AffineExpr

SYMBOLS = ("batch", "seq", "ctx")
SAMPLES = ((2, 3, 5), (7, 11, 13), (4, 128, 1024))  # values of the symbols at which expressions are compared


def evaluate(dim: Dim, sizes: Sequence[int]) -> int:
    """A size for these (batch, seq, ctx)."""
    return dim if isinstance(dim, int) else dim.eval(list(sizes), [])


def same_size(a: Dim, b: Dim) -> bool:
    """Whether two sizes are equal, however they are written; expressions are compared at sample points."""
    if a == b or (isinstance(a, int) and isinstance(b, int)):
        return a == b
    return all(evaluate(a, sizes) == evaluate(b, sizes) for sizes in SAMPLES)


def same_shape(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    """Whether two shapes are equal."""
    return len(a) == len(b) and all(map(same_size, a, b))


def same_count(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    """Whether two shapes have the same number of elements."""
    return all(
        prod(evaluate(d, sizes) for d in a) == prod(evaluate(d, sizes) for d in b) for sizes in SAMPLES
    )


def size_text(dim: Dim) -> str:
    """A size as users know it: ``64``, ``seq``, ``ctx + 1``."""
    return re.sub(r"\bd(\d)\b", lambda found: SYMBOLS[int(found[1])], str(dim))


def shape_text(shape: Sequence[Dim]) -> str:
    """A shape as users know it: ``[batch, seq, 64]``."""
    return f"[{', '.join(map(size_text, shape))}]"


def broadcast_shapes(lhs: Sequence[Dim], rhs: Sequence[Dim]) -> tuple[Dim, ...]:
    """The numpy broadcast of two shapes.

    Raises:
        VerifyException: when two sizes differ and neither is 1.
    """
    sizes: list[Dim] = []
    for a, b in zip_longest(reversed(lhs), reversed(rhs), fillvalue=1):
        if a != 1 and b != 1 and not same_size(a, b):
            raise VerifyException(
                f"shapes do not broadcast: lhs has {shape_text(lhs)}, rhs has {shape_text(rhs)}"
            )
        sizes.append(b if a == 1 else a)
    return tuple(reversed(sizes))


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a dense row-major array of this shape."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
