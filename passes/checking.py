"""Comparing what two forms of a program compute, in figures. No IR in here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

ULP_BOUNDS = (0, 1, 3, 15, 255)
"""Errors are counted up to each of these, in units in the last place, and beyond the last."""


class Figures(NamedTuple):
    """How far values are from those expected.

    Attributes:
        max_abs_error: infinite where a value is not finite that should be.
        max_rel_error: of the largest expected magnitude.
        cosine: of the angle between both as vectors; 1 where both are zero.
        snr_db: power of what is expected over that of the error, in decibels; None without error.
        ulps: how many values are wrong by no more than each of `ULP_BOUNDS`, and how many by more.
    """

    max_abs_error: float
    max_rel_error: float
    cosine: float
    snr_db: float | None = None
    ulps: tuple[int, ...] = (0,) * (len(ULP_BOUNDS) + 1)


def compare(found: Tensor, expected: Tensor) -> Figures:
    """Figures of values of one shape; positions where nothing finite is expected do not count."""
    defined = expected.isfinite()
    a, b = found[defined].double(), expected[defined].double()
    if not b.numel():
        return Figures(0.0, 0.0, 1.0)
    if not a.isfinite().all():
        return Figures(math.inf, math.inf, 0.0, -math.inf)
    error, largest = float((a - b).abs().max()), float(b.abs().max())
    relative = error / largest if largest else (math.inf if error else 0.0)
    norms = float(a.norm() * b.norm())
    cosine = float(a @ b) / norms if norms else float(not error)
    return Figures(error, relative, cosine, _snr(a, b), ulp_histogram(found[defined], expected[defined]))


def _snr(found: Tensor, expected: Tensor) -> float | None:
    noise, signal = float((found - expected).square().sum()), float(expected.square().sum())
    return 10 * math.log10(signal / noise) if noise and signal else -math.inf if noise else None


def ulp_histogram(found: Tensor, expected: Tensor) -> tuple[int, ...]:
    """How many finite values are how wrong, in units in the last place: of bf16 if it holds all, or f32."""
    narrow = all(torch.equal(x.bfloat16().float(), x.float()) for x in (found, expected))
    away = (_ordered(found, narrow) - _ordered(expected, narrow)).abs()
    bins = torch.bucketize(away, torch.tensor(ULP_BOUNDS))
    return tuple(torch.bincount(bins, minlength=len(ULP_BOUNDS) + 1).tolist())


def _ordered(values: Tensor, narrow: bool) -> Tensor:
    """The number of each value among all of its type."""
    bits = values.bfloat16().view(torch.int16) if narrow else values.float().view(torch.int32)
    return torch.where(bits < 0, torch.iinfo(bits.dtype).min - bits.long(), bits.long())


def worst(figures: Sequence[Figures]) -> Figures:
    """The largest errors, the smallest cosine and ratio of several comparisons, and all their values."""
    if not figures:
        return Figures(0.0, 0.0, 1.0)
    errors, relative, cosines, ratios, ulps = zip(*figures, strict=True)
    ratio = min((r for r in ratios if r is not None), default=None)
    counts = tuple(map(sum, zip(*ulps, strict=True)))
    return Figures(max(errors), max(relative), min(cosines), ratio, counts)


def figures_data(figures: Figures) -> dict[str, Any]:
    """Figures for programs: the histogram by its bounds."""
    low = (0, *(bound + 1 for bound in ULP_BOUNDS))
    names = [str(a) if a == b else f"{a}-{b}" for a, b in zip(low, ULP_BOUNDS, strict=False)]
    return {**figures._asdict(), "ulps": dict(zip((*names, f">{ULP_BOUNDS[-1]}"), figures.ulps, strict=True))}


_LAYER = re.compile(r"(?:.*?\.)?(?:\d+|\{\})(?=\.|$)")


def layer_of(module: str) -> str:
    """The layer that a checkpoint module is in: ``model.layers.3`` of ``model.layers.3.mlp``; else itself."""
    found = _LAYER.match(module)
    return found[0] if found else module


def compare_outputs(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Figures:
    """The worst figures of the outputs that both have."""
    return worst([compare(found[name], expected[name]) for name in found if name in expected])


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
