"""Comparing values: figures, and the first that differs."""

from __future__ import annotations

import math

import pytest
import torch
from npuc.passes.checking import Figures, compare, figures_data, layer_of, place_values, ulp_histogram, worst


def test_figures() -> None:
    expected = torch.tensor([3.0, -4.0, 0.0])
    assert compare(expected, expected)[:4] == (0.0, 0.0, pytest.approx(1.0), None)
    found = compare(torch.tensor([3.0, -4.0, 1.0]), expected)
    assert found[:3] == (1.0, 0.25, pytest.approx(25 / (5 * math.sqrt(26))))
    assert found.snr_db == pytest.approx(10 * math.log10(25))
    assert compare(-expected, expected).cosine == pytest.approx(-1.0)


def test_what_is_not_finite() -> None:
    expected = torch.tensor([1.0, math.nan, -math.inf])
    assert compare(torch.tensor([1.0, 5.0, math.nan]), expected).max_abs_error == 0.0
    assert compare(torch.tensor([math.nan, 5.0, 5.0]), expected).max_rel_error == math.inf
    zero = torch.zeros(2)
    assert compare(zero, zero)[:4] == (0.0, 0.0, 1.0, None)
    assert compare(torch.ones(2), zero).max_rel_error == math.inf


def test_worst() -> None:
    assert worst([Figures(1.0, 0.5, 0.9), Figures(2.0, 0.1, 0.8)]) == Figures(2.0, 0.5, 0.8)
    one, two = (
        Figures(1.0, 0.5, 0.9, 20.0, (1, 2, 0, 0, 0, 0)),
        Figures(1.0, 0.5, 0.9, 10.0, (0, 1, 0, 0, 0, 3)),
    )
    assert worst([one, two])[3:] == (10.0, (1, 3, 0, 0, 0, 3))


def test_errors_in_units_in_the_last_place() -> None:
    """numpy's nextafter and spacing say how far apart floats are."""
    import numpy as np

    ones = np.float32(1.0)
    near = [ones, np.nextafter(ones, np.float32(2)), ones - 3 * np.spacing(np.float32(0.5)), np.float32(-1)]
    found = ulp_histogram(torch.tensor(np.array(near)), torch.ones(4))
    assert found == (1, 1, 1, 0, 0, 1)
    # 1 + 1/128 is the next bf16 after 1, 0.0 is as good as -0.0, the smallest on both sides are two apart.
    bf16 = torch.tensor([1.0078125, -0.0, -(2.0**-133)]), torch.tensor([1.0, 0.0, 2.0**-133])
    assert ulp_histogram(*bf16) == (1, 1, 1, 0, 0, 0)
    assert figures_data(compare(*bf16))["ulps"] == {
        "0": 1,
        "1": 1,
        "2-3": 1,
        "4-15": 0,
        "16-255": 0,
        ">255": 0,
    }


def test_layers() -> None:
    assert layer_of("model.layers.3.mlp.up_proj") == "model.layers.3"
    assert layer_of("model.layers.{}.mlp") == "model.layers.{}"
    assert layer_of("model.layers.12") == "model.layers.12"
    assert layer_of("model.norm") == "model.norm"


def test_cache_contents_depend_on_their_place_alone() -> None:
    short, long = (place_values(range(2), (length, 3), 1, 0, 0) for length in (4, 9))
    assert torch.equal(short, long[:, :4])
    assert len(place_values(range(4), (16, 8), 0, 0, 0).unique()) == 4 * 16 * 8
    for other in ((2, 0, 0), (1, 1, 0), (1, 0, 1)):
        assert not torch.allclose(short, place_values(range(2), (4, 3), *other))
