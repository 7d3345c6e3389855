"""Timing of small pipelines, computed by hand; costs are fixed where that is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands_of import HALT, RNGD, WINDOW, control, dma, port, tu
from npuc.backends.instruction import Instruction, Reg
from npuc.backends.model import Cost
from npuc.ir.errors import UserError
from npuc.runtime.simulator import Simulator, Timeline, write_chrome_trace
from npuc.runtime.simulator.program import load_instructions
from npuc.runtime.simulator.timing import simulate

PLAIN = (port("stream", 0, 4), port("out", 64, 4))
COPY = (("hbm", 0, (4,)), ("dm", 0, (4,)))


def work(waits: dict[int, int] | None = None, signals: dict[int, int] | None = None) -> Instruction:
    return tu((2,), *PLAIN, waits=waits, signals=signals)


def load(waits: dict[int, int] | None = None, signals: dict[int, int] | None = None) -> Instruction:
    return dma((2,), *COPY, waits=waits, signals=signals)


def timed(*instructions: Instruction, tu_cycles: int = 10, dma_cycles: int = 20) -> Timeline:
    costs = {"tu": Cost(tu_cycles, {"vector": 5}, 0), "dma": Cost(dma_cycles, {}, 64)}
    program = load_instructions(RNGD, [*instructions, HALT])
    return simulate([(program, "main", ())], cost=lambda i: costs[i.command])[0]


def intervals(timeline: Timeline, queue: str) -> list[tuple[int, int]]:
    return [(start, end) for _, start, end in timeline.queues[queue]]


def test_queues_run_side_by_side_and_in_order() -> None:
    """Dispatched in cycles 0, 1, 2, 3; in their queues one cycle later."""
    found = timed(load(), work(), work(), load())
    assert intervals(found, "dma") == [(1, 21), (21, 41)]
    assert intervals(found, "main") == [(2, 12), (12, 22)]
    assert (found.cycles, found.dram_bytes, found.stages) == (41, 128, {"vector": 10})
    assert found.busy("main") == 20
    assert found.seconds == pytest.approx(41e-9)


def test_a_wait_takes_tokens_when_the_signal_is_given() -> None:
    found = timed(load(signals={0: 1}), work(waits={0: 1}, signals={1: 1}), load(waits={1: 1}))
    assert intervals(found, "dma") == [(1, 21), (31, 51)]
    assert intervals(found, "main") == [(21, 31)]


def test_a_wait_for_two_tokens_waits_for_both() -> None:
    found = timed(load(signals={0: 1}), load(signals={0: 1}), work(waits={0: 2}))
    assert intervals(found, "main") == [(41, 51)]


def test_double_buffering_with_credits() -> None:
    """Two credits: the third load waits for the first work."""
    body = [load(waits={1: 1}, signals={0: 1}), work(waits={0: 1}, signals={1: 1})]
    found = timed(
        control("signal", sem=1, n=2), *body, *body, *body, load(waits={1: 2}), tu_cycles=30, dma_cycles=20
    )
    assert intervals(found, "dma") == [(2, 22), (22, 42), (52, 72), (112, 132)]
    assert intervals(found, "main") == [(22, 52), (52, 82), (82, 112)]


def test_a_full_queue_holds_the_sequencer() -> None:
    """Depth 8: the tenth command is dispatched when the second starts."""
    found = timed(*[work() for _ in range(10)], load(), tu_cycles=100)
    assert intervals(found, "main")[1] == (101, 201)
    assert intervals(found, "dma")[0][0] == 103


def test_a_barrier_waits_for_idle_queues() -> None:
    found = timed(load(), control("barrier"), work())
    assert intervals(found, "main") == [(23, 33)]


def test_control_commands_take_a_cycle() -> None:
    found = timed(*[control("set", rd=1, imm=i) for i in range(5)], work())
    assert intervals(found, "main") == [(6, 16)]


def test_costs_come_from_the_machine_and_follow_clipped_copies() -> None:
    sim = Simulator(RNGD, 0)
    copy = dma((64, 64), ("hbm", 0, (256, 4)), ("dm", 0, (WINDOW, 4)), limit=Reg(0, 1))
    program = sim.load([control("param", rd=1, index=0), copy, tu((64,), *PLAIN), HALT])
    for rows in (64, 16, 0):
        found = sim.time(program, params=(rows,))
        full = RNGD.cost(dma((max(rows, 1), 64), ("hbm", 0, (256, 4)), ("dm", 0, (WINDOW, 4))))
        copied = full.cycles if rows else full.cycles - max(full.stages.values())
        assert found.busy("dma") == copied
        assert found.busy("main") == RNGD.cost(tu((64,), *PLAIN)).cycles
        assert found.dram_bytes == (full.dram_bytes if rows else 0)


def test_deadlocks_name_what_waits() -> None:
    with pytest.raises(UserError) as caught:
        timed(load(), work(waits={3: 2}), control("barrier"))
    assert caught.value.kind == "deadlock"
    assert "tu at 0xa0 on queue main waits for 2 of semaphore 3, which holds 0" in caught.value.message
    assert "barrier at 0x220 waits for idle queues" in caught.value.message


def test_a_left_over_token_blocks_a_barrier() -> None:
    with pytest.raises(UserError, match="waits for idle queues and empty semaphores; semaphore 5 holds 1"):
        timed(load(signals={5: 1}), control("barrier"))


def test_a_queue_full_of_waiting_commands_is_a_deadlock() -> None:
    """The signal that they wait for can never be dispatched."""
    with pytest.raises(UserError, match=r"waits to dispatch tu at .*: its queue is full"):
        timed(*[work(waits={0: 1}) for _ in range(9)], load(signals={0: 9}))


def test_cores_share_the_bandwidth_of_the_main_memory() -> None:
    """Each asks for 1024 of 1536 bytes a cycle: together they run at three quarters of their speed."""
    program = load_instructions(RNGD, [load(), HALT])

    def cost(instruction: Instruction) -> Cost:
        return Cost(300, {}, 300 * 1024)

    alone = simulate([(program, "main", ())], cost=cost)[0]
    together = simulate([(program, "main", ())] * 2, cost=cost)
    assert intervals(alone, "dma") == [(1, 301)]
    assert [intervals(found, "dma") for found in together] == [[(1, 401)], [(1, 401)]]


def test_shares_change_when_a_core_is_done() -> None:
    """One moves 300 cycles' worth, the other 600: shared until 400, then alone for the other 300."""
    short, long = ([*[load()] * n, HALT] for n in (1, 2))
    programs = [load_instructions(RNGD, instructions) for instructions in (short, long)]
    found = simulate(
        [(program, "main", ()) for program in programs], cost=lambda _: Cost(300, {}, 300 * 1024)
    )
    assert intervals(found[0], "dma") == [(1, 401)]
    assert intervals(found[1], "dma") == [(1, 401), (401, 701)]


def test_loops_are_timed_without_data() -> None:
    sim = Simulator(RNGD, 0)
    loop = [control("loop", rd=1, count=1000), load(signals={0: 1}), work(waits={0: 1}), control("end")]
    found = sim.time(sim.load([*loop, HALT]))
    assert len(found.queues["main"]) == 1000
    assert found.cycles > 1000 * max(found.queues["dma"][0].end - found.queues["dma"][0].start, 264)


def test_chrome_trace(tmp_path: Path) -> None:
    named = tu((2,), *PLAIN, location="tile.pass model.norm")
    found = timed(load(), named)
    write_chrome_trace([found], tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert [(e["name"], e["tid"], e["ts"], e["dur"]) for e in complete] == [
        ("tile.pass model.norm", 1, pytest.approx(2e-3), pytest.approx(10e-3)),
        ("dma", 3, pytest.approx(1e-3), pytest.approx(20e-3)),
    ]
    assert {e["args"]["name"] for e in events if e["name"] == "thread_name"} == {"main", "sub", "dma"}
