"""Critical paths of small pipelines, by hand: what waited for what, and who idled meanwhile."""

from __future__ import annotations

from commands_of import HALT, RNGD, control, dma, port, tu
from npuc.backends.instruction import Instruction
from npuc.backends.model import Cost
from npuc.runtime.simulator.critical_path import CriticalPath
from npuc.runtime.simulator.program import load_instructions
from npuc.runtime.simulator.timing import simulate
from npuc.tools.why import explain

PLAIN = (port("stream", 0, 4), port("out", 64, 4))
COPY = (("hbm", 0, (4,)), ("dm", 0, (4,)))
COSTS = {"tu": Cost(10, {"vector": 8}, 0), "dma": Cost(20, {"read": 15, "write": 5}, 64)}


def work(**uses: dict[int, int]) -> Instruction:
    return tu((2,), *PLAIN, **uses)


def load(**uses: dict[int, int]) -> Instruction:
    return dma((2,), *COPY, **uses)


def path_of(*instructions: Instruction) -> CriticalPath:
    program = load_instructions(RNGD, [*instructions, HALT])
    return CriticalPath(simulate([(program, "main", ())], cost=lambda i: COSTS[i.command])[0])


def steps(path: CriticalPath) -> list[tuple[str, int]]:
    return [(link.queue, link.cycles) for link in reversed(list(path.links()))]


def test_a_chain_through_two_queues() -> None:
    """dma 1–21, main 21–31, dma 31–51: each waits for the one before; the first for its dispatch."""
    path = path_of(load(signals={0: 1}), work(waits={0: 1}, signals={1: 1}), load(waits={1: 1}))
    assert steps(path) == [("sequencer", 1), ("dma", 20), ("main", 10), ("dma", 20)]
    assert path.waits_of("dma") == {"sequencer": 1, "main tu": 10}
    assert path.waits_of("main") == {"dma dma": 21 + 20}


def test_the_slower_of_two_queues() -> None:
    """Nothing waits: the queue with more work is the path."""
    path = path_of(load(), work(), load(), work())
    assert steps(path) == [("sequencer", 1), ("dma", 20), ("dma", 20)]


def test_a_barrier_waits_for_all() -> None:
    path = path_of(load(), work(), control("barrier"), work())
    assert steps(path)[:2] == [("sequencer", 1), ("dma", 20)]
    assert steps(path)[-1] == ("main", 10)
    assert sum(cycles for _, cycles in steps(path)) == path.timeline.cycles


def test_the_explanation_splits_the_path() -> None:
    """Costs as the machine says: the parts are the whole, and a copy's start-up is told from its data."""
    program = load_instructions(RNGD, [load(signals={0: 1}), work(waits={0: 1}), HALT])
    timeline = simulate([(program, "main", ())])[0]
    why = explain(timeline)
    assert sum(part["cycles"] for part in why["critical_path"]) == timeline.cycles
    assert (why["bound"]["queue"], why["bound"]["stage"]) == ("dma", "fixed")
    fixed = {p["queue"]: p["cycles"] for p in why["critical_path"] if p["stage"] == "fixed"}
    assert fixed["dma"] == 500
    assert [wait["for"] for wait in why["idle"]["waits"]] == ["main tu", "sequencer"]
