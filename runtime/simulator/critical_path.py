"""Why a program takes as long as it does: the chain of commands that each waited for the one before."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from npuc.backends.instruction import Instruction
from npuc.runtime.simulator.timeline import Timeline

SEQUENCER = "sequencer"
FIXED = "fixed"


class Place(NamedTuple):
    """A command at work: its queue and its number there."""

    queue: str
    number: int


@dataclass(frozen=True)
class Link:
    """A stretch of the critical path; all of them together are the program's time.

    Attributes:
        queue: where it was spent; the sequencer's share is what dispatching took.
        location: the command's operation and module, "" for the sequencer's.
        fixed, data: cycles that the command takes however little it does, and those of its slowest stage.
        stage: that stage.
    """

    queue: str
    location: str
    fixed: int
    data: int
    stage: str

    @property
    def cycles(self) -> int:
        """The whole stretch."""
        return self.fixed + self.data


class CriticalPath:
    """Finds what each command of a timeline waited for.

    A command starts when the one before it in its queue is done, or when the last token that it waits for
    comes, or when it is dispatched; then the sequencer waited for a full queue or a barrier, that is for
    whatever had finished last.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.ends = sorted(
            (interval.end, Place(queue, number))
            for queue, intervals in timeline.queues.items()
            for number, interval in enumerate(intervals)
        )
        self.times = [end for end, _ in self.ends]

    def links(self) -> Iterator[Link]:
        """The path, from the end of the program to its start."""
        if not self.ends:
            return
        place: Place | None = self.ends[-1][1]
        if rest := self.timeline.cycles - self.ends[-1][0]:
            yield _dispatch(rest)
        while place is not None:
            yield self._link(place)
            start = self.timeline.queues[place.queue][place.number].start
            place = self.cause(place)
            end = 0 if place is None else self.timeline.queues[place.queue][place.number].end
            if start > end:
                yield _dispatch(start - end)

    def cause(self, place: Place) -> Place | None:
        """The command that had to be done before this one could start; None where nothing had run."""
        start = self.timeline.queues[place.queue][place.number].start
        before = Place(place.queue, place.number - 1)
        if place.number and self.timeline.queues[place.queue][place.number - 1].end == start:
            return before
        waits = {semaphore for semaphore, _ in self.instruction(place).waits}
        first, last = bisect_left(self.times, start), bisect_right(self.times, start)
        for _, other in self.ends[first:last]:
            if waits & {semaphore for semaphore, _ in self.instruction(other).signals}:
                return other
        # Commands of no duration end where they start; what is before in the list has started before.
        earlier = (self.ends[i][1] for i in range(last - 1, -1, -1))
        return next((other for other in earlier if self._started(other) < start), None)

    def waits_of(self, queue: str) -> Counter[str]:
        """Cycles in which a queue idles, by the location of what it then waits for."""
        idle = Counter[str]()
        end = 0
        for number, interval in enumerate(self.timeline.queues[queue]):
            if interval.start > end:
                cause = self.cause(Place(queue, number))
                where = SEQUENCER if cause is None else f"{cause.queue} {self.location(cause)}"
                idle[where] += interval.start - end
            end = interval.end
        if self.timeline.cycles > end and self.ends:
            last = self.ends[-1][1]
            idle[f"{last.queue} {self.location(last)}"] += self.timeline.cycles - end
        return idle

    def instruction(self, place: Place) -> Instruction:
        """A place's command."""
        program = self.timeline.program
        interval = self.timeline.queues[place.queue][place.number]
        return program.items[program.index[interval.offset]].instruction

    def location(self, place: Place) -> str:
        """A place's operation and module."""
        instruction = self.instruction(place)
        return instruction.location or instruction.command

    def _started(self, place: Place) -> int:
        return self.timeline.queues[place.queue][place.number].start

    def _link(self, place: Place) -> Link:
        interval = self.timeline.queues[place.queue][place.number]
        stages = self.timeline.program.machine.cost(self.instruction(place)).stages
        slowest = max(stages, key=lambda name: stages[name], default="")
        cycles = interval.end - interval.start
        data = min(cycles, stages.get(slowest, 0))
        return Link(place.queue, self.location(place), cycles - data, data, slowest)


def _dispatch(cycles: int) -> Link:
    return Link(SEQUENCER, "", cycles, 0, "")
