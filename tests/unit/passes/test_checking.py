"""Comparing values: figures, and the first that differs."""

from __future__ import annotations

import math

import pytest
import torch
from npuc.passes.checking import Figures, compare, first_difference, place_values, worst


def test_figures() -> None:
    expected = torch.tensor([3.0, -4.0, 0.0])
    assert compare(expected, expected) == Figures(0.0, 0.0, pytest.approx(1.0))
    found = compare(torch.tensor([3.0, -4.0, 1.0]), expected)
    assert found == Figures(1.0, 0.25, pytest.approx(25 / (5 * math.sqrt(26))))
    assert compare(-expected, expected).cosine == pytest.approx(-1.0)


def test_what_is_not_finite() -> None:
    expected = torch.tensor([1.0, math.nan, -math.inf])
    assert compare(torch.tensor([1.0, 5.0, math.nan]), expected).max_abs_error == 0.0
    assert compare(torch.tensor([math.nan, 5.0, 5.0]), expected).max_rel_error == math.inf
    zero = torch.zeros(2)
    assert compare(zero, zero) == Figures(0.0, 0.0, 1.0)
    assert compare(torch.ones(2), zero).max_rel_error == math.inf


def test_worst() -> None:
    assert worst([Figures(1.0, 0.5, 0.9), Figures(2.0, 0.1, 0.8)]) == Figures(2.0, 0.5, 0.8)


def test_first_difference_pairs_values_of_one_name_in_order() -> None:
    one, two = torch.ones(2), torch.full((2,), 2.0)
    expected = [("a", one), ("b", one), ("b", two), ("c", one)]
    assert first_difference(expected, expected, 0.0) is None
    found = first_difference([("a", one), ("b", one), ("b", one), ("c", two)], expected, 1e-3)
    assert found is not None
    assert (found.number, found.figures.max_abs_error) == (2, 1.0)
    # What has other counts or shapes is another value, whatever its name.
    assert first_difference([("b", two), ("c", torch.ones(3))], expected, 1e-3) is None
    within = first_difference([("a", one * 1.0005)], expected, 1e-3)
    assert within is None


def test_cache_contents_depend_on_their_place_alone() -> None:
    short, long = (place_values(range(2), (length, 3), 1, 0, 0) for length in (4, 9))
    assert torch.equal(short, long[:, :4])
    assert len(place_values(range(4), (16, 8), 0, 0, 0).unique()) == 4 * 16 * 8
    for other in ((2, 0, 0), (1, 1, 0), (1, 0, 1)):
        assert not torch.allclose(short, place_values(range(2), (4, 3), *other))
