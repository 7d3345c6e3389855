"""Comparing what two forms of a program compute: figures, and where values first differ. No IR in here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Key = TypeVar("Key")


class Figures(NamedTuple):
    """How far values are from those expected.

    Attributes:
        max_abs_error: infinite where a value is not finite that should be.
        max_rel_error: of the largest expected magnitude.
        cosine: of the angle between both as vectors; 1 where both are zero.
    """

    max_abs_error: float
    max_rel_error: float
    cosine: float


class Difference(NamedTuple):
    """The first value that differs: its place among those found, and by how much."""

    number: int
    figures: Figures


def compare(found: Tensor, expected: Tensor) -> Figures:
    """Figures of values of one shape; positions where nothing finite is expected do not count."""
    defined = expected.isfinite()
    a, b = found[defined].double(), expected[defined].double()
    if not b.numel():
        return Figures(0.0, 0.0, 1.0)
    if not a.isfinite().all():
        return Figures(math.inf, math.inf, 0.0)
    error, largest = float((a - b).abs().max()), float(b.abs().max())
    relative = error / largest if largest else (math.inf if error else 0.0)
    norms = float(a.norm() * b.norm())
    return Figures(error, relative, float(a @ b) / norms if norms else float(not error))


def worst(figures: Sequence[Figures]) -> Figures:
    """The largest errors and the smallest cosine of several comparisons."""
    if not figures:
        return Figures(0.0, 0.0, 1.0)
    errors, relative, cosines = zip(*figures, strict=True)
    return Figures(max(errors), max(relative), min(cosines))


def compare_outputs(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Figures:
    """The worst figures of the outputs that both have."""
    return worst([compare(found[name], expected[name]) for name in found if name in expected])


def numbered(values: Sequence[tuple[Key, Tensor]]) -> dict[tuple[Key, int], Tensor]:
    """Values under their key and the number of earlier ones of the same key."""
    seen: Counter[Key] = Counter()
    result: dict[tuple[Key, int], Tensor] = {}
    for key, value in values:
        result[key, seen[key]] = value
        seen[key] += 1
    return result


def first_difference(
    found: Sequence[tuple[Key, Tensor]], expected: Sequence[tuple[Key, Tensor]], tolerance: float
) -> Difference | None:
    """The first value, in the order of `found`, whose relative error is above the tolerance.

    A key may occur often: its values are compared in order, if both sides have equally many of one shape.
    """
    counts = [Counter(key for key, _ in values) for values in (found, expected)]
    wanted = numbered(expected)
    for index, ((key, number), value) in enumerate(numbered(found).items()):
        other = wanted.get((key, number))
        if other is None or counts[0][key] != counts[1][key] or other.shape != value.shape:
            continue
        figures = compare(value, other)
        if figures.max_rel_error > tolerance:
            return Difference(index, figures)
    return None


def place_values(heads: Sequence[int], shape: tuple[int, int], layer: int, slot: int, part: int) -> Tensor:
    """Contents for a cache [heads, length, size], between −1 and 1: each value is decided by its place.

    Args:
        heads: numbers of the heads it has.
        shape: length and size.
    """
    head = torch.tensor(heads, dtype=torch.float64)
    position, dim = (torch.arange(n, dtype=torch.float64) for n in shape)
    phase = 0.7 * layer + 1.3 * slot + 2.1 * part
    angle = 37.7 * head[:, None, None] + 12.99 * position[None, :, None] + 78.23 * dim + phase
    return angle.sin().float()
