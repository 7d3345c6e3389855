"""The smallest set of things to be raised for a quality to be met.

Greedy, then minimal: things are ordered by what each costs alone; the shortest prefix of that order that is
enough is found by a binary search; what it can do without is taken out, until nothing can. So the result is
1-minimal whatever the quality is like: without any single one of it the quality is missed. If raising more
never hurts (monotonicity), no set of fewer things is enough either if none of one less is; where the budget
allows, all of these are tried, and the result is then a smallest set.

Taking out one by one until nothing can go is the end of delta debugging's minimizing: Zeller and Hildebrandt,
Simplifying and Isolating Failure-Inducing Input, IEEE Transactions on Software Engineering 28(2), 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb

Score = float
"""How good; larger is better."""


@dataclass(frozen=True)
class Found:
    """A set that is enough.

    Attributes:
        raised: the set, in the order of all things.
        minimal: whether it was shown that none of it can be left out.
        smallest: whether it was shown, given monotonicity, that no smaller set is enough.
    """

    raised: tuple[str, ...]
    minimal: bool
    smallest: bool


class _Spent(Exception):
    """The budget does not allow another evaluation."""


@dataclass
class MinimalSet:
    """A search among `things`.

    Attributes:
        things: that can be raised.
        score: how good the result is with some of them raised; asked once for each set.
        enough: whether a score is.
        budget: the most evaluations.
        costs: of each thing, the score with all others raised.
        evaluations: how many there were.
    """

    things: Sequence[str]
    score: Callable[[frozenset[str]], Score]
    enough: Callable[[Score], bool]
    budget: int
    costs: dict[str, Score] = field(default_factory=dict[str, Score])
    known: dict[frozenset[str], Score] = field(default_factory=dict[frozenset[str], Score])

    @property
    def evaluations(self) -> int:
        return len(self.known)

    def run(self) -> Found | None:
        """The set; None if all things are not enough. The first two evaluations are made in any case."""
        if self.enough(self.of(())):
            return Found((), True, True)
        if not self.enough(self.of(self.things)):
            return None
        best, minimal, smallest = list(self.things), False, False
        try:
            best = self._prefix()
            best, minimal = self._without_needless(best), True
            while True:
                smaller = self._smaller(len(best) - 1)
                if smaller is None:
                    break
                best = smaller
            smallest = True
        except _Spent as spent:
            best = list(spent.args[0]) if spent.args else best
        return Found(tuple(thing for thing in self.things if thing in best), minimal, smallest)

    def of(self, raised: Iterable[str]) -> Score:
        """The score with these things raised."""
        key = frozenset(raised)
        if key not in self.known:
            if len(self.known) >= max(self.budget, 2):
                raise _Spent
            self.known[key] = self.score(key)
        return self.known[key]

    def _prefix(self) -> list[str]:
        """The shortest prefix that is enough of the things in the order of what they cost, dearest first."""
        everything = frozenset(self.things)
        for thing in self.things:
            self.costs[thing] = self.of(everything - {thing})
        order = sorted(self.things, key=lambda thing: self.costs[thing])  # stable: equal costs as they come
        low, high = 0, len(order)  # the first is not enough, the second is
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.enough(self.of(order[:middle])) else (middle, high)
        return order[:high]

    def _without_needless(self, chosen: list[str]) -> list[str]:
        """Takes out the cheapest thing that is not needed, over and over."""
        while True:
            rest = next((r for r in self._less(chosen) if self.enough(self._of_rest(r, chosen))), None)
            if rest is None:
                return chosen
            chosen = rest

    def _less(self, chosen: Sequence[str]) -> Iterable[list[str]]:
        return ([other for other in chosen if other != thing] for thing in reversed(chosen))

    def _of_rest(self, rest: Sequence[str], chosen: Sequence[str]) -> Score:
        try:
            return self.of(rest)
        except _Spent:
            raise _Spent(chosen) from None

    def _smaller(self, size: int) -> list[str] | None:
        """A set of so many things that is enough, dearest first.

        Raises:
            _Spent: when there are more sets than the budget allows.
        """
        if comb(len(self.things), size) > self.budget - len(self.known):
            raise _Spent
        order = sorted(self.things, key=lambda thing: self.costs[thing])
        return next((list(s) for s in combinations(order, size) if self.enough(self.of(s))), None)
