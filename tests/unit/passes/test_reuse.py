"""Bytes are shared where it costs least; buffers that would wait for each other lie apart if they fit."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.passes.algorithms.allocate import Buffer, DoesNotFit, Interval, place
from npuc.passes.algorithms.reuse import (
    Form,
    Life,
    cost_of_one_copy,
    cost_of_sharing,
    settle,
)


def form(name: str, size: int, start: int, finish: int, latest: int | None = None) -> Form:
    """A buffer whose lifetime in the program's order is also that in time."""
    life = Life(start, start, start if latest is None else latest, finish)
    return Form(Buffer(name, size, Interval(start, finish)), [life])


def addresses(choices: Sequence[Sequence[Form]], capacity: int) -> list[int]:
    return [address for _, address in settle(choices, "dm", capacity)]


def test_sharing_costs_what_the_later_buffer_must_wait_for() -> None:
    a, b = [Life(0, 0, 0, 100)], [Life(1, 20, 70, 130)]
    lost, ahead = 100 - 70, 100 - 20
    assert cost_of_sharing(a, b) == cost_of_sharing(b, a) == 1000 * lost + ahead
    assert cost_of_sharing(a, [Life(1, 100, 100, 130)]) == 0


def test_executions_take_turns_and_count_as_often_as_they_happen() -> None:
    a = [Life(0, 0, 0, 10), Life(2, 20, 20, 30, weight=5)]
    b = [Life(1, 9, 10, 24), Life(3, 30, 30, 40, weight=5)]
    assert cost_of_sharing(a, b) == 1 + 5 * (1000 * 4 + 4)
    assert cost_of_one_copy([Life(0, 0, 0, 10), Life(1, 8, 9, 20, weight=3)]) == 3 * (1000 + 2)


def test_neighbours_have_bytes_of_their_own_where_two_fit() -> None:
    """Loads that could run ahead by one: a memory of two units holds them in turn."""
    units = [
        Form(Buffer(f"w{k}", 32, Interval(k, k + 1)), [Life(k, 0, 10 * k, 10 * k + 20)]) for k in range(6)
    ]
    found = addresses([[unit] for unit in units], 64)
    assert all(a != b for a, b in pairwise(found))
    assert addresses([[unit] for unit in units], 32) == [0] * 6


def test_where_something_must_wait_it_is_what_waits_least() -> None:
    late, early = form("late", 8, 0, 90), form("early", 8, 1, 40)
    late = Form(Buffer("late", 8, Interval(0, 2)), late.lives)
    early = Form(Buffer("early", 8, Interval(1, 3)), early.lives)
    last = Form(Buffer("last", 8, Interval(5, 6)), [Life(5, 30, 35, 99)])
    at = addresses([[late], [early], [last]], 16)
    assert at[2] == at[1] != at[0]


def test_a_second_copy_that_costs_others_more_is_given_up() -> None:
    both = Buffer("t", 32, Interval(0, 100))
    one = Buffer("t", 16, Interval(0, 1))
    forms = [Form(both), Form(one, [Life(0, 0, 0, 5)], own=3)]
    others = [Form(Buffer(f"w{k}", 16, Interval(10 + k, 11 + k)), [Life(9 + k, 0, k, 50)]) for k in range(2)]
    roomy = settle([forms, *([w] for w in others)], "trf", 64)
    assert roomy[0][0] is forms[0]
    tight = settle([forms, *([w] for w in others)], "trf", 48)
    assert tight[0][0] is forms[1]
    assert tight[1][1] != tight[2][1]


@st.composite
def _choices(draw: st.DrawFn) -> list[list[Form]]:
    result: list[list[Form]] = []
    for k in range(draw(st.integers(1, 14))):
        start = draw(st.integers(0, 30))
        stop = start + draw(st.integers(1, 10))
        alignment = draw(st.sampled_from([1, 8, 64]))
        size = draw(st.integers(1, 300))
        ready = draw(st.integers(0, 400))
        finish = ready + draw(st.integers(0, 200))
        lives = [Life(start, ready, ready + draw(st.integers(0, 100)), finish, draw(st.integers(1, 9)))]
        one = Form(Buffer(f"b{k}", size, Interval(start, stop), alignment), lives, draw(st.integers(0, 50)))
        stride = -(-size // alignment) * alignment
        two = Form(Buffer(f"b{k}", 2 * stride, Interval(max(0, start - 5), stop + 5), alignment), lives)
        result.append([two, one] if draw(st.booleans()) else [one])
    if draw(st.booleans()):
        result.append([Form(Buffer("frame", draw(st.integers(0, 400)), Interval(12, 13), address=0))])
    return result


@settings(deadline=None, max_examples=200)
@given(_choices(), st.integers(0, 900))
def test_nothing_overlaps_and_what_fits_somehow_still_fits(choices: list[list[Form]], more: int) -> None:
    buffers = [forms[0].buffer for forms in choices]
    lowest = place(buffers, "dm", 1 << 40)
    capacity = max(lowest[b.name] + b.size for b in buffers) + more
    found = settle(choices, "dm", capacity)
    assert found == settle(choices, "dm", capacity)
    for i, (a, at) in enumerate(found):
        assert any(a is option for option in choices[i])
        assert at == a.buffer.address if a.buffer.address is not None else at % a.buffer.alignment == 0
        assert 0 <= at <= capacity - a.buffer.size
        span = Interval(at, at + a.buffer.size)
        for b, other in found[:i]:
            if a.buffer.live.meets(b.buffer.live):
                assert not span.meets(Interval(other, other + b.buffer.size))


@settings(deadline=None, max_examples=100)
@given(_choices())
def test_it_costs_no_more_than_the_lowest_peak(choices: list[list[Form]]) -> None:
    first = [forms[0] for forms in choices]
    lowest = place([form.buffer for form in first], "dm", 1 << 40)
    capacity = max(lowest[form.buffer.name] + form.buffer.size for form in first)
    found = settle(choices, "dm", capacity)
    assert _cost(found) <= _cost([(form, lowest[form.buffer.name]) for form in first])
    assert _cost(settle(choices, "dm", 1 << 40)) == 0 or any(form.own for form, _ in found)


def _cost(found: Sequence[tuple[Form, int]]) -> int:
    total = sum(form.own for form, _ in found)
    for i, (a, at) in enumerate(found):
        for b, other in found[:i]:
            spans = Interval(at, at + a.buffer.size), Interval(other, other + b.buffer.size)
            if spans[0].meets(spans[1]):
                total += cost_of_sharing(a.lives, b.lives)
    return total


def test_a_memory_that_is_too_small_is_refused() -> None:
    choices = [[form("a", 40, 0, 9)], [form("b", 40, 3, 12)]]
    with pytest.raises(DoesNotFit, match="80 are needed at once"):
        settle(choices, "dm", 64)
