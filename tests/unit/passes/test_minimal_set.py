"""The search for the smallest set that is enough, against all subsets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.passes.algorithms.minimal_set import Found, MinimalSet

THINGS = tuple("abcdefg")
Score = Callable[[Iterable[str]], float]


def search(score: Score, limit: float, budget: int = 1000) -> tuple[Found | None, MinimalSet]:
    found = MinimalSet(THINGS, score, lambda value: value >= limit, budget)
    return found.run(), found


def subsets(things: Iterable[str]) -> list[tuple[str, ...]]:
    listed = list(things)
    return [s for size in range(len(listed) + 1) for s in combinations(listed, size)]


def additive(costs: Iterable[int], extra: int) -> Score:
    """What is not raised costs its part; two of the things cost more together."""
    known = dict(zip(THINGS, costs, strict=True))
    return lambda raised: (
        -sum(c for t, c in known.items() if t not in raised) - (0 if {"a", "b"} & set(raised) else extra)
    )


@given(st.lists(st.integers(0, 9), min_size=7, max_size=7), st.integers(0, 9), st.integers(-70, 0))
@settings(max_examples=150, deadline=None)
def test_no_set_is_smaller(costs: list[int], extra: int, limit: int) -> None:
    score = additive(costs, extra)
    found, used = search(score, limit)
    assert found is not None  # everything raised scores 0
    assert (found.minimal, found.smallest) == (True, True)
    assert score(found.raised) >= limit
    assert len(found.raised) == min(len(s) for s in subsets(THINGS) if score(s) >= limit)
    assert used.evaluations <= 2 ** len(THINGS)
    assert search(score, limit)[0] == found


@given(st.dictionaries(st.sampled_from(subsets(THINGS)), st.integers(-5, 5), min_size=1))
@settings(max_examples=150, deadline=None)
def test_nothing_can_be_left_out_whatever_the_score(scores: dict[tuple[str, ...], int]) -> None:
    """Raising more may hurt here; the promise that is left holds."""

    def score(raised: Iterable[str]) -> float:
        return scores.get(tuple(sorted(raised)), -1)

    found, _ = search(score, 0)
    if found is None:
        assert score(THINGS) < 0
        return
    assert score(found.raised) >= 0
    assert found.minimal
    assert all(score([t for t in found.raised if t != out]) < 0 for out in found.raised)


@pytest.mark.parametrize("budget", range(2, 14))
def test_a_spent_budget_leaves_a_set_that_is_enough(budget: int) -> None:
    score = additive((5, 1, 4, 1, 3, 1, 2), 0)
    found, used = search(score, -4, budget)
    assert found is not None
    assert used.evaluations <= budget
    assert score(found.raised) >= -4
    assert not found.smallest


def test_what_needs_no_search() -> None:
    score = additive((1,) * 7, 0)
    assert search(score, -7)[0] == Found((), True, True)
    assert search(score, 1)[0] is None
    assert search(score, 0)[0] == Found(THINGS, True, True)
