"""Ranks that meet."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from npuc.ir.errors import UserError
from npuc.ir.lockstep import Lockstep


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_take_turns_and_meet(ranks: int) -> None:
    together, order = Lockstep(ranks), list[tuple[int, int]]()

    def rank_of(rank: int) -> Callable[[], int]:
        def run() -> int:
            total = rank
            for step in range(3):
                order.append((step, rank))
                total = sum(together.exchange(rank, total))
            return total

        return run

    start = sum(range(ranks))
    assert together.run([rank_of(rank) for rank in range(ranks)]) == [start * ranks**2] * ranks
    assert order == sorted(order)


def test_the_first_error_ends_all() -> None:
    together, after = Lockstep(3), list[int]()

    def rank_of(rank: int) -> Callable[[], None]:
        def run() -> None:
            together.exchange(rank, None)
            if rank == 1:
                raise ValueError("rank 1")
            together.exchange(rank, None)
            after.append(rank)

        return run

    with pytest.raises(ValueError, match="rank 1"):
        together.run([rank_of(rank) for rank in range(3)])
    assert after == []


def test_a_rank_that_does_not_come() -> None:
    together = Lockstep(2)
    with pytest.raises(UserError, match="rank 1 waits for rank 0, which has come to its end"):
        together.run([lambda: None, lambda: together.exchange(1, None)])


def test_groups_meet_by_themselves() -> None:
    """Two pairs meet among themselves, one of them more often, before all four meet."""
    together = Lockstep(4)

    def rank_of(rank: int) -> Callable[[], list[int]]:
        def run() -> list[int]:
            found = together.exchange(rank, rank, 2)
            for _ in range(rank // 2):
                found = together.exchange(rank, sum(found), 2)
            return together.exchange(rank, sum(found))

        return run

    assert together.run([rank_of(rank) for rank in range(4)]) == [[1, 1, 10, 10]] * 4


def test_ranks_that_wait_for_one_another() -> None:
    together = Lockstep(4)
    pair = [lambda: together.exchange(0, None, 2), lambda: together.exchange(1, None)]
    whole = [lambda: together.exchange(2, None), lambda: together.exchange(3, None)]
    with pytest.raises(UserError, match=r"rank . waits for rank ., which waits for others"):
        together.run([*pair, *whole])
