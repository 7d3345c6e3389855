"""The time layer: event-driven and independent of data.

* The sequencer takes a cycle for each of its own commands and for each dispatch. A command is in its queue
  one cycle after its dispatch began; the dispatch waits while ``depth`` commands wait in the queue (the one
  that runs has left it).
* A queue starts its next command when the one before has finished and all tokens it waits for are there. In
  one cycle first commands finish, each followed by the starts that it allows (queues in the order of the
  machine description), then the sequencer steps.
* A command takes the cycles of the machine's cost model, and where it moves data between chips those of the
  link. Cores that run together share their chip's main memory and link: while they ask for more than its
  bandwidth, each gets its share, and what they do takes longer in proportion.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import NamedTuple

from npuc.backends.instruction import Instruction, SemaphoreUse
from npuc.backends.model import Cost
from npuc.ir.errors import UserError
from npuc.ir.meetings import CHIP
from npuc.runtime.simulator.plan import CopyPlan
from npuc.runtime.simulator.program import Item, LoadedProgram
from npuc.runtime.simulator.sequencer import Sequencer
from npuc.runtime.simulator.timeline import Deadlock, Interval, Timeline
from npuc.runtime.simulator.traffic import INWARD, MEMORY, OUTWARD, Chips, Demand, Resource

FINISH, STEP = 0, 1
ROUNDING = 1e-6  # cycles


class Job(NamedTuple):
    """A dispatched command: what it costs, what it waits for and signals.

    ``demand`` is bytes by what it shares with other cores, ``link_bytes`` what it moves between chips.
    """

    item: Item
    cost: Cost
    waits: tuple[SemaphoreUse, ...]
    signals: tuple[SemaphoreUse, ...]
    demand: Demand
    link_bytes: int

    @property
    def meets(self) -> str:
        """Whose cores must all be ready to start it; "" where it does not wait."""
        return self.item.plan.meet if isinstance(self.item.plan, CopyPlan) else ""


CostFunction = Callable[[Instruction], Cost]


def simulate(
    runs: Sequence[tuple[LoadedProgram, str, Sequence[int]]],
    *,
    cost: CostFunction | None = None,
    stops: bool = True,
    chip_bytes: int = 0,
) -> list[Timeline]:
    """Time programs that start together, one per core of a chip or of several chips.

    Args:
        runs: per core program, entry and runtime parameters.
        cost: what a command costs, by default what the machine says.
        stops: raise on a deadlock; else the timelines carry it.
        chip_bytes: how far apart the main memories of several chips are in addresses.

    Raises:
        UserError: deadlock, naming the waiting commands.
    """
    on_chip = runs[0][0].machine.cores_per_chip
    apart = chip_bytes if len(runs) > on_chip else 0
    places = [Chips(apart, rank // on_chip) for rank in range(len(runs))]
    engine = _Engine([_CoreTime(*run, cost, chips) for run, chips in zip(runs, places, strict=True)])
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
        self.rates: Demand = ()  # bytes per cycle it asks of what is shared
        self.speed = 1.0  # what it gets of that
        self.version = 0
        self.meetings: Counter[str] = Counter()  # that have begun or are waited for
        self.meeting = False  # whether what runs waits for other cores


class _CoreTime:
    """One core's sequencer, queues and semaphores."""

    def __init__(
        self,
        program: LoadedProgram,
        entry: str,
        params: Sequence[int],
        cost: CostFunction | None,
        chips: Chips,
    ) -> None:
        machine = program.machine
        self.program = program
        self.chips = chips
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
        known: dict[tuple[int, int, tuple[int, ...]], Job] = {}
        registers = sequencer.registers
        for position in sequencer.trace(entry, params):
            item = self.program.items[position]
            if item.plan is None:
                yield item
                continue
            extent = item.plan.extent(registers) if isinstance(item.plan, CopyPlan) else -1
            key = position, extent, self.chips.key(item.plan, registers)
            job = known.get(key)
            if job is None:
                plain = clipped_cost(item, extent, cost)
                found = self.chips.shared(self.program.machine, item.plan, plain, registers, extent)
                job = Job(item, found[0], item.instruction.waits, item.instruction.signals, *found[1:])
                known[key] = job
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
        machine = cores[0].program.machine
        link = machine.chip_link.bandwidth if machine.chip_link is not None else math.inf
        self.bandwidth = {MEMORY: machine.main.bandwidth or math.inf, INWARD: link, OUTWARD: link}
        self.moving: list[tuple[_CoreTime, _Queue]] = []
        self.meetings: dict[tuple[str, int, str, int], list[tuple[_CoreTime, _Queue]]] = {}

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
        assert queue.running is not None
        scope = queue.running.meets
        queue.meetings[scope] += 1
        queue.meeting = True
        chip = core.chips.own if scope == CHIP else 0
        key = scope, chip, queue.name, queue.meetings[scope]
        arrived = self.meetings.setdefault(key, [])
        arrived.append((core, queue))
        if len(arrived) == sum(scope != CHIP or other.chips.own == chip for other in self.cores):
            for other, its_queue in self.meetings.pop(key):
                its_queue.meeting = False
                assert its_queue.running is not None
                self._begin(other, its_queue, its_queue.running)

    def _begin(self, core: _CoreTime, queue: _Queue, job: Job) -> None:
        queue.started = queue.updated = self.now
        queue.left = job.cost.cycles
        queue.rates = tuple((what, count / max(job.cost.cycles, 1)) for what, count in job.demand)
        queue.speed = 1.0
        if queue.rates:
            self._share([*self.moving, (core, queue)])
        self._end(core, queue)

    def _end(self, core: _CoreTime, queue: _Queue) -> None:
        """Foresee the end of what runs in a queue."""
        queue.version += 1
        self._push(self.now + math.ceil(queue.left / queue.speed - ROUNDING), FINISH, core, queue)

    def _finish(self, core: _CoreTime, queue: _Queue) -> None:
        job, queue.running = queue.running, None
        assert job is not None
        if queue.rates:
            self._share([mover for mover in self.moving if mover[1] is not queue])
        timeline = core.timeline
        timeline.queues[queue.name].append(Interval(job.item.offset, queue.started, self.now))
        timeline.cycles = max(timeline.cycles, self.now)
        timeline.dram_bytes += job.cost.dram_bytes
        timeline.link_bytes += job.link_bytes
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
        """Change who moves data; where that changes how fast others do, their ends move."""
        for _, queue in self.moving:
            queue.left -= (self.now - queue.updated) * queue.speed
            queue.updated = self.now
        self.moving = moving
        asked: dict[Resource, float] = {}
        for _, queue in moving:
            for what, rate in queue.rates:
                asked[what] = asked.get(what, 0.0) + rate
        share = {what: min(1.0, self.bandwidth[what[0]] / rate) for what, rate in asked.items()}
        for core, queue in moving:
            speed = min(share[what] for what, _ in queue.rates)
            if speed != queue.speed:
                queue.speed = speed
                self._end(core, queue)


def signal_of(instruction: Instruction) -> SemaphoreUse:
    """The semaphore and count of the control command ``signal``."""
    fields = instruction.fields
    return SemaphoreUse(int(fields.get("sem", 0)), int(fields.get("n", 1)))  # type: ignore[arg-type]
