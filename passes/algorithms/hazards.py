"""Which commands must wait for which: the ordering that in-order queues do not give by themselves.

A program is a tree of commands and loops. `find_edges` walks a barrier-free piece of it with each loop
unrolled for the few iterations that show every dependence distance, keeps for each command a vector clock
(per queue, how many commands are known to be finished when it starts), and records an `Edge` for each
conflict that the clock does not cover.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm, prod
from typing import NamedTuple


class Access(NamedTuple):
    """Bytes read or written: [start, stop) of ``space``; different spaces never overlap.

    With ``copies`` > 1 iteration i of ``loop`` uses the bytes (i mod copies) · ``stride`` further on; where
    the iteration is not known, because a barrier cuts the loop's body, all copies count.
    """

    space: str
    start: int
    stop: int
    copies: int = 1
    stride: int = 0
    loop: Loop | None = None


@dataclass(eq=False)
class Command:
    """A command of a queue; ``waits`` and ``signals`` are (semaphore, count).

    ``key`` is the caller's; a relay, which does nothing but wait and signal, has none.
    """

    queue: str
    reads: tuple[Access, ...] = ()
    writes: tuple[Access, ...] = ()
    key: object = None
    waits: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    signals: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


@dataclass(eq=False)
class Loop:
    """Runs ``body`` ``count`` ≥ 1 times."""

    count: int
    body: list[Item]
    key: object = None


@dataclass(eq=False)
class Barrier:
    """Everything before is finished and all semaphores are zero; ``key`` is the caller's, if any."""

    key: object = None


@dataclass(eq=False)
class Credit:
    """The sequencer adds ``count`` tokens to ``semaphore``."""

    semaphore: int
    count: int


Item = Command | Loop | Barrier | Credit


@dataclass(eq=False)
class Edge:
    """``sink`` waits for ``source`` of the iteration of ``loop`` that is ``distance`` earlier.

    Each execution of the source gives ``signal`` tokens, each of the sink takes ``wait``. ``direct`` if
    both stand in the same block, so that one token per execution does.
    """

    source: Command
    sink: Command
    loop: Loop | None
    distance: int
    signal: int = 1
    wait: int = 1
    direct: bool = True

    @property
    def credit(self) -> int:
        """Tokens that the sink takes before the first one meant for it."""
        return self.distance * max(self.signal, self.wait)


@dataclass(eq=False)
class Instance:
    """One execution of a command.

    Attributes:
        position: how many commands its queue ran before.
        order: how many commands the program has before.
        iterations: of each loop around it, outermost first.
        clock: per queue, how many of its commands are finished when this one starts.
    """

    command: Command
    position: int
    order: int
    iterations: tuple[int, ...]
    clock: dict[str, int]


class Trace:
    """Finds the edges of one barrier-free region; relays are inserted into it where edges need them."""

    def __init__(self, region: list[Item], tokens: int) -> None:
        self.region = region
        self.tokens = tokens
        self.edges: list[Edge] = []
        self.incoming: dict[Command, list[Edge]] = defaultdict(list)
        self.relays: dict[tuple[Loop, str, bool], Command] = {}
        self.loops: dict[Command, tuple[Loop, ...]] = {}
        self.last: dict[tuple[Command, tuple[int, ...]], Instance] = {}
        self.queues: dict[str, list[Instance]] = defaultdict(list)

    def find_edges(self) -> None:
        """Walk until a walk changes nothing that it has passed."""
        while True:
            self.loops = dict(commands_of(self.region))
            unrolled = unroll_counts(self.loops)
            conflicts = Conflicts(self.loops)
            self.last, self.queues = {}, defaultdict(list)
            if all(self._execute(*step, conflicts) for step in _steps(self.region, unrolled, ())):
                return

    def finished_before(self, command: Command, source: Command) -> bool:
        """Whether ``source`` is known to be finished for good when ``command`` starts for the last time."""
        sink, final = self.last.get((command, ())), self.last[source, ()]
        return sink is not None and sink.clock.get(source.queue, 0) > final.position

    def _execute(self, command: Command, iterations: tuple[int, ...], conflicts: Conflicts) -> bool:
        queue = self.queues[command.queue]
        clock = dict(queue[-1].clock) if queue else {}
        sink = Instance(command, len(queue), sum(map(len, self.queues.values())), iterations, clock)
        for edge in self.incoming[command]:
            self._learn(edge, sink)
        hazards = [self.queues[q][p] for q, p in conflicts.before(sink).items() if q != command.queue]
        for source in sorted(hazards, key=lambda s: -s.order):
            if clock.get(source.command.queue, 0) <= source.position and not self._connect(source, sink):
                return False
        queue.append(sink)
        conflicts.record(sink)
        for depth in range(len(iterations) + 1):
            self.last[command, iterations[:depth]] = sink
        return True

    def _learn(self, edge: Edge, sink: Instance) -> None:
        """Add to the sink's clock what the edge lets it know."""
        wanted: tuple[int, ...] = ()
        if edge.loop is not None:
            depth = self.loops[edge.source].index(edge.loop)
            wanted = (*sink.iterations[:depth], sink.iterations[depth] - edge.distance)
        source = self.last.get((edge.source, wanted))
        if source is not None:
            known = {**source.clock, source.command.queue: source.position + 1}
            for queue, count in known.items():
                sink.clock[queue] = max(sink.clock.get(queue, 0), count)

    def _connect(self, source: Instance, sink: Instance) -> bool:
        """Add the edge that orders the two; False if it needs a relay, which the walk has passed."""
        loop, distance, depth = _common(source, sink, self.loops)
        start, end = source.command, sink.command
        inner_start, inner_end = self.loops[start][depth:], self.loops[end][depth:]
        reach = max(distance, 1)
        if inner_end and (inner_start or executions(inner_end) * reach > self.tokens):
            end, inner_end = self._relay(inner_end[0], end.queue, before=True), ()
        if inner_start and executions(inner_start) * reach > self.tokens:
            start, inner_start = self._relay(inner_start[0], start.queue, before=False), ()
        runs = executions(inner_end), executions(inner_start)
        edge = Edge(start, end, loop, distance, *runs, direct=not (inner_start or inner_end))
        self.edges.append(edge)
        self.incoming[end].append(edge)
        if start is not source.command or end is not sink.command:
            return False
        self._learn(edge, sink)
        return True

    def _relay(self, loop: Loop, queue: str, *, before: bool) -> Command:
        """The relay of ``queue`` right before or after ``loop``."""
        if (loop, queue, before) not in self.relays:
            relay = self.relays[loop, queue, before] = Command(queue)
            block = block_of(self.region, loop)
            block.insert(block.index(loop) + (not before), relay)
        return self.relays[loop, queue, before]


class Conflicts:
    """Last reader and writer of every byte, per queue; bytes between two interval ends are one segment."""

    def __init__(self, loops: Mapping[Command, tuple[Loop, ...]]) -> None:
        self.loops = loops
        ends: dict[str, set[int]] = defaultdict(set)
        for command in loops:
            for access in (*command.reads, *command.writes):
                for k in range(access.copies):
                    shift = k * access.stride
                    ends[access.space] |= {access.start + shift, access.stop + shift}
        self.ends = {space: sorted(points) for space, points in ends.items()}
        self.readers: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
        self.writers: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)

    def before(self, sink: Instance) -> dict[str, int]:
        """Per queue the position of the last command that conflicts with ``sink``."""
        found: dict[str, int] = {}
        for segment in self._segments(sink, sink.command.reads):
            _latest(found, self.writers[segment])
        for segment in self._segments(sink, sink.command.writes):
            _latest(found, self.writers[segment])
            _latest(found, self.readers[segment])
        return found

    def record(self, instance: Instance) -> None:
        """Enter the accesses of a command that the walk passes."""
        for segment in self._segments(instance, instance.command.reads):
            self.readers[segment][instance.command.queue] = instance.position
        for segment in self._segments(instance, instance.command.writes):
            self.writers[segment][instance.command.queue] = instance.position

    def _segments(self, instance: Instance, accesses: Iterable[Access]) -> Iterator[tuple[str, int]]:
        around = self.loops[instance.command]
        for access in accesses:
            first = last = 0
            if access.loop in around:
                first = last = instance.iterations[around.index(access.loop)] % access.copies
            elif access.loop is not None:
                last = access.copies - 1
            ends = self.ends[access.space]
            start = bisect_left(ends, access.start + first * access.stride)
            for k in range(start, bisect_left(ends, access.stop + last * access.stride)):
                yield access.space, k


def commands_of(
    block: Sequence[Item], around: tuple[Loop, ...] = ()
) -> Iterator[tuple[Command, tuple[Loop, ...]]]:
    """Every command with the loops around it, outermost first."""
    for item in block:
        if isinstance(item, Command):
            yield item, around
        elif isinstance(item, Loop):
            yield from commands_of(item.body, (*around, item))


def block_of(block: list[Item], wanted: Item) -> list[Item]:
    """The block that holds an item somewhere below ``block``."""
    if wanted in block:
        return block
    inner = [item.body for item in block if isinstance(item, Loop) and contains(item, wanted)]
    return block_of(inner[0], wanted)


def contains(loop: Loop, wanted: Item) -> bool:
    """Whether an item stands in the loop's body, at any depth."""
    return any(item is wanted or (isinstance(item, Loop) and contains(item, wanted)) for item in loop.body)


def executions(loops: Sequence[Loop]) -> int:
    """How often something inside these loops runs."""
    return prod(loop.count for loop in loops)


def unroll_counts(loops: Mapping[Command, tuple[Loop, ...]]) -> dict[Loop, int]:
    """Iterations of each loop that show all its dependence distances and end with the real last copy."""
    periods = {loop: 1 for around in loops.values() for loop in around}
    for command in loops:
        for access in (*command.reads, *command.writes):
            if access.loop in periods:
                periods[access.loop] = lcm(periods[access.loop], access.copies)
    return {loop: min(loop.count, n + 1 + (loop.count - n - 1) % n) for loop, n in periods.items()}


def _steps(
    block: Sequence[Item], unrolled: Mapping[Loop, int], iterations: tuple[int, ...]
) -> Iterator[tuple[Command, tuple[int, ...]]]:
    for item in block:
        if isinstance(item, Command):
            yield item, iterations
        elif isinstance(item, Loop):
            for i in range(unrolled[item]):
                yield from _steps(item.body, unrolled, (*iterations, i))


def _common(
    source: Instance, sink: Instance, loops: Mapping[Command, tuple[Loop, ...]]
) -> tuple[Loop | None, int, int]:
    """The last loop that both are in up to one whose iterations differ, the difference, the loops passed."""
    loop, distance, depth = None, 0, 0
    for a, b in zip(loops[source.command], loops[sink.command], strict=False):
        if a is not b or distance:
            break
        loop, distance = a, sink.iterations[depth] - source.iterations[depth]
        depth += 1
    return loop, distance, depth


def _latest(found: dict[str, int], positions: Mapping[str, int]) -> None:
    for queue, position in positions.items():
        found[queue] = max(found.get(queue, -1), position)
