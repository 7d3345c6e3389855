"""Placing buffers so that commands wait as little as possible for bytes that are used again.

Two buffers of which one is dead before the other begins may have the same bytes, but then the first command
of the second waits for the last of the first, though its data does not ask for it: a false dependence. What
one costs follows from the times at which commands would run without any; `settle` gives each buffer the bytes
that cost least. A memory is there to be used: the highest address is no aim, only its size is a bound.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from npuc.passes.algorithms.allocate import ORDERS, Buffer, place

LOST = 1000
"""What a cycle by which the program gets longer counts against one by which a command cannot run ahead."""
ROUNDS = 4
"""How often every buffer is offered a better address."""
FORBIDDEN = 1 << 62


@dataclass
class Life:
    """One execution of a buffer's lifetime.

    Attributes:
        order: position of its first command in program order.
        ready, latest: when it can begin, and when it must, lest the program take longer.
        finish: when its last command can be done.
        weight: how many such executions it stands for.
    """

    order: int
    ready: int
    latest: int
    finish: int
    weight: int = 1

    def cost_after(self, finish: int) -> int:
        """What it costs to begin no earlier."""
        return self.weight * (LOST * max(0, finish - self.latest) + max(0, finish - self.ready))


@dataclass(frozen=True)
class Form:
    """A way to have a buffer: the number of its copies decides on size and lifetime.

    Attributes:
        lives: in program order.
        own: what it costs that the buffer has the same bytes each time.
    """

    buffer: Buffer
    lives: Sequence[Life] = ()
    own: int = 0


def cost_of_one_copy(lives: Sequence[Life]) -> int:
    """What it costs that each execution of a lifetime waits for the one before."""
    return sum(later.cost_after(earlier.finish) for earlier, later in pairwise(lives))


def cost_of_sharing(a: Sequence[Life], b: Sequence[Life]) -> int:
    """What it costs that two buffers have bytes in common: each begins after the other's last end."""
    return _cost_after(a, b) + _cost_after(b, a)


def _cost_after(later: Sequence[Life], earlier: Sequence[Life]) -> int:
    orders = [life.order for life in earlier]
    ends = ((bisect_left(orders, life.order), life) for life in later)
    return sum(life.cost_after(earlier[k - 1].finish) for k, life in ends if k)


def settle(choices: Sequence[Sequence[Form]], memory: str, capacity: int) -> list[tuple[Form, int]]:
    """A form and an address for each buffer: those that cost least, as far as a local search finds them.

    The first forms are placed in several orders, each buffer where it costs least by then, and with the
    lowest peak. From each of these placements buffers move as long as it gets cheaper; to the cheapest the
    other forms are offered.

    Raises:
        DoesNotFit: the lowest peak of the first forms is not within ``capacity``.
    """
    first = [forms[0] for forms in choices]
    buffers = [form.buffer for form in first]
    lowest = place(buffers, memory, capacity)
    given = _Placement(first, [lowest[buffer.name] for buffer in buffers], capacity, _costs(first))
    best = given.best_of_all_orders()
    for i in _in_order(buffers, ORDERS[0]):
        for form in choices[i][1:]:
            other = best.with_form(i, form) if best.cost() else None
            best = other if other is not None and other.cost() < best.cost() else best
    if best.forms != first:
        best = best.best_of_all_orders()
    return list(zip(best.forms, best.addresses, strict=True))


def _in_order(buffers: Sequence[Buffer], order: Callable[[Buffer], tuple[int, ...]]) -> list[int]:
    return sorted(range(len(buffers)), key=lambda i: order(buffers[i]))


def _costs(forms: Sequence[Form]) -> list[list[int]]:
    """What it costs that two buffers have bytes in common."""
    lower = [[_cost(a, b) for b in forms[: i + 1]] for i, a in enumerate(forms)]
    return [[lower[max(i, j)][min(i, j)] for j in range(len(forms))] for i in range(len(forms))]


def _cost(a: Form, b: Form) -> int:
    if a is b:
        return 0
    return FORBIDDEN if a.buffer.live.meets(b.buffer.live) else cost_of_sharing(a.lives, b.lives)


class _Placement:
    """An address for each buffer, none of which overlaps another that lives at the same time.

    Args:
        costs: of each pair of buffers, if they have bytes in common.
    """

    def __init__(
        self, forms: Sequence[Form], addresses: Sequence[int], capacity: int, costs: list[list[int]]
    ) -> None:
        self.forms, self.addresses, self.capacity, self.costs = forms, list(addresses), capacity, costs

    def cost(self) -> int:
        """Of all bytes that are used more than once, and of buffers that have one copy."""
        return sum(map(self._cost_of, range(len(self.forms)))) // 2 + sum(form.own for form in self.forms)

    def best_of_all_orders(self) -> _Placement:
        """Place all buffers anew in several orders, improve these placements and this one."""
        buffers = [form.buffer for form in self.forms]
        orders = (_in_order(buffers, order) for order in ORDERS)
        placements = [self, *filter(None, map(self.anew, orders))]
        for placement in placements:
            placement.improve()
        return min(placements, key=_Placement.cost)

    def anew(self, order: Sequence[int]) -> _Placement | None:
        """Buffers are placed in turn, each where it costs least, if they fit."""
        result = _Placement(self.forms, self.addresses, self.capacity, self.costs)
        placed = {i for i in order if self._is_fixed(i)}
        for i in order:
            if i not in placed:
                found = result.cheapest(i, placed)
                if found is None:
                    return None
                result.addresses[i] = found[1]
                placed.add(i)
        return result

    def with_form(self, i: int, form: Form) -> _Placement | None:
        """Another form of one buffer where it fits, and better addresses for all."""
        forms = [*self.forms[:i], form, *self.forms[i + 1 :]]
        column = [_cost(form, other) for other in forms]
        costs = [[*row[:i], cost, *row[i + 1 :]] for row, cost in zip(self.costs, column, strict=True)]
        costs[i] = column
        result = _Placement(forms, self.addresses, self.capacity, costs)
        found = result.cheapest(i, range(len(forms)))
        if found is None:
            return None
        result.addresses[i] = found[1]
        result.improve()
        return result

    def improve(self) -> None:
        """Move buffers to better addresses while there are any."""
        everything = range(len(self.forms))
        for _ in range(ROUNDS):
            before = list(self.addresses)
            for i in everything:
                cost = 0 if self._is_fixed(i) else self._cost_of(i)
                found = self.cheapest(i, everything) if cost else None
                if found is not None and found[0] < cost:
                    self.addresses[i] = found[1]
            if self.addresses == before:
                return

    def cheapest(self, i: int, others: Collection[int]) -> tuple[int, int] | None:
        """Cost and address, beside some other buffers: of the cheapest addresses the lowest.

        Costs fall only behind the end of a buffer, so these are the addresses worth a look.
        """
        size, alignment = self.forms[i].buffer.size, self.forms[i].buffer.alignment
        spans = [
            (self.addresses[j], self.addresses[j] + self.forms[j].buffer.size, self.costs[i][j])
            for j in others
            if j != i and self.costs[i][j]
        ]
        ends = {0, *(-(-stop // alignment) * alignment for _, stop, _ in spans)}
        addresses = sorted(address for address in ends if address + size <= self.capacity)
        change = [0] * (len(addresses) + 1)
        for start, stop, cost in spans:
            change[bisect_right(addresses, start - size)] += cost
            change[bisect_left(addresses, stop)] -= cost
        found = min(zip(accumulate(change), addresses, strict=False), default=None)
        return found if found is not None and found[0] < FORBIDDEN else None

    def _is_fixed(self, i: int) -> bool:
        return self.forms[i].buffer.address is not None

    def _cost_of(self, i: int) -> int:
        """What buffer i costs where it lies."""
        start = self.addresses[i]
        stop = start + self.forms[i].buffer.size
        return sum(
            cost
            for cost, at, form in zip(self.costs[i], self.addresses, self.forms, strict=True)
            if cost and at < stop and start < at + form.buffer.size
        )
