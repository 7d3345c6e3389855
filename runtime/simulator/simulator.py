"""The simulator: load programs, write and read memory, run for values, hazards and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from npuc.backends.elf import Program
from npuc.backends.instruction import Instruction
from npuc.backends.machine import Machine
from npuc.ir.lockstep import Lockstep
from npuc.runtime.simulator.function import Core
from npuc.runtime.simulator.hazards import Hazard, Monitor, check_cores, run_observed
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.place import Place
from npuc.runtime.simulator.program import LoadedProgram, load_instructions, load_program
from npuc.runtime.simulator.timeline import Timeline
from npuc.runtime.simulator.timing import simulate
from torch import Tensor


@dataclass(frozen=True)
class RunResult:
    """What a run did: passes and copies executed, and the hazards found where they were looked for."""

    commands: int
    hazards: list[Hazard] = field(default_factory=list[Hazard])


class Simulator:
    """One or more cores of a chip, or all cores of several, and the main memory that they see.

    The main memories of several chips are one: chips follow one another in its addresses, with equal parts.

    Args:
        machine: the machine description.
        memory_bytes: how much of the main memory exists; addresses behind it are errors.
        cores: cores that see the main memory; each has its own local memories.
    """

    def __init__(self, machine: Machine, memory_bytes: int, *, cores: int = 1) -> None:
        self.machine = machine
        self.main = SimulatedMemory(machine.main, memory_bytes)
        shared = {self.main.name: self.main}
        for name, spec in machine.memories.items():
            if spec.level not in ("core", "slice") and name not in shared:
                shared[name] = SimulatedMemory(spec)
        self.cores_per_chip = min(cores, machine.cores_per_chip)
        places = [Place(rank, rank // self.cores_per_chip, cores) for rank in range(cores)]
        self.cores = [Core(machine, shared, place) for place in places]

    def write(self, address: int, tensor: Tensor) -> None:
        """Write a tensor, row-major, to main memory.

        Raises:
            UserError: out-of-bounds.
        """
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        self.main.bytes_at(address, data.numel()).copy_(data)
        self.main.note_host_write(address, data.numel())

    def zero(self, address: int, count: int) -> None:
        """Zero ``count`` bytes of main memory.

        Raises:
            UserError: out-of-bounds.
        """
        self.main.bytes_at(address, count).zero_()
        self.main.note_host_write(address, count)

    def read(self, address: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A copy of a row-major tensor in main memory.

        Raises:
            UserError: out-of-bounds.
        """
        item = torch.empty(0, dtype=dtype).element_size()
        count = torch.Size(shape).numel() * item
        return self.main.bytes_at(address, count).clone().view(dtype).view(tuple(shape))

    def load(
        self, program: Program | Sequence[Instruction], symbols: dict[str, int] | None = None
    ) -> LoadedProgram:
        """Decode a program, or take commands that are not encoded (with their symbols).

        Raises:
            UserError: see program.py.
        """
        if isinstance(program, Program):
            return load_program(self.machine, program)
        return load_instructions(self.machine, program, symbols)

    def run(
        self,
        program: LoadedProgram,
        entry: str = "main",
        params: Sequence[int] = (),
        *,
        hazards: bool = False,
        straight: bool = False,
        core: int = 0,
    ) -> RunResult:
        """Execute a program for its values.

        Args:
            program: from `load`.
            entry: its symbol.
            params: runtime parameters: rank, chip, then per row slot, position, valid, last, end.
            hazards: also look for hazards; commands that leave a memory are then reported and skipped.
            straight: prepare the whole run once and execute it as straight-line code (straight_line.py). The
                shared memories are then as after a run command by command, up to the order of sums, if the
                program has no hazards; what is in a core's own memories means nothing.
            core: which core runs it.

        Raises:
            UserError: with the offset and location of the command that cannot be executed.
        """
        prepared = self.cores[core].prepare(program)
        if hazards:
            return RunResult(*run_observed(prepared, entry, params))
        self.main.forget()
        return RunResult((prepared.run_straight if straight else prepared.run)(entry, params))

    def run_ranks(
        self,
        program: LoadedProgram,
        entry: str = "main",
        params: Sequence[int] = (),
        *,
        hazards: bool = False,
        straight: bool = False,
    ) -> RunResult:
        """Execute a program on all cores together, which meet where it says so.

        Args:
            params: as for `run`; rank and chip are each core's own.

        Raises:
            UserError: as `run`; deadlock when cores meet a different number of times.
        """
        together = Lockstep(len(self.cores))
        monitors = [Monitor(core) for core in self.cores] if hazards else []

        def run(rank: int) -> RunResult:
            core = self.cores[rank]
            own = core.place.parameters(params)
            core.meet = partial(self._meet, together, rank)
            if hazards:
                return RunResult(*run_observed(core.prepare(program), entry, own, monitors[rank]))
            return self.run(program, entry, own, straight=straight, core=rank)

        found = together.run([partial(run, rank) for rank in range(len(self.cores))])
        shared = check_cores(monitors)
        return RunResult(sum(r.commands for r in found), [*(h for r in found for h in r.hazards), *shared])

    def _meet(self, together: Lockstep, rank: int, scope: str) -> None:
        """Lets a core wait for those of its chip, or of the system."""
        together.exchange(rank, None, self.cores_per_chip if scope == "chip" else 0)

    def time(self, program: LoadedProgram, entry: str = "main", params: Sequence[int] = ()) -> Timeline:
        """The timing of a program that runs alone; needs no data.

        Raises:
            UserError: deadlock, naming the waiting commands.
        """
        return self.time_together([(program, entry, params)])[0]

    def time_ranks(self, program: LoadedProgram, entry: str, params: Sequence[int]) -> list[Timeline]:
        """The timings of a program on all cores together; rank and chip are each core's own.

        Raises:
            UserError: deadlock, naming the waiting commands.
        """
        runs = [(program, entry, core.place.parameters(params)) for core in self.cores]
        return self.time_together(runs)

    def time_together(self, runs: Sequence[tuple[LoadedProgram, str, Sequence[int]]]) -> list[Timeline]:
        """The timings of programs that run together, one per core, sharing the main memories' bandwidth.

        Raises:
            UserError: deadlock, naming the waiting commands.
        """
        chip_bytes = self.main.size // self.machine.chips_of(len(self.cores))
        return simulate(runs, chip_bytes=chip_bytes)
