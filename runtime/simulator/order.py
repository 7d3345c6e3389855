"""What is known to be finished when a command starts: vector clocks over a stretch of a program.

A stretch lies between two barriers. What orders its events is the order of each queue and the semaphores; the
order of dispatch orders nothing, since a command may wait in its queue for long. A semaphore counts, so a
wait is known to come after a signal only where it could not have been satisfied without it: the tokens that
can be there without that signal (and what comes after it or after the wait) are fewer than what the wait and
the waits known to come before it take. Each round uses what the last one found, until nothing changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from npuc.backends.instruction import SemaphoreUse


@dataclass(eq=False)
class Event:
    """A command, or a signal of the sequencer.

    Attributes:
        lane: its queue, as a number.
        number: its position in the queue, within the stretch.
        waits, signals: semaphore uses.
        payload: whatever the caller keeps with it.
        clock: per queue, how many of its events are known to be finished when this one starts.
    """

    lane: int
    number: int
    waits: Sequence[SemaphoreUse] = ()
    signals: Sequence[SemaphoreUse] = ()
    payload: Any = None
    clock: list[int] = field(default_factory=list[int])

    def after(self, other: Event) -> bool:
        """Whether ``other`` is known to be finished when this one starts."""
        return self.clock[other.lane] > other.number


class _Uses:
    """The uses of one semaphore by one queue, in order: events and the tokens before each."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.before: list[int] = []
        self.total = 0

    def add(self, event: Event, count: int) -> None:
        self.events.append(event)
        self.before.append(self.total)
        self.total += count

    def tokens_until(self, position: int) -> int:
        """Tokens of the uses before a position."""
        return self.before[position] if position < len(self.before) else self.total


def order_events(events: Sequence[Event], lanes: int) -> None:
    """Set the clocks of all events of a stretch, given in the order of their dispatch."""
    signals, waits = _uses(events, "signals"), _uses(events, "waits")
    for event in events:
        event.clock = [0] * lanes
        event.clock[event.lane] = event.number
    changed = True
    while changed:
        changed = False
        last: list[Event | None] = [None] * lanes
        for event in events:
            clock = list(event.clock)
            previous = last[event.lane]
            if previous is not None:
                _join(clock, previous)
            for semaphore, _ in event.waits:
                for signal in _known_signals(event, signals.get(semaphore, {}), waits[semaphore]):
                    _join(clock, signal)
            if clock != event.clock:
                event.clock, changed = clock, True
            last[event.lane] = event


def _join(clock: list[int], finished: Event) -> None:
    """The clock after learning that an event is finished."""
    for lane, count in enumerate(finished.clock):
        if count > clock[lane]:
            clock[lane] = count
    clock[finished.lane] = max(clock[finished.lane], finished.number + 1)


def _uses(events: Sequence[Event], kind: str) -> dict[int, dict[int, _Uses]]:
    """Semaphore → queue → its waits or signals."""
    found: dict[int, dict[int, _Uses]] = {}
    for event in events:
        for semaphore, count in getattr(event, kind):
            found.setdefault(semaphore, {}).setdefault(event.lane, _Uses()).add(event, count)
    return found


def _known_signals(wait: Event, signals: dict[int, _Uses], waits: dict[int, _Uses]) -> list[Event]:
    """Of each queue the last signal that a wait cannot do without."""
    taken = sum(
        uses.tokens_until(_first(uses, wait.clock[lane] + (lane == wait.lane)))
        for lane, uses in waits.items()
    )
    found: list[Event] = []
    for lane, uses in signals.items():
        others = [other for other_lane, other in signals.items() if other_lane != lane]
        low, high = 0, bisect_left(uses.before, taken)  # signals[:low] are needed, [high:] are not
        while low < high:
            middle = (low + high) // 2
            free = uses.before[middle] + sum(_without(other, uses.events[middle], wait) for other in others)
            low, high = (middle + 1, high) if free < taken else (low, middle)
        if low and uses.events[low - 1] is not wait:
            found.append(uses.events[low - 1])
    return found


def _first(uses: _Uses, number: int) -> int:
    """The position of a queue's first use at or behind an event number."""
    return bisect_left(uses.events, number, key=lambda event: event.number)


def _without(uses: _Uses, signal: Event, wait: Event) -> int:
    """Tokens a queue can give without ``signal`` and before ``wait``."""
    return uses.tokens_until(
        bisect_left(uses.events, True, key=lambda event: event.after(signal) or event.after(wait))
    )
