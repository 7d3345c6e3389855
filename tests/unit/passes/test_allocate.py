"""Lifetimes in program order, and addresses in which nothing alive at the same time overlaps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.passes.algorithms.allocate import (
    Buffer,
    DoesNotFit,
    Interval,
    Lifetimes,
    Step,
    lifetimes,
    place,
)


def test_a_buffer_lives_from_definition_to_last_use() -> None:
    live = lifetimes([Step(defines=("a",)), Step(uses=("a",)), Step(defines=("b",)), Step(uses=("b",))])
    assert not live.buffers["a"].meets(live.buffers["b"])


def test_a_buffer_from_outside_lives_for_the_whole_loop() -> None:
    body = (Step(uses=("x",)), Step(defines=("t",)), Step(uses=("t",)))
    live = lifetimes([Step(defines=("x",)), Step(body=body), Step(defines=("after",))])
    assert live.buffers["x"].meets(live.buffers["t"])
    assert not live.buffers["x"].meets(live.buffers["after"])


def test_buffers_of_one_iteration_share_memory_unless_they_alternate() -> None:
    body = (Step(defines=("s",)), Step(uses=("s",)), Step(defines=("t",)), Step(uses=("t",)))
    assert not _meet(lifetimes([Step(body=body)]), "s", "t")
    assert _meet(lifetimes([Step(body=body)], whole_loop={"s"}), "s", "t")
    assert _meet(lifetimes([Step(body=(Step(body=body), Step(defines=("u",))))], {"t"}), "s", "t")
    assert not _meet(lifetimes([Step(body=(Step(body=body), Step(defines=("u",))))], {"t"}), "u", "t")


def _meet(live: Lifetimes, a: str, b: str) -> bool:
    return live.buffers[a].meets(live.buffers[b])


def test_calls_keep_their_point() -> None:
    live = lifetimes([Step(defines=("a",)), Step(key="call"), Step(uses=("a",)), Step(key="late")])
    assert live.buffers["a"].meets(live.steps["call"])
    assert not live.buffers["a"].meets(live.steps["late"])


def test_the_frame_of_a_callee_keeps_the_buffers_around_the_call_away() -> None:
    frame = Buffer("call", 100, Interval(5, 6), address=0)
    placed = place(
        [frame, Buffer("across", 10, Interval(0, 9)), Buffer("before", 50, Interval(0, 5))], "sram", 200
    )
    assert placed["across"] >= 100
    assert placed["before"] == 0


def test_too_much_names_need_capacity_and_the_largest() -> None:
    live = Interval(0, 9)
    buffers = [Buffer("hidden", 64, live), Buffer("weight", 96, live), Buffer("x", 8, Interval(20, 21))]
    with pytest.raises(DoesNotFit, match="memory dm has 128 bytes, 160 are needed at once") as error:
        place(buffers, "dm", 128)
    assert error.value.largest == [("weight", 96), ("hidden", 64)]


@st.composite
def _buffers(draw: st.DrawFn) -> list[Buffer]:
    count = draw(st.integers(1, 25))
    result = []
    for k in range(count):
        start = draw(st.integers(0, 30))
        live = Interval(start, start + draw(st.integers(1, 10)))
        alignment = draw(st.sampled_from([1, 8, 64]))
        fixed = draw(st.integers(0, 4)) == 0 and k == 0
        result.append(Buffer(f"b{k}", draw(st.integers(1, 300)), live, alignment, 128 if fixed else None))
    return result


@settings(deadline=None, max_examples=200)
@given(_buffers())
def test_nothing_alive_at_the_same_time_overlaps(buffers: list[Buffer]) -> None:
    capacity = sum(b.size + b.alignment for b in buffers) + 512
    placed = place(buffers, "dm", capacity)
    for i, a in enumerate(buffers):
        address = placed[a.name]
        assert a.address == address if a.address is not None else address % a.alignment == 0
        assert 0 <= address <= capacity - a.size
        for b in buffers[:i]:
            if a.live.meets(b.live):
                assert not Interval(address, address + a.size).meets(
                    Interval(placed[b.name], placed[b.name] + b.size)
                )


@settings(deadline=None, max_examples=100)
@given(_buffers())
def test_the_peak_is_near_the_lower_bound(buffers: list[Buffer]) -> None:
    """Best fit stays below twice the most bytes alive at one point, alignment apart."""
    movable = [Buffer(b.name, b.size, b.live) for b in buffers]
    alive = max(sum(b.size for b in movable if b.live.start <= t < b.live.stop) for t in range(41))
    assert place(movable, "dm", 2 * alive)
