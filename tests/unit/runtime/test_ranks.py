"""Cores that share the main memory, and copies that wait for the other cores."""

from __future__ import annotations

import pytest
import torch
from commands_of import HALT, RNGD, WINDOW, control, dma
from npuc.backends.instruction import Instruction, Reg
from npuc.backends.model import Cost
from npuc.ir.errors import UserError
from npuc.runtime.simulator import Hazard, Simulator, Timeline
from npuc.runtime.simulator.program import load_instructions
from npuc.runtime.simulator.timing import simulate

CORES = 3
OWN, SHARED, OUT = 0, 4096, 8192
"""Inputs of 8 bytes a core, what they exchange, and 8 · CORES bytes a core of results."""
PARAM = control("param", rd=1, index=0)
WIDE, ALL = control("mul", rd=2, rs=1, imm=8), control("mul", rd=3, rs=1, imm=8 * CORES)


def exchange(meet: int) -> list[Instruction]:
    """Each core shows its two numbers to all; each writes what it has seen."""
    whole = (2 * CORES,)
    return [
        PARAM,
        WIDE,
        ALL,
        dma((2,), ("hbm", Reg(OWN, 2), (4,)), ("dm", 0, (4,))),
        dma((2,), ("dm", 0, (4,)), ("hbm", Reg(SHARED, 2), (4,))),
        dma(whole, ("hbm", SHARED, (4,)), ("dm", WINDOW, (4,)), meet=meet),
        dma(whole, ("dm", WINDOW, (4,)), ("hbm", Reg(OUT, 3), (4,))),
        HALT,
    ]


def run(*, meet: int, hazards: bool = False, straight: bool = False) -> tuple[torch.Tensor, list[Hazard]]:
    simulator = Simulator(RNGD, 1 << 14, cores=CORES)
    simulator.write(OWN, torch.arange(2.0 * CORES))
    simulator.zero(SHARED, 8 * CORES)
    program = simulator.load(exchange(meet))
    found = simulator.run_ranks(program, "main", [0], hazards=hazards, straight=straight)
    assert found.commands == 4 * CORES
    return simulator.read(OUT, (CORES, 2 * CORES), torch.float32), found.hazards


@pytest.mark.parametrize("straight", [False, True])
def test_a_copy_waits_until_all_cores_are_ready(straight: bool) -> None:
    seen, _ = run(meet=1, straight=straight)
    assert torch.equal(seen, torch.arange(2.0 * CORES).expand(CORES, -1))


def test_nobody_waits_where_nothing_says_so() -> None:
    """Cores are executed one after the other up to where they meet: the first one sees only itself."""
    seen, _ = run(meet=0)
    assert seen[0].tolist() == [0, 1, 0, 0, 0, 0]


def test_hazards_between_cores() -> None:
    _, none = run(meet=1, hazards=True)
    assert none == []
    _, found = run(meet=0, hazards=True)
    races = [hazard for hazard in found if hazard.kind == "race"]
    assert len(races) == 1
    assert (races[0].memory, races[0].low) == ("hbm", SHARED)
    assert "of core 0 writes" in races[0].text
    assert races[0].text.endswith("the cores do not meet in between")


def timed(*programs: list[Instruction], stops: bool = True) -> list[Timeline]:
    """Programs of several cores; a copy takes as many cycles as its first extent."""
    loaded = [load_instructions(RNGD, [*program, HALT]) for program in programs]
    runs = [(program, "main", (rank,)) for rank, program in enumerate(loaded)]
    return simulate(runs, cost=lambda i: Cost(i.fields["size"][0], {}, 0), stops=stops)  # type: ignore[index]


def move(cycles: int, meet: int = 0) -> Instruction:
    return dma((cycles,), ("hbm", 0, (4,)), ("dm", 0, (4,)), meet=meet)


def test_time_of_waiting_is_that_of_the_slowest() -> None:
    fast, slow = timed([move(10), move(5, meet=1), move(7)], [move(40), move(5, meet=1), move(7)])
    assert [tuple(i)[1:] for i in fast.queues["dma"]] == [(1, 11), (41, 46), (46, 53)]
    assert [tuple(i)[1:] for i in slow.queues["dma"]] == [(1, 41), (41, 46), (46, 53)]
    assert fast.busy("dma") == 22


def test_a_core_that_does_not_come() -> None:
    with pytest.raises(UserError, match="dma at 0x0 on queue dma waits for the other cores"):
        timed([move(3, meet=1)], [move(3)])
