"""Several ranks of one program in one process, one at a time: each runs until it has to meet others.

A rank is a function in a thread of its own. Only one runs at any time, in the order of their numbers, so what
they compute together does not depend on chance. Ranks of one chip may meet by themselves; groups are equal
runs of consecutive ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any, TypeVar

from npuc.ir.errors import UserError

T = TypeVar("T")
_Group = tuple[int, int]  # its first rank, and how many there are


class _Stopped(BaseException):
    """Another rank failed: this one ends too."""


class Lockstep:
    """Runs one function per rank, which meet by `exchange`.

    Args:
        ranks: how many there are.
    """

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._turn = [Event() for _ in range(ranks)]
        self._rounds: dict[_Group, list[int]] = {}
        self._values: dict[tuple[_Group, int], list[Any]] = {}
        self._idle = 0  # turns since a rank went on
        self._finished = [False] * ranks
        self._error: BaseException | None = None

    def run(self, functions: Sequence[Callable[[], T]]) -> list[T]:
        """What the functions return, in the order of the ranks.

        Raises:
            UserError: ranks meet a different number of times.
            Exception: the first one that a function raises; the others end at their next meeting.
        """
        if self.ranks == 1:
            return [functions[0]()]
        results: list[Any] = [None] * self.ranks
        threads = [
            Thread(target=self._thread, args=(rank, function, results), daemon=True)
            for rank, function in enumerate(functions)
        ]
        for thread in threads:
            thread.start()
        self._turn[0].set()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        return results

    def exchange(self, rank: int, value: T, members: int = 0) -> list[T]:
        """Waits until every rank of a group has come here as often as this one; the values that all brought.

        Args:
            members: of a group, by default all ranks; groups of other sizes are other meetings.

        Raises:
            UserError: deadlock when a rank of the group does not come.
        """
        members = members or self.ranks
        group = rank // members * members, members
        rounds, at = self._rounds.setdefault(group, [0] * members), rank - group[0]
        number = rounds[at]
        rounds[at] += 1
        values = self._values.setdefault((group, number), [None] * members)
        values[at] = value
        self._next(rank)
        self._wait(rank)
        while missing := [group[0] + i for i, come in enumerate(rounds) if come <= number]:
            self._idle += 1
            ended = [other for other in missing if self._finished[other]]
            if ended or self._idle > self.ranks:
                why = "which has come to its end" if ended else "which waits for others"
                raise UserError("deadlock", f"rank {rank} waits for rank {(ended or missing)[0]}, {why}")
            self._next(rank)
            self._wait(rank)
        self._idle = 0
        if at == members - 1:
            del self._values[group, number]
        return values

    def _thread(self, rank: int, function: Callable[[], Any], results: list[Any]) -> None:
        try:
            self._wait(rank)
            results[rank] = function()
        except _Stopped:
            pass
        except BaseException as error:
            self._error = self._error or error
        self._finished[rank] = True
        self._next(rank)

    def _wait(self, rank: int) -> None:
        self._turn[rank].wait()
        self._turn[rank].clear()
        if self._error is not None:
            raise _Stopped

    def _next(self, rank: int) -> None:
        """Give the turn to the next rank that is not at its end."""
        for step in range(1, self.ranks + 1):
            other = (rank + step) % self.ranks
            if not self._finished[other]:
                self._turn[other].set()
                return
