"""Hazards: planted ones are found and named, clean programs have none."""

from __future__ import annotations

import pytest
import torch
from commands_of import HALT, RNGD, WINDOW, control, dma, port, tu
from npuc.backends.instruction import Instruction, Reg
from npuc.runtime.simulator import Hazard, Simulator

S = RNGD.slices
Tokens = dict[int, int] | None


def fetch(to: int = 0, n: int = 8, waits: Tokens = None, signals: Tokens = None) -> Instruction:
    """Main memory to dm, n f32 per slice."""
    return dma((S, n), ("hbm", 0, (4 * n, 4)), ("dm", to, (WINDOW, 4)), waits=waits, signals=signals)


def put(frm: int, n: int = 8, waits: Tokens = None, signals: Tokens = None) -> Instruction:
    """dm to main memory behind 64 KiB."""
    return dma((S, n), ("dm", frm, (WINDOW, 4)), ("hbm", 1 << 16, (4 * n, 4)), waits=waits, signals=signals)


def move(frm: int, to: int, n: int = 8, queue: str = "main", waits: Tokens = None, signals: Tokens = None):
    """n f32 inside each slice's dm."""
    return tu((n,), port("stream", frm, 4), port("out", to, 4), queue=queue, waits=waits, signals=signals)


def fill(to: int, n: int = 8) -> Instruction:
    return tu((n,), port("out", to, 4))


def hazards(*instructions: Instruction, params: tuple[int, ...] = ()) -> list[Hazard]:
    sim = Simulator(RNGD, 1 << 18)
    sim.write(0, torch.zeros(1 << 13))
    return sim.run(sim.load([*instructions, HALT]), params=params, hazards=True).hazards


def kinds(*instructions: Instruction) -> list[str]:
    return [hazard.kind for hazard in hazards(*instructions)]


def test_a_synchronized_pipeline_is_clean() -> None:
    assert (
        kinds(fetch(signals={0: 1}), move(0, 64, waits={0: 1}, signals={1: 1}), put(64, waits={1: 1})) == []
    )


def test_a_barrier_orders_everything() -> None:
    assert kinds(fetch(), control("barrier"), move(0, 64), control("barrier"), put(64)) == []


@pytest.mark.parametrize(
    ("program", "low", "second"),
    [
        ([fetch(), move(0, 64)], 0, "tu at 0xa0 on queue main reads (stream)"),
        ([fetch(), control("barrier"), move(0, 64), fetch(0)], 0, "dma at 0x230 on queue dma writes (dst)"),
        ([fetch(), control("barrier"), move(0, 64), fetch(64)], 64, "dma at 0x230 on queue dma writes (dst)"),
    ],
)
def test_a_missing_wait_is_a_race(program: list[Instruction], low: int, second: str) -> None:
    """Read after write, write after read, write after write."""
    (hazard,) = hazards(*program)
    assert (hazard.kind, hazard.memory, hazard.low, hazard.high) == ("race", "dm", low, low + 32)
    nothing = "the same bytes; nothing makes the first finish before the second starts"
    assert hazard.text.endswith(f"and {second} {nothing}")
    assert [item.instruction for item in hazard.commands] == [program[-2], program[-1]]


def test_interleaved_accesses_do_not_conflict() -> None:
    """Even and odd rows: the ranges overlap, the bytes do not."""
    even = dma((4, 2), ("hbm", 0, (8, 4)), ("dm", 0, (16, 4)))
    odd = tu((4, 2), port("out", 8, 16, 4))
    shifted = tu((4, 2), port("out", 4, 16, 4))
    assert kinds(even, odd) == []
    assert kinds(even, shifted) == ["race"]


def test_copies_to_some_slices_conflict_only_there() -> None:
    one_slice = dma((8,), ("hbm", 0, (4,)), ("dm", 3 * WINDOW, (4,)))
    (hazard,) = hazards(fill(0), control("barrier"), one_slice, move(0, 64))
    assert hazard.kind == "race"
    assert "bytes 0x0 to 0x1f of slice 3 of dm" in hazard.text
    assert hazard.slice == 3


def test_the_wrong_semaphore_does_not_order() -> None:
    program = [fetch(0, signals={0: 1}), fetch(256, signals={1: 1})]
    assert kinds(*program, move(256, 64, waits={1: 1}), move(0, 128, waits={0: 1})) == []
    assert kinds(*program, move(256, 64, waits={0: 1}), move(0, 128, waits={1: 1})) == ["race"]


def test_a_semaphore_with_two_signallers_orders_only_when_all_tokens_are_taken() -> None:
    """One token may be anyone's; two are both."""
    filled = [fill(0), control("barrier")]
    both = [fetch(0, signals={0: 1}), move(512, 768, queue="sub", signals={0: 1})]
    ready = [fill(512), control("barrier")]
    assert kinds(*filled, *ready, *both, move(0, 64, waits={0: 2})) == []
    loose = kinds(*filled, *ready, *both, move(0, 64, waits={0: 1}), move(512, 896, waits={0: 1}))
    assert loose == ["race"]


def test_double_buffering_with_credits_is_clean_and_one_credit_more_is_a_race() -> None:
    """Two buffers: with a third credit a load may overwrite what is still read."""

    def program(credits: int) -> list[Instruction]:
        load = dma((S, 8), ("hbm", 0, (32, 4)), ("dm", Reg(0, 2), (WINDOW, 4)), waits={1: 1}, signals={0: 1})
        stream = port("stream", Reg(0, 2), 4)
        use = tu((8,), stream, port("out", 4096, 4), waits={0: 1}, signals={1: 1})
        return [
            control("signal", sem=1, n=credits),
            control("loop", rd=1, count=3),
            *[part for base in (0, 64) for part in (control("set", rd=2, imm=base), load, use)],
            control("end"),
            dma((1,), ("hbm", 0, (4,)), ("hbm", 1 << 16, (4,)), waits={1: credits}),
        ]

    assert kinds(*program(2)) == []
    found = hazards(*program(3))
    assert {hazard.kind for hazard in found} == {"race"}
    assert all("writes (dst)" in hazard.text for hazard in found)


def test_order_against_the_program_is_reported() -> None:
    """The reader is dispatched first and waits for the writer: values would be taken in program order."""
    (hazard,) = hazards(fill(0), control("barrier"), move(0, 64, waits={0: 1}), fetch(0, signals={0: 1}))
    assert hazard.kind == "reversed"
    assert "against program order" in hazard.text


def test_unwritten_bytes_are_found_once() -> None:
    half = [fetch(0, n=8), control("barrier"), control("loop", rd=1, count=3), move(0, 256, n=16)]
    (hazard,) = hazards(*half, control("end"))
    assert hazard.kind == "unwritten"
    assert hazard.text == "tu at 0xc0: stream reads bytes 0x20 to 0x23 of dm, which nothing has written"


def test_masked_and_limited_elements_need_not_be_written() -> None:
    loaded = [fetch(0, n=8), control("barrier")]
    stream, out = port("stream", 0, 4), port("out", 256, 4)
    assert kinds(*loaded, tu((16,), stream, out, mask__dim=1, mask__limit=8)) == []
    assert kinds(*loaded, tu((16,), stream, out, mask__dim=1, mask__limit=9)) == ["unwritten"]
    total = {"reduce": 1, "chain__op": ("reduce_add",), "limit__dim": 1}
    assert kinds(*loaded, tu((16,), stream, port("out", 256, 0), limit__limit=8, **total)) == []
    assert kinds(*loaded, tu((16,), stream, port("out", 256, 0), limit__limit=9, **total)) == ["unwritten"]


def test_the_host_writes_too() -> None:
    sim = Simulator(RNGD, 1 << 12)
    sim.write(0, torch.zeros(8))
    sim.zero(32, 32)
    copy = sim.load([dma((16,), ("hbm", 0, (4,)), ("hbm", 256, (4,))), HALT])
    beyond = sim.load([dma((1,), ("hbm", 64, (4,)), ("hbm", 512, (4,))), HALT])
    assert sim.run(copy, hazards=True).hazards == []
    assert [hazard.kind for hazard in sim.run(beyond, hazards=True).hazards] == ["unwritten"]
    sim.run(copy)  # unobserved: from here on everything counts as written
    assert sim.run(beyond, hazards=True).hazards == []


def test_gathers_read_their_rows_and_their_list() -> None:
    sim = Simulator(RNGD, 1 << 12)
    sim.write(0, torch.zeros(4, 4))
    gather = dma(
        (2, 4), ("hbm", 0, (0, 4)), ("hbm", 2048, (16, 4)), index__base=1024, index__dim=1, index__scale=16
    )
    program = sim.load([gather, HALT])
    assert [h.text.split(":")[1].split()[0] for h in sim.run(program, hazards=True).hazards] == ["index"]
    sim.write(1024, torch.tensor([3, 4], dtype=torch.int32))
    (hazard,) = sim.run(program, hazards=True).hazards
    assert "src reads bytes 0x40 to 0x43 of hbm" in hazard.text


def test_leaving_a_memory_is_reported_and_the_run_goes_on() -> None:
    result = hazards(fetch(1 << 19), fetch(0), control("barrier"), move(0, 64))
    assert [hazard.kind for hazard in result] == ["out-of-bounds"]
    assert "dma at 0x0: dst: bytes 0x80000 to 0x8001f of dm" in result[0].text


def test_left_over_tokens_and_deadlocks() -> None:
    (leak,) = hazards(fetch(signals={7: 3}), move(512, 768, waits={7: 2}), fill(0))[1:]
    assert leak.kind == "leak"
    assert leak.text == "semaphore 7 holds 1 at halt at 0x3a0, signalled last by dma at 0x0"
    (deadlock,) = hazards(fetch(signals={0: 1}), put(0, waits={0: 2}))
    assert deadlock.kind == "deadlock"
    assert "dma at 0xa0 on queue dma waits for 2 of semaphore 0, which holds 1" in deadlock.text
