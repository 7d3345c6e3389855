"""What a run took: when each command ran on its queue, and what moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from npuc.runtime.simulator.program import LoadedProgram


class Interval(NamedTuple):
    """A command at work: its offset in the text, first cycle, and cycle in which it was done."""

    offset: int
    start: int
    end: int


@dataclass(frozen=True)
class Deadlock:
    """Nothing can happen any more: what waits, one text each, at a cycle."""

    cycle: int
    waiting: tuple[str, ...]

    def __str__(self) -> str:
        return f"nothing can happen after cycle {self.cycle}: {'; '.join(self.waiting)}"


@dataclass
class Timeline:
    """When what happened on one core.

    Attributes:
        program: what ran.
        cycles: until the last command was done and the sequencer halted.
        queues: queue → its commands, in order.
        stages: stage → cycles that commands spent in it, were each alone.
        dram_bytes: bytes moved from and to main memory.
        link_bytes: bytes moved from and to other chips.
        deadlock: set where the program did not come to its end.
    """

    program: LoadedProgram
    cycles: int = 0
    queues: dict[str, list[Interval]] = field(default_factory=dict[str, list[Interval]])
    stages: dict[str, int] = field(default_factory=dict[str, int])
    dram_bytes: int = 0
    link_bytes: int = 0
    deadlock: Deadlock | None = None

    @property
    def seconds(self) -> float:
        """The cycles as time."""
        return self.cycles / (self.program.machine.clock_ghz * 1e9)

    def busy(self, queue: str) -> int:
        """Cycles in which a queue was at work."""
        return sum(interval.end - interval.start for interval in self.queues[queue])
