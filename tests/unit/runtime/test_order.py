"""Vector clocks against all executions of small programs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.backends.instruction import SemaphoreUse
from npuc.runtime.simulator.order import Event, order_events

LANES = 3
State = tuple[tuple[int, bool], ...]
"""Per queue: how many events have finished, and whether the next one runs."""


def finished_in_every_execution(events: list[Event]) -> dict[int, list[int]]:
    """Event → per queue the fewest events that are finished when it starts, over all executions."""
    lanes = [[e for e in events if e.lane == lane] for lane in range(LANES)]
    fewest: dict[int, list[int]] = {}
    start: State = ((0, False),) * LANES
    seen, stack = {start}, [start]
    while stack:
        state = stack.pop()
        tokens: dict[int, int] = {}
        for lane, (done, runs) in enumerate(state):
            for event in lanes[lane][:done]:
                for semaphore, count in event.signals:
                    tokens[semaphore] = tokens.get(semaphore, 0) + count
            for event in lanes[lane][: done + runs]:
                for semaphore, count in event.waits:
                    tokens[semaphore] = tokens.get(semaphore, 0) - count
        for lane, (done, runs) in enumerate(state):
            if runs:
                following = (done + 1, False)
            elif done == len(lanes[lane]):
                continue
            else:
                event = lanes[lane][done]
                if any(tokens.get(semaphore, 0) < count for semaphore, count in event.waits):
                    continue
                now = [n for n, _ in state]
                old = fewest.get(id(event), now)
                fewest[id(event)] = [min(a, b) for a, b in zip(old, now, strict=True)]
                following = (done, True)
            reached = (*state[:lane], following, *state[lane + 1 :])
            if reached not in seen:
                seen.add(reached)
                stack.append(reached)
    return fewest


@st.composite
def drawn_events(draw: st.DrawFn, *, single: bool) -> list[Event]:
    """Up to 8 events; with ``single`` each semaphore is signalled by one queue and taken by one other."""
    numbers = [0] * LANES
    pairs = [(0, 1), (1, 0), (1, 2), (2, 0)]  # semaphore → queue that signals, queue that waits

    def drawn_uses(lane: int, side: int) -> list[SemaphoreUse]:
        allowed = [s for s, pair in enumerate(pairs) if not single or pair[side] == lane]
        if not allowed:
            return []
        chosen = draw(st.lists(st.sampled_from(allowed), max_size=2, unique=True))
        return [SemaphoreUse(s, draw(st.integers(1, 2))) for s in chosen]

    events: list[Event] = []
    for _ in range(draw(st.integers(1, 8))):
        lane = draw(st.integers(0, LANES - 1))
        events.append(Event(lane, numbers[lane], drawn_uses(lane, 1), drawn_uses(lane, 0)))
        numbers[lane] += 1
    return events


@settings(max_examples=100, deadline=None)
@given(drawn_events(single=False))
def test_what_is_claimed_holds_in_every_execution(events: list[Event]) -> None:
    order_events(events, LANES)
    for event in events:
        truth = finished_in_every_execution(events).get(id(event))
        if truth is not None:  # else it never starts
            assert all(claimed <= real for claimed, real in zip(event.clock, truth, strict=True))


@settings(max_examples=100, deadline=None)
@given(drawn_events(single=True))
def test_with_one_signaller_per_semaphore_everything_is_known(events: list[Event]) -> None:
    order_events(events, LANES)
    truth = finished_in_every_execution(events)
    if len(truth) == len(events):  # every event starts in some execution
        assert [event.clock for event in events] == [truth[id(event)] for event in events]
