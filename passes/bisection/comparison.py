"""Two compiles side by side: the first step after which they compute different things.

States belong together by their passes: a state's partner is the last one of the other compile that no later
pass has made. Where they part, the step at fault is the one that moved the logits further, here or there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from npuc.passes.bisection.findings import Finding
from npuc.passes.bisection.search import Search, first_bad, worst_output
from npuc.passes.bisection.states import History, State


@dataclass
class Comparison:
    """A compile beside another one, which is right; both run the same calls.

    Attributes:
        ours, theirs: the states of both, and what runs them.
        names: of both, for people.
    """

    ours: Search
    theirs: Search
    names: tuple[str, str]

    def run(self) -> Finding | None:
        """What is different, if anything is, and which of both does it."""
        partners, count = partners_of(self.ours.states, self.theirs.states), self.ours.compiled
        if self._parts(0, 0):
            return self._imports()
        bad = first_bad(count, lambda number: self._parts(number, partners[number]))
        stored = (number for number in range(count, len(partners)) if self._parts(number, partners[number]))
        bad = next(stored, None) if bad is None else bad
        if bad is not None:
            return self._parted(bad, partners)
        found = self.ours.beside_values()
        return None if found is None else replace(found, side=self.names[0])

    def _parts(self, number: int, partner: int) -> bool:
        """Whether a state does not compute what its partner does."""
        if number not in self.ours.judged:
            self.ours.progress(self.ours.states[number].name)
            found, expected = self.ours.outputs(number), self.theirs.outputs(partner)
            self.ours.judged[number] = worst_output(found, expected)
        return self.ours.judged[number].figures.max_rel_error > self.ours.tolerance

    def _imports(self) -> Finding:
        """Where what both compiles begin with differs."""
        states = [self.theirs.states[0], replace(self.ours.states[0], step=None)]
        search = Search(History(states), self.ours.evaluator, self.ours.tolerance)
        return replace(search.localized(1), side=self.names[0])

    def _parted(self, bad: int, partners: Sequence[int]) -> Finding:
        """Which of both moved, and what did it."""
        before, after = partners[bad - 1], partners[bad]
        moved = [_moved(self.ours, bad - 1, bad), _moved(self.theirs, before, after)]
        if moved[0] >= moved[1]:
            return replace(self.ours.localized(bad), side=self.names[0])
        there = next(
            n for n in range(before + 1, after + 1) if _moved(self.theirs, before, n) >= moved[1] / 2
        )
        self.theirs.judged[there] = self.ours.judged[bad]
        return replace(self.theirs.localized(there), side=self.names[1])


def _moved(search: Search, before: int, after: int) -> float:
    """How much the steps between two states change the logits."""
    return worst_output(search.outputs(after), search.outputs(before)).figures.max_rel_error


def partners_of(ours: Sequence[State], theirs: Sequence[State]) -> list[int]:
    """Of each of our states the number of the one of theirs that it should agree with."""
    names = [state.name for state in theirs]
    partners, last = [0], 0
    for state in ours[1:]:
        last = names.index(state.name, last + 1) if state.name in names[last + 1 :] else last
        partners.append(last)
    return partners
