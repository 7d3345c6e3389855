"""How heads and features are dealt to ranks."""

from __future__ import annotations

import pytest
from npuc.passes.algorithms.shares import EMPTY, deal, deal_groups
from npuc.passes.algorithms.ties import Ties


def test_features() -> None:
    assert deal(4, 2) == (0, 1, 2, 3)
    assert deal(5, 3) == (0, 1, 2, 3, 4, EMPTY)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 6, 8, 16])
@pytest.mark.parametrize(("heads", "key_heads"), [(8, 4), (6, 2), (9, 3), (4, 4), (12, 1), (14, 2)])
def test_every_head_finds_its_keys(heads: int, key_heads: int, ranks: int) -> None:
    queries, keys = deal_groups(heads, key_heads, ranks)
    assert sorted(q for q in queries if q != EMPTY) == list(range(heads))
    assert len(queries) % ranks == len(keys) % ranks == 0
    assert len(queries) % len(keys) == 0
    group = len(queries) // len(keys)
    for place, query in enumerate(queries):
        if query != EMPTY:
            assert keys[place // group] == query // (heads // key_heads)


def test_keys_are_repeated_where_ranks_are_more() -> None:
    assert deal_groups(8, 4, 8) == ((0, 1, 2, 3, 4, 5, 6, 7), (0, 0, 1, 1, 2, 2, 3, 3))
    assert deal_groups(6, 2, 4) == ((0, 1, 2, EMPTY, 3, 4, 5, EMPTY), (0, 0, 1, 1))


def test_ties() -> None:
    ties = Ties[str]()
    ties.tie("a", "b")
    ties.block("c", "first")
    ties.block("c", "second")
    ties.tie("b", "c")
    ties.tie("x", "y")
    assert ties.classes() == [["a", "b", "c"], ["x", "y"]]
    assert ties.reason("a") == "first"
    assert ties.reason("y") == ""
