"""Which bucket serves which requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from npuc.ir.errors import UserError
from npuc.runtime.buckets import Pending, capacity, check_request, decode_call, prompt_call, takes
from npuc.runtime.manifest import Program


def bucket(kind: str, batch: int, new_tokens: int, length: int) -> Program:
    return Program(
        f"{kind}_{batch}x{new_tokens}x{length}", kind, batch, length, new_tokens, "f", ("last",), {}
    )


PREFILL_8, PREFILL_32 = bucket("prefill", 1, 8, 8), bucket("prefill", 1, 32, 32)
PREFILL_4X8 = bucket("prefill", 4, 8, 8)
EXTEND_64, EXTEND_128 = bucket("extend", 1, 16, 64), bucket("extend", 1, 4, 128)
DECODE_32, DECODE_128 = bucket("decode", 1, 1, 32), bucket("decode", 1, 1, 128)
DECODE_4X32, DECODE_4X128 = bucket("decode", 4, 1, 32), bucket("decode", 4, 1, 128)


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        ([Pending(0, 5)], (PREFILL_8, [(0, 5)])),
        ([Pending(0, 8)], (PREFILL_8, [(0, 8)])),
        ([Pending(0, 9)], (PREFILL_32, [(0, 9)])),
        ([Pending(0, 90)], (PREFILL_32, [(0, 32)])),
        ([Pending(32, 16)], (EXTEND_64, [(0, 16)])),
        ([Pending(32, 3)], (EXTEND_128, [(0, 3)])),
        ([Pending(62, 9)], (EXTEND_128, [(0, 4)])),
        ([Pending(0, 5), Pending(0, 7)], (PREFILL_4X8, [(0, 5), (1, 7)])),
        ([Pending(0, 5), Pending(0, 20), Pending(0, 2)], (PREFILL_4X8, [(0, 5), (2, 2)])),
        ([Pending(0, 5), Pending(32, 5)], (PREFILL_8, [(0, 5)])),
        ([Pending(0, n) for n in (1, 2, 3, 4, 5)], (PREFILL_4X8, [(0, 1), (1, 2), (2, 3), (3, 4)])),
    ],
)
def test_prompts(waiting: list[Pending], expected: tuple[Program, list[tuple[int, int]]]) -> None:
    programs = [EXTEND_128, PREFILL_32, PREFILL_4X8, PREFILL_8, EXTEND_64, DECODE_128]
    call = prompt_call(programs, waiting)
    assert call is not None
    assert (call.program, list(call.rows)) == expected


@pytest.mark.parametrize(
    ("cached", "expected"),
    [
        ([31], (DECODE_32, [0])),
        ([32], (DECODE_128, [0])),
        ([3, 31], (DECODE_4X32, [1, 0])),
        ([3, 32], (DECODE_4X128, [1, 0])),
        ([3, 9, 5, 1, 7], (DECODE_4X32, [1, 4, 2, 0])),
    ],
)
def test_decode(cached: list[int], expected: tuple[Program, list[int]]) -> None:
    call = decode_call([DECODE_4X128, DECODE_32, DECODE_128, DECODE_4X32], cached)
    assert call is not None
    assert (call.program, [index for index, _ in call.rows]) == expected


def test_nothing_fits() -> None:
    assert prompt_call([PREFILL_8, DECODE_32], [Pending(8, 1)]) is None
    assert decode_call([DECODE_32], [32]) is None


def test_the_last_token_needs_no_room() -> None:
    assert capacity([PREFILL_8, bucket("decode", 1, 1, 11)], 6) == 6
    assert capacity([PREFILL_8], 6) == 1
    assert capacity([PREFILL_32, DECODE_32], 32) == 1
    assert check_request([PREFILL_8, DECODE_32], 8, None) == 25


@pytest.mark.parametrize(
    ("programs", "prompt", "new", "kind", "message"),
    [
        (
            [PREFILL_8, DECODE_32],
            9,
            1,
            "prompt-too-long",
            "has 9 tokens; the largest prefill bucket holds 8 and",
        ),
        ([PREFILL_8, EXTEND_64], 65, 1, "prompt-too-long", "longest extend bucket 64"),
        ([DECODE_32], 1, 1, "prompt-too-long", "holds 0"),
        (
            [PREFILL_8, DECODE_32],
            8,
            26,
            "request-too-long",
            "need 33 positions; the longest decode bucket holds 32",
        ),
        ([PREFILL_8], 8, 2, "request-too-long", "there is no decode bucket"),
    ],
)
def test_refusals_name_the_limit(
    programs: list[Program], prompt: int, new: int, kind: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_request(programs, prompt, new)
    assert caught.value.kind == kind


def buckets_of(kind: str) -> st.SearchStrategy[Program]:
    def make(batch: int, new: int, more: int) -> Program:
        new = 1 if kind == "decode" else new
        return bucket(kind, batch, new, new + (0 if kind == "prefill" else more))

    return st.builds(make, st.integers(1, 4), st.integers(1, 9), st.integers(0, 20))


@given(
    st.lists(st.sampled_from(["prefill", "extend"]).flatmap(buckets_of), min_size=1, max_size=6),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
)
def test_an_accepted_prompt_always_goes_on(programs: list[Program], prompts: list[int]) -> None:
    """Accepted prompts reach the cache whatever the buckets are, each token once, within their limits."""

    def accepted(prompt: int) -> bool:
        try:
            return capacity(programs, prompt) >= 1
        except UserError:
            return False

    waiting = [Pending(0, prompt) for prompt in prompts if accepted(prompt)]
    while waiting:
        call = prompt_call(programs, waiting)
        assert call is not None
        assert 0 < len(call.rows) <= call.program.batch
        assert call.rows[0][0] == 0
        for index, count in call.rows:
            assert 0 < count == takes(call.program, waiting[index])
            waiting[index] = Pending(waiting[index].cached + count, waiting[index].rest - count)
        waiting = [pending for pending in waiting if pending.rest]


@given(
    st.lists(buckets_of("decode"), min_size=1, max_size=6),
    st.lists(st.integers(0, 30), min_size=1, max_size=9),
)
def test_decode_serves_the_longest_first(programs: list[Program], cached: list[int]) -> None:
    call = decode_call(programs, cached)
    if call is None:
        assert max(cached) >= max(p.length for p in programs)
        return
    served = [index for index, _ in call.rows]
    assert len(set(served)) == len(served) <= call.program.batch
    assert all(cached[index] < call.program.length for index in served)
    assert cached[served[0]] == max(cached)
    assert len(served) == min(len(cached), call.program.batch)
