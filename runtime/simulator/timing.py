"""The time layer: event-driven and independent of data.

* The sequencer takes a cycle for each of its own commands and for each dispatch. A command is in its queue
  one cycle after its dispatch began; the dispatch waits while ``depth`` commands wait in the queue (the one
  that runs has left it).
* A queue starts its next command when the one before has finished and all tokens it waits for are there. In
  one cycle first commands finish, each followed by the starts that it allows (queues in the order of the
  machine description), then the sequencer steps.
* A command takes the cycles of the machine's cost model. Cores that run together share the main memory: while
  they ask for more than its bandwidth, each gets its share, and what they do takes longer in proportion.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import NamedTuple

from npuc.backends.instruction import Instruction, SemaphoreUse
from npuc.backends.model import Cost
from npuc.ir.errors import UserError
from npuc.runtime.simulator.plan import CopyPlan
from npuc.runtime.simulator.program import Item, LoadedProgram
from npuc.runtime.simulator.sequencer import Sequencer

FINISH, STEP = 0, 1
ROUNDING = 1e-6  # cycles


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
        deadlock: set where the program did not come to its end.
    """

    program: LoadedProgram
    cycles: int = 0
    queues: dict[str, list[Interval]] = field(default_factory=dict[str, list[Interval]])
    stages: dict[str, int] = field(default_factory=dict[str, int])
    dram_bytes: int = 0
    deadlock: Deadlock | None = None

    @property
    def seconds(self) -> float:
        """The cycles as time."""
        return self.cycles / (self.program.machine.clock_ghz * 1e9)

    def busy(self, queue: str) -> int:
        """Cycles in which a queue was at work."""
        return sum(interval.end - interval.start for interval in self.queues[queue])


class Job(NamedTuple):
    """A dispatched command: what it costs and what it waits for and signals."""

    item: Item
    cost: Cost
    waits: tuple[SemaphoreUse, ...]
    signals: tuple[SemaphoreUse, ...]

    @property
    def meets(self) -> bool:
        """Whether it starts only when all cores are ready to start it."""
        return isinstance(self.item.plan, CopyPlan) and self.item.plan.meet


CostFunction = Callable[[Instruction], Cost]


def simulate(
    runs: Sequence[tuple[LoadedProgram, str, Sequence[int]]],
    *,
    cost: CostFunction | None = None,
    stops: bool = True,
) -> list[Timeline]:
    """Time programs that start together, one per core of a chip.

    Args:
        runs: per core program, entry and runtime parameters.
        cost: what a command costs, by default what the machine says.
        stops: raise on a deadlock; else the timelines carry it.

    Raises:
        UserError: deadlock, naming the waiting commands.
    """
    engine = _Engine([_CoreTime(*run, cost) for run in runs])
    engine.run()
    timelines = [core.timeline for core in engine.cores]
    for timeline in timelines:
        if stops and timeline.deadlock is not None:
            raise UserError("deadlock", str(timeline.deadlock))
    return timelines


class _Queue:
    """A queue: waiting jobs, and the one that runs. ``version`` is that of its end, which may be moved."""

    def __init__(self, name: str, depth: int) -> None:
        self.name = name
        self.depth = depth
        self.waiting: deque[Job] = deque()
        self.running: Job | None = None
        self.started = 0
        self.updated = 0
        self.left = 0.0  # cycles of work left at ``updated``, at full speed
        self.rate = 0.0  # bytes per cycle it asks of the main memory
        self.version = 0
        self.meetings = 0  # that have begun or are waited for
        self.meeting = False  # whether what runs waits for other cores


class _CoreTime:
    """One core's sequencer, queues and semaphores."""

    def __init__(
        self, program: LoadedProgram, entry: str, params: Sequence[int], cost: CostFunction | None
    ) -> None:
        machine = program.machine
        self.program = program
        self.queues = {name: _Queue(name, queue.depth) for name, queue in machine.queues.items()}
        self.semaphores = [0] * machine.semaphores
        self.timeline = Timeline(program, queues={name: [] for name in self.queues})
        self.jobs = self._jobs(entry, params, cost or machine.cost)
        self.arriving: Job | SemaphoreUse | None = None  # takes effect with the sequencer's next step
        self.next: Job | Item | None = None
        self.blocked = False
        self.halted = False

    def _jobs(self, entry: str, params: Sequence[int], cost: CostFunction) -> Iterator[Job | Item]:
        """What the sequencer meets: a job to dispatch, or one of its own commands."""
        sequencer = Sequencer(self.program)
        known: dict[tuple[int, int], Job] = {}
        for position in sequencer.trace(entry, params):
            item = self.program.items[position]
            if item.plan is None:
                yield item
                continue
            extent = item.plan.extent(sequencer.registers) if isinstance(item.plan, CopyPlan) else -1
            job = known.get((position, extent))
            if job is None:
                found = clipped_cost(item, extent, cost)
                job = Job(item, found, item.instruction.waits, item.instruction.signals)
                known[position, extent] = job
            yield job

    @property
    def idle(self) -> bool:
        return not any(queue.waiting or queue.running for queue in self.queues.values())

    def waiting(self) -> tuple[str, ...]:
        """What does not go on, one text each."""
        found: list[str] = []
        for queue in self.queues.values():
            if queue.meeting and queue.running is not None:
                found.append(f"{queue.running.item.where} on queue {queue.name} waits for the other cores")
            if queue.waiting and queue.running is None:
                needs = " and ".join(
                    f"{count} of semaphore {semaphore}, which holds {self.semaphores[semaphore]}"
                    for semaphore, count in queue.waiting[0].waits
                    if self.semaphores[semaphore] < count
                )
                found.append(f"{queue.waiting[0].item.where} on queue {queue.name} waits for {needs}")
        if isinstance(self.next, Job):
            found.append(f"the sequencer waits to dispatch {self.next.item.where}: its queue is full")
        elif self.next is not None:
            held = "".join(f"; semaphore {i} holds {n}" for i, n in enumerate(self.semaphores) if n)
            found.append(f"{self.next.where} waits for idle queues and empty semaphores{held}")
        return tuple(found)


def clipped_cost(item: Item, extent: int, cost: CostFunction) -> Cost:
    """What a command costs; a copy whose limit comes from a register moves only ``extent`` steps."""
    plan = item.plan
    if not isinstance(plan, CopyPlan) or plan.limit is None:
        return cost(item.instruction)
    fields = {**item.instruction.fields, "limit": max(extent, 1)}
    found = cost(replace(item.instruction, fields=fields))
    if extent > 0:
        return found
    return Cost(found.cycles - max(found.stages.values(), default=0), {}, 0)  # base and drain


class _Engine:
    """The events of all cores."""

    def __init__(self, cores: list[_CoreTime]) -> None:
        self.cores = cores
        self.events: list[tuple[int, int, int, _CoreTime, _Queue | None, int]] = []
        self.count = 0
        self.now = 0
        self.bandwidth = cores[0].program.machine.main.bandwidth or math.inf
        self.factor = 1.0  # speed of what moves from and to the main memory
        self.moving: list[tuple[_CoreTime, _Queue]] = []
        self.meetings: dict[tuple[str, int], list[tuple[_CoreTime, _Queue]]] = {}

    def run(self) -> None:
        for core in self.cores:
            self._push(0, STEP, core)
        while self.events:
            self.now, _, _, core, queue, version = heappop(self.events)
            if queue is None:
                self._step(core)
            elif version == queue.version:
                self._finish(core, queue)
        for core in self.cores:
            if not core.halted or not core.idle:
                core.timeline.deadlock = Deadlock(self.now, core.waiting())

    def _push(self, time: int, kind: int, core: _CoreTime, queue: _Queue | None = None) -> None:
        self.count += 1
        version = 0 if queue is None else queue.version
        heappush(self.events, (time, kind, self.count, core, queue, version))

    # The sequencer

    def _step(self, core: _CoreTime) -> None:
        """The last dispatch or signal takes effect; then the next command, or the next wait."""
        arriving, core.arriving = core.arriving, None
        if isinstance(arriving, Job):
            queue = core.queues[arriving.item.instruction.queue]
            queue.waiting.append(arriving)
            self._start(core, queue)
        elif arriving is not None:
            core.semaphores[arriving.semaphore] += arriving.count
            self._start_all(core)
        time = self.now
        core.blocked = False
        while True:
            if core.next is None:
                core.next = next(core.jobs, None)
            if core.next is None:
                return
            if time > self.now and self._interacts(core.next):
                self._push(time, STEP, core)
                return
            if not self._accepts(core, core.next):
                core.blocked = True
                return
            taken, core.next = core.next, None
            time += 1
            core.timeline.cycles = max(core.timeline.cycles, time)
            if isinstance(taken, Job):
                core.arriving = taken
            elif taken.instruction.command == "signal":
                core.arriving = signal_of(taken.instruction)
            elif taken.instruction.command == "halt":
                core.halted = True
            if core.arriving is not None:
                self._push(time, STEP, core)
                return

    def _interacts(self, job: Job | Item) -> bool:
        """Whether when it happens matters to more than the sequencer."""
        return isinstance(job, Job) or job.instruction.command in ("barrier", "signal")

    def _accepts(self, core: _CoreTime, job: Job | Item) -> bool:
        if isinstance(job, Job):
            queue = core.queues[job.item.instruction.queue]
            return len(queue.waiting) < queue.depth
        return job.instruction.command != "barrier" or (core.idle and not any(core.semaphores))

    def _wake(self, core: _CoreTime) -> None:
        if core.blocked and core.next is not None and self._accepts(core, core.next):
            core.blocked = False
            self._push(self.now, STEP, core)

    # Queues

    def _start_all(self, core: _CoreTime) -> None:
        for queue in core.queues.values():
            if queue.waiting and queue.running is None:
                self._start(core, queue)

    def _start(self, core: _CoreTime, queue: _Queue) -> None:
        semaphores = core.semaphores
        if queue.running is not None or not queue.waiting:
            return
        if any(semaphores[semaphore] < count for semaphore, count in queue.waiting[0].waits):
            return
        job = queue.running = queue.waiting.popleft()
        for semaphore, count in job.waits:
            semaphores[semaphore] -= count
        if job.meets and len(self.cores) > 1:
            self._meet(core, queue)
        else:
            self._begin(core, queue, job)
        self._wake(core)

    def _meet(self, core: _CoreTime, queue: _Queue) -> None:
        """Wait, or begin together with the cores that wait for this one."""
        queue.meetings += 1
        queue.meeting = True
        arrived = self.meetings.setdefault((queue.name, queue.meetings), [])
        arrived.append((core, queue))
        if len(arrived) == len(self.cores):
            for other, its_queue in self.meetings.pop((queue.name, queue.meetings)):
                its_queue.meeting = False
                assert its_queue.running is not None
                self._begin(other, its_queue, its_queue.running)

    def _begin(self, core: _CoreTime, queue: _Queue, job: Job) -> None:
        queue.started = queue.updated = self.now
        queue.left = job.cost.cycles
        queue.rate = job.cost.dram_bytes / max(job.cost.cycles, 1)
        if queue.rate:
            self._share([*self.moving, (core, queue)])
        self._end(core, queue)

    def _end(self, core: _CoreTime, queue: _Queue) -> None:
        """Foresee the end of what runs in a queue."""
        speed = self.factor if queue.rate else 1.0
        queue.version += 1
        self._push(self.now + math.ceil(queue.left / speed - ROUNDING), FINISH, core, queue)

    def _finish(self, core: _CoreTime, queue: _Queue) -> None:
        job, queue.running = queue.running, None
        assert job is not None
        if queue.rate:
            self._share([mover for mover in self.moving if mover[1] is not queue])
        timeline = core.timeline
        timeline.queues[queue.name].append(Interval(job.item.offset, queue.started, self.now))
        timeline.cycles = max(timeline.cycles, self.now)
        timeline.dram_bytes += job.cost.dram_bytes
        for stage, cycles in job.cost.stages.items():
            timeline.stages[stage] = timeline.stages.get(stage, 0) + cycles
        for semaphore, count in job.signals:
            core.semaphores[semaphore] += count
        if job.signals:
            self._start_all(core)
        else:
            self._start(core, queue)
        self._wake(core)

    def _share(self, moving: list[tuple[_CoreTime, _Queue]]) -> None:
        """Change who moves data; if that changes how fast all do, their ends move."""
        for _, queue in self.moving:
            queue.left -= (self.now - queue.updated) * self.factor
            queue.updated = self.now
        self.moving = moving
        asked = sum(queue.rate for _, queue in moving)
        factor = min(1.0, self.bandwidth / asked) if asked else 1.0
        if factor != self.factor:
            self.factor = factor
            for core, queue in moving:
                self._end(core, queue)


def signal_of(instruction: Instruction) -> SemaphoreUse:
    """The semaphore and count of the control command ``signal``."""
    fields = instruction.fields
    return SemaphoreUse(int(fields.get("sem", 0)), int(fields.get("n", 1)))  # type: ignore[arg-type]
