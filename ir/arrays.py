"""Lists of integers as attributes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from xdsl.dialects.builtin import DenseArrayBase, i64


def int_array(values: Sequence[int]) -> DenseArrayBase:
    """An ``array<i64: …>`` attribute.

    Equal lists are one attribute: strides, sizes and layers recur, and making one takes longer than to read
    its numbers.
    """
    return _int_array(tuple(values))


@lru_cache(4096)
def _int_array(values: tuple[int, ...]) -> DenseArrayBase:
    return DenseArrayBase.from_list(i64, list(values))
