"""Cores that share the main memory, of one chip or several, and copies that wait for other cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands_of import HALT, RNGD, WINDOW, control, dma
from npuc.backends.instruction import Instruction, Reg
from npuc.backends.machine import Machine, parse_machine
from npuc.backends.model import Cost
from npuc.ir.errors import UserError
from npuc.runtime.simulator import Hazard, Simulator, Timeline
from npuc.runtime.simulator.program import load_instructions
from npuc.runtime.simulator.timing import simulate

CORES = 3
OWN, SHARED, OUT = 0, 4096, 8192
"""Inputs of 8 bytes a core, what they exchange, and 8 · CORES bytes a core of results."""
PARAM = control("param", rd=1, index=0)
WIDE = control("mul", rd=2, rs=1, imm=8)


def small_chips() -> Machine:
    """RNGD with two cores a chip."""
    text = Path(RNGD.file).read_text()
    assert text.count("level core 4 ") == 1
    return parse_machine(text.replace("level core 4 ", "level core 1 ").encode(), "small")


def exchange(meet: int, cores: int = CORES) -> list[Instruction]:
    """Each core shows its two numbers to all; each writes what it has seen."""
    whole = (2 * cores,)
    return [
        PARAM,
        WIDE,
        control("mul", rd=3, rs=1, imm=8 * cores),
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
    """As `timed_on`, cores of one chip."""
    return timed_on(RNGD, *programs, stops=stops)


def timed_on(machine: Machine, *programs: list[Instruction], stops: bool = True) -> list[Timeline]:
    """Programs of several cores; a copy takes as many cycles as its first extent."""
    loaded = [load_instructions(machine, [*program, HALT]) for program in programs]
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


def shown_to_all(meet: int, *, hazards: bool, straight: bool = False) -> tuple[torch.Tensor, list[Hazard]]:
    """Two chips of two cores each."""
    simulator = Simulator(small_chips(), 1 << 14, cores=4)
    simulator.write(OWN, torch.arange(8.0))
    simulator.zero(SHARED, 32)
    program = simulator.load(exchange(meet, cores=4))
    found = simulator.run_ranks(program, "main", [0, 0], hazards=hazards, straight=straight)
    return simulator.read(OUT, (4, 8), torch.float32), found.hazards


@pytest.mark.parametrize("straight", [False, True])
def test_cores_of_two_chips_meet(straight: bool) -> None:
    seen, _ = shown_to_all(2, hazards=False, straight=straight)
    assert torch.equal(seen, torch.arange(8.0).expand(4, -1))


def test_meeting_on_the_own_chip_is_not_enough() -> None:
    _, none = shown_to_all(2, hazards=True)
    assert none == []
    _, found = shown_to_all(1, hazards=True)
    (race,) = [hazard for hazard in found if hazard.kind == "race"]
    assert "of core 0 writes bytes 0x1000" in race.text
    assert "of core 2 reads (src)" in race.text


CHIP_BYTES = 1 << 20


def between_chips(*programs: list[Instruction]) -> list[Timeline]:
    """Times of programs on two chips of two cores each; 3000 bytes take 512 cycles by themselves."""
    machine = small_chips()
    loaded = [load_instructions(machine, [*program, HALT]) for program in programs]
    runs = [(program, "main", (rank, rank // 2)) for rank, program in enumerate(loaded)]
    return simulate(runs, chip_bytes=CHIP_BYTES)


def fetch(*chips: int, size: int = 750) -> Instruction:
    """So many f32 of each of the given chips, which are equally far apart."""
    step = (chips[-1] - chips[0]) * CHIP_BYTES
    return dma((len(chips), size), ("hbm", chips[0] * CHIP_BYTES, (step, 4)), ("dm", 0, (4 * size, 4)))


def test_time_on_the_link_between_chips() -> None:
    """Cores of the second chip read 3000 bytes of the first each, at 30 a cycle, 1500 cycles away."""
    idle: list[Instruction] = []
    own, alone = between_chips(idle, [fetch(0)], [fetch(0)], idle)[1:3]
    assert own.cycles == 1 + 500 + 12
    assert own.link_bytes == 0
    assert alone.cycles == 1 + 500 + 100 + 1500
    assert alone.link_bytes == 3000
    one, other = between_chips(idle, idle, [fetch(0, size=75_000)], [fetch(0, size=75_000)])[2:]
    assert one.cycles == other.cycles
    assert one.cycles == pytest.approx(2 * 300_000 / 30, rel=0.01)


def test_each_chips_part_of_a_copy_goes_its_own_way() -> None:
    """Half of what is read is on the own chip."""
    found = between_chips([fetch(0, 1)], [], [fetch(0, 1)], [])
    assert [timeline.link_bytes for timeline in found] == [3000, 0, 3000, 0]
    assert found[0].cycles == found[2].cycles


def test_cores_of_a_chip_wait_for_each_other_only() -> None:
    """The first chip's meet while the second's still move; then all meet."""
    together = [move(5, meet=1), move(5, meet=2)]
    found = timed_on(small_chips(), [*together], [*together], [move(40), *together], [move(10), *together])
    first, last = ([tuple(i)[1:] for i in found[core].queues["dma"]] for core in (0, 3))
    assert first == [(1, 6), (46, 51)]
    assert last == [(1, 11), (41, 46), (46, 51)]
