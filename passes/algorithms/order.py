"""List scheduling: an order of commands in which in-order queues overlap.

Commands that are ready are started by the longest path behind them, on queues simulated with the commands'
costs; a command waits while the buffers it begins would overfill a memory. What a command takes itself does
not count: of two for one queue that one goes first behind which more is left (J. R. Jackson, "Scheduling a
production line to minimize maximum tardiness", 1955).

Three rules may beat that, and are tried. Where the given order says in which turn the busiest queue had
better do what it could do at any time, paths run along that queue too: what it needs first is urgent first.
Or of what is ready the first in the given order goes first: of groups that wait for other cores in turn one
is ahead then. And what runs ahead of everything fills a memory less, so that there is room for what is to be
done meanwhile.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

SHARES = (1.0, 0.75, 0.5)
"""Of a memory's budget, for the buffers of commands that wait for none."""
NOTHING = 1.01
"""What counts as no difference between two schedules: the first one tried is taken."""


@dataclass(frozen=True)
class Node:
    """A command, or a loop that is scheduled as one.

    Attributes:
        queues: the queues it occupies; a loop may occupy several.
        cycles: for how long.
        after: positions of the nodes that must come before it.
        buffers: what it touches.
    """

    queues: tuple[str, ...]
    cycles: int
    after: tuple[int, ...] = ()
    buffers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Space:
    """Where a buffer lies and how large it is."""

    memory: str
    size: int


class _Memory:
    """Bytes in use while nodes are started in turn."""

    def __init__(self, nodes: Sequence[Node], spaces: Mapping[str, Space]) -> None:
        self.spaces = spaces
        self.used: dict[str, int] = defaultdict(int)
        self.remaining: dict[str, int] = defaultdict(int)
        self.alive: set[str] = set()
        for node in nodes:
            for name in node.buffers:
                self.remaining[name] += 1

    def copy(self) -> _Memory:
        """A memory in the same state."""
        other = _Memory((), self.spaces)
        other.used.update(self.used)
        other.remaining.update(self.remaining)
        other.alive.update(self.alive)
        return other

    def begun_by(self, node: Node) -> Counter[str]:
        """Bytes per memory of the buffers that the node is the first to touch."""
        found: Counter[str] = Counter()
        for name in node.buffers:
            if name not in self.alive:
                found[self.spaces[name].memory] += self.spaces[name].size
        return found

    def start(self, node: Node) -> dict[str, int]:
        """Begin the node's buffers and end those that no later node touches; returns the bytes between."""
        for memory, size in self.begun_by(node).items():
            self.used[memory] += size
        self.alive.update(node.buffers)
        used = dict(self.used)
        for name in node.buffers:
            self.remaining[name] -= 1
            if not self.remaining[name]:
                self.used[self.spaces[name].memory] -= self.spaces[name].size
        return used

    def stays_within(self, budgets: Mapping[str, int], nodes: Iterable[Node]) -> bool:
        """Whether these nodes can all be started in this order."""
        later = self.copy()
        return all(
            size <= budgets.get(memory, 0) for node in nodes for memory, size in later.start(node).items()
        )


@dataclass
class _Schedule:
    """One simulation of the queues.

    Attributes:
        urgency: of each node; of those that can start at the same time the highest goes first.
        budgets: bytes per memory.
        ahead: bytes per memory that may be in use when a node begins buffers that waits for no other.
        order: positions of the nodes started so far.
        finish: when they are done.
        busy: until when each queue is.
        ends: per memory, when buffers that no later node touches are no longer in use, and their bytes.
    """

    nodes: Sequence[Node]
    spaces: Mapping[str, Space]
    urgency: Sequence[int]
    budgets: Mapping[str, int]
    ahead: Mapping[str, int]
    order: list[int] = field(default_factory=list[int])
    finish: dict[int, int] = field(default_factory=dict[int, int])
    busy: dict[str, int] = field(default_factory=dict[str, int])
    ends: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def cycles(self) -> int:
        """When everything is done."""
        return max(self.finish.values(), default=0)

    def run(self) -> _Schedule:
        """Starts all nodes."""
        self.memory = _Memory(self.nodes, self.spaces)
        self.in_use: dict[str, int] = defaultdict(int)
        waiting = {i: set(node.after) for i, node in enumerate(self.nodes)}
        while waiting:
            start = {i: self._start(i) for i, before in waiting.items() if not before}
            candidates = sorted(start, key=lambda i: (start[i], -self.urgency[i], i))
            chosen = next(i for i in candidates if self._may_start(i, waiting))
            self._take(chosen, start[chosen])
            del waiting[chosen]
            for before in waiting.values():
                before.discard(chosen)
        return self

    def _start(self, i: int) -> int:
        """When a node could start whose predecessors have."""
        node = self.nodes[i]
        times = [self.finish[b] for b in node.after] + [self.busy.get(q, 0) for q in node.queues]
        return max([*times, *self._room(node), 0])

    def _room(self, node: Node) -> Iterator[int]:
        """When each memory has room for the buffers that a node begins."""
        for memory, size in self.memory.begun_by(node).items():
            room = self._budget(node).get(memory, 0) - self.memory.used[memory] - size
            for end, held in reversed(self.ends[memory]):
                room -= held
                if room < 0:
                    yield end
                    break

    def _budget(self, node: Node) -> Mapping[str, int]:
        return self.budgets if node.after else self.ahead

    def _may_start(self, i: int, waiting: Iterable[int]) -> bool:
        """Whether the others can follow in the given order; true of the first of them, by induction."""
        others = [k for k in waiting if k != i]
        begun = self.memory.begun_by(self.nodes[i])
        if not begun or not others or i < others[0]:
            return True
        budget = self._budget(self.nodes[i])
        if any(self.memory.used[memory] + size > budget.get(memory, 0) for memory, size in begun.items()):
            return False
        return self.memory.stays_within(self.budgets, (self.nodes[k] for k in (i, *others)))

    def _take(self, i: int, start: int) -> None:
        node, end = self.nodes[i], start + self.nodes[i].cycles
        self.order.append(i)
        self.finish[i] = end
        self.busy.update(dict.fromkeys(node.queues, end))
        self.memory.start(node)
        for name in node.buffers:
            self.in_use[name] = max(self.in_use[name], end)
            if not self.memory.remaining[name]:
                insort(self.ends[self.spaces[name].memory], (self.in_use[name], self.spaces[name].size))


def order(nodes: Sequence[Node], spaces: Mapping[str, Space], budgets: Mapping[str, int]) -> list[int]:
    """Positions of the nodes in the order in which to issue them.

    A node that begins a buffer goes ahead of others only if these can still be started in the given order
    afterwards; so the budgets hold wherever they hold for the given order.

    Args:
        nodes: in some valid order.
        spaces: of the buffers whose lifetime lies within the nodes.
        budgets: bytes that such buffers may take per memory.
    """
    tried: list[_Schedule] = []
    rules = [
        [path - node.cycles for path, node in zip(_longest_paths(related), nodes, strict=True)]
        for related in (nodes, _in_turn(nodes))
    ]
    rules.append([-number for number in range(len(nodes))])
    for urgency in rules:
        for share in SHARES:
            ahead = {memory: int(share * size) for memory, size in budgets.items()}
            tried.append(_Schedule(nodes, spaces, urgency, budgets, ahead).run())
    least = min(schedule.cycles for schedule in tried)
    return next(schedule.order for schedule in tried if schedule.cycles <= NOTHING * least)


def _in_turn(nodes: Sequence[Node]) -> list[Node]:
    """The nodes as if the busiest queue had to run its own in the given order."""
    total: Counter[str] = Counter()
    for node in nodes:
        total.update(dict.fromkeys(node.queues, node.cycles))
    busiest = max(total, key=lambda queue: total[queue], default="")
    found, last = list(nodes), ()
    for i, node in enumerate(nodes):
        if busiest in node.queues:
            found[i], last = replace(node, after=(*node.after, *last)), (i,)
    return found


def reordered(nodes: Sequence[Node], positions: Sequence[int]) -> list[Node]:
    """The nodes in a new order."""
    place = {old: new for new, old in enumerate(positions)}
    return [replace(nodes[i], after=tuple(place[b] for b in nodes[i].after)) for i in positions]


def peaks(nodes: Sequence[Node], spaces: Mapping[str, Space]) -> dict[str, int]:
    """The most bytes in use at once per memory, in the given order."""
    memory = _Memory(nodes, spaces)
    result: dict[str, int] = defaultdict(int)
    for node in nodes:
        for name, used in memory.start(node).items():
            result[name] = max(result[name], used)
    return dict(result)


def _longest_paths(nodes: Sequence[Node]) -> list[int]:
    """Cycles from each node's start to the end of everything that depends on it."""
    below = [0] * len(nodes)
    for i in reversed(range(len(nodes))):
        below[i] += nodes[i].cycles
        for before in nodes[i].after:
            below[before] = max(below[before], below[i])
    return below
