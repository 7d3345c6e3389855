"""The hazard layer: what a program may not do, found while it is executed for values.

It keeps its own account of a run, apart from the schedule and from the time layer:

* commands that leave a memory, and reads of bytes that nobody wrote (masked elements do not count);
* conflicting accesses of two queues that neither queue order, semaphores nor a barrier put in program order:
  at least one writes, and a byte belongs to both. Program order is what the function layer executes, so a
  pair that is ordered the other way round is a hazard as well;
* tokens that are left in a semaphore at a barrier or at the end, and deadlocks.

Local memories count as unwritten when a program starts. Each hazard is reported once per pair of commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from npuc.backends.model import Cost
from npuc.ir.errors import UserError
from npuc.runtime.simulator.footprint import Footprint, copy_footprints, pass_footprints
from npuc.runtime.simulator.function import Core, PreparedProgram
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.order import Event, order_events
from npuc.runtime.simulator.plan import CopyPlan, PassPlan
from npuc.runtime.simulator.program import Item
from npuc.runtime.simulator.timing import signal_of, simulate

MOST = 100  # hazards reported of one run


@dataclass(frozen=True)
class Hazard:
    """A hazard.

    Attributes:
        kind: race, reversed, unwritten, out-of-bounds, leak or deadlock.
        text: one paragraph that says everything.
        commands: the commands concerned, first in program order first.
        memory: the memory concerned, "" if none.
        low, high: bytes concerned, [low, high) at a slice's local addresses.
        slice: the slice where the first of them lie.
    """

    kind: str
    text: str
    commands: tuple[Item, ...] = ()
    memory: str = ""
    low: int = 0
    high: int = 0
    slice: int = 0

    def __str__(self) -> str:
        return self.text


def run_observed(
    program: PreparedProgram, entry: str, params: Sequence[int], monitor: Monitor | None = None
) -> tuple[int, list[Hazard]]:
    """Execute a program and look for hazards; returns the commands executed and the hazards.

    Commands that leave a memory are skipped.

    Args:
        monitor: of the core, where several cores run the program.

    Raises:
        UserError: as `PreparedProgram.run`, except out-of-bounds.
    """
    monitor = monitor or Monitor(program.core)
    executed = 0
    for position in program.sequencer.trace(entry, params):
        item = program.program.items[position]
        if item.plan is None:
            monitor.control(item)
            continue
        if isinstance(item.plan, CopyPlan) and item.plan.meet:
            program.core.meet(item.plan.meet)
        try:
            footprints = monitor.footprints(item.plan, program.sequencer.registers)
            monitor.before(item, footprints)
            program.execute(position)
        except UserError as error:
            if error.kind != "out-of-bounds":
                raise
            monitor.report("out-of-bounds", f"{item.where}: {error.message}", (item,))
            footprints = []
        monitor.after(item, footprints)
        executed += 1
    monitor.finish()
    timeline = simulate([(program.program, entry, params)], cost=lambda _: Cost(1, {}, 0), stops=False)[0]
    if timeline.deadlock is not None:
        monitor.report("deadlock", "; ".join(timeline.deadlock.waiting))
    return executed, monitor.hazards


class Meetings(NamedTuple):
    """How often a queue has met those of its chip, in whatever company, and those of all chips."""

    chip: int = 0
    system: int = 0

    def after(self, scope: str) -> Meetings:
        """With one more."""
        return Meetings(self.chip + 1, self.system + (scope == "system"))


class SharedAccess(NamedTuple):
    """An access to a memory that several cores see, the core's chip, and its queue's meetings before it."""

    item: Item
    footprint: Footprint
    chip: int
    meetings: Meetings

    def apart(self, other: SharedAccess) -> bool:
        """Whether both cores met between this and another core's access."""
        if self.item.instruction.queue != other.item.instruction.queue:
            return False
        if self.chip == other.chip:
            return self.meetings.chip != other.meetings.chip
        return self.meetings.system != other.meetings.system


def check_cores(monitors: Sequence[Monitor]) -> list[Hazard]:
    """Conflicting accesses of two cores between which the cores have not met, once per pair of commands."""
    found: dict[tuple[int, int], Hazard] = {}
    for (a, one), (b, two) in permutations(enumerate(monitors), 2):
        for write in (access for access in one.shared if access.footprint.writes):
            for other in two.shared:
                key = write.item.offset, other.item.offset
                if key in found or len(found) >= MOST or write.apart(other):
                    continue
                shared = write.footprint.overlap(other.footprint)
                if shared is not None:
                    place = _place(write.footprint.memory, *shared)
                    text = (
                        f"{write.item.where} of core {a} writes {_bytes(*place)}, and {other.item.where} of "
                        f"core {b} {_does(other.footprint)} the same bytes; the cores do not meet in between"
                    )
                    hazard = Hazard("race", text, (write.item, other.item), place[0], place[2], place[3])
                    found[key] = hazard
    return list(found.values())


class Monitor:
    """The account of one run on one core."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.hazards: list[Hazard] = []
        self.lanes = {name: number for number, name in enumerate((*core.machine.queues, "control"))}
        self.written = {
            name: memory.track(afresh=not memory.spec.main) for name, memory in core.memories.items()
        }
        self._seen: set[tuple[object, ...]] = set()
        self._events: list[Event] = []  # of the stretch since the last barrier
        self._numbers = [0] * len(self.lanes)
        self._last: Item | None = None
        self.shared: list[SharedAccess] = []
        self._met: dict[str, Meetings] = {}

    def footprints(self, plan: PassPlan | CopyPlan, registers: Sequence[int]) -> list[Footprint]:
        """What a command reads and writes with these registers.

        Raises:
            UserError: out-of-bounds or misaligned.
        """
        if isinstance(plan, PassPlan):
            return pass_footprints(plan, self.core.memories, registers)
        return copy_footprints(plan, self.core.memories, registers)

    def before(self, item: Item, footprints: Sequence[Footprint]) -> None:
        """Check that what a command reads was written."""
        for read in footprints:
            if read.writes or ("unwritten", item.offset, read.plan.name) in self._seen:
                continue
            byte = read.unwritten(self.written[read.memory.name])
            if byte is not None:
                self._seen.add(("unwritten", item.offset, read.plan.name))
                place = _place(read.memory, byte, byte + read.plan.item)
                text = f"{item.where}: {read.plan.name} reads {_bytes(*place)}, which nothing has written"
                self.report("unwritten", text, (item,), *place)

    def after(self, item: Item, footprints: list[Footprint]) -> None:
        """Note what a command wrote, and the command."""
        for footprint in footprints:
            if footprint.writes:
                footprint.mark(self.written[footprint.memory.name])
        instruction = item.instruction
        if not self.core.place.alone:
            self._note_shared(item, footprints)
        self._add(self.lanes[instruction.queue], instruction.waits, instruction.signals, (item, footprints))
        self._last = item

    def _note_shared(self, item: Item, footprints: Sequence[Footprint]) -> None:
        """Note accesses to memories that other cores see, and how often their queue has met before."""
        queue = item.instruction.queue
        met = self._met.get(queue, Meetings())
        if isinstance(item.plan, CopyPlan) and item.plan.meet:
            met = self._met[queue] = met.after(item.plan.meet)
        for footprint in footprints:
            if footprint.memory.name not in self.core.own:
                self.shared.append(SharedAccess(item, footprint, self.core.place.chip, met))

    def control(self, item: Item) -> None:
        """A command of the sequencer."""
        if item.instruction.command == "signal":
            self._add(self.lanes["control"], (), (signal_of(item.instruction),), (item, []))
        elif item.instruction.command in ("barrier", "halt"):
            self._last = item
            self.finish()

    def finish(self) -> None:
        """The end of a stretch: check its order and its semaphores."""
        events, self._events = self._events, []
        self._numbers = [0] * len(self.lanes)
        order_events(events, len(self.lanes))
        self._check_order(events)
        self._check_tokens(events)

    def report(
        self,
        kind: str,
        text: str,
        commands: tuple[Item, ...] = (),
        memory: str = "",
        at_slice: int = 0,
        low: int = 0,
        high: int = 0,
    ) -> None:
        """Add a hazard, unless there are too many already."""
        if len(self.hazards) < MOST:
            self.hazards.append(Hazard(kind, text, commands, memory, low, high, at_slice))

    def _add(self, lane: int, waits: object, signals: object, payload: object) -> None:
        event = Event(lane, self._numbers[lane], waits, signals, payload)  # type: ignore[arg-type]
        self._numbers[lane] += 1
        self._events.append(event)

    def _check_order(self, events: Sequence[Event]) -> None:
        """Report conflicts of commands that are not known to run in program order."""
        lanes: list[list[Event]] = [[] for _ in self.lanes]
        for event in events:
            for lane, earlier in enumerate(lanes):
                if lane != event.lane:
                    for other in earlier[event.clock[lane] :]:
                        self._check_pair(other, event)
            lanes[event.lane].append(event)

    def _check_pair(self, first: Event, second: Event) -> None:
        (one, one_ports), (two, two_ports) = first.payload, second.payload
        if (one.offset, two.offset) in self._seen:
            return
        for a in one_ports:
            for b in two_ports:
                shared = a.overlap(b) if a.writes or b.writes else None
                if shared is not None:
                    self._seen.add((one.offset, two.offset))
                    self._report_conflict(first, second, a, b, shared)
                    return

    def _report_conflict(
        self, first: Event, second: Event, a: Footprint, b: Footprint, shared: tuple[int, int]
    ) -> None:
        one, two = first.payload[0], second.payload[0]
        place = _place(a.memory, *shared)
        reversed_ = first.after(second)
        what = f"{one.where} on queue {one.instruction.queue} {_does(a)}"
        then = f"{two.where} on queue {two.instruction.queue} {_does(b)}"
        order = (
            "semaphores make the second finish before the first starts, against program order"
            if reversed_
            else "nothing makes the first finish before the second starts"
        )
        text = f"{what} {_bytes(*place)}, and {then} the same bytes; {order}"
        self.report("reversed" if reversed_ else "race", text, (one, two), *place)

    def _check_tokens(self, events: Sequence[Event]) -> None:
        left: dict[int, int] = {}
        signaller: dict[int, Item] = {}
        for event in events:
            for semaphore, count in event.signals:
                left[semaphore] = left.get(semaphore, 0) + count
                signaller[semaphore] = event.payload[0]
            for semaphore, count in event.waits:
                left[semaphore] = left.get(semaphore, 0) - count
        for semaphore, count in left.items():
            where = self._last.where if self._last else "the end"
            if count > 0 and ("leak", semaphore, where) not in self._seen:
                self._seen.add(("leak", semaphore, where))
                last = signaller[semaphore]
                text = f"semaphore {semaphore} holds {count} at {where}, signalled last by {last.where}"
                self.report("leak", text, (last,))


def _place(memory: SimulatedMemory, low: int, high: int) -> tuple[str, int, int, int]:
    """Memory, slice and local addresses of storage bytes."""
    at_slice, start = memory.place(low)
    return memory.name, at_slice, start, start + high - low


def _bytes(memory: str, at_slice: int, low: int, high: int) -> str:
    where = f"slice {at_slice} of {memory}" if at_slice else memory
    return f"bytes {low:#x} to {high - 1:#x} of {where}"


def _does(footprint: Footprint) -> str:
    return f"{'writes' if footprint.writes else 'reads'} ({footprint.plan.name})"
