"""List scheduling: an order of commands in which in-order queues overlap.

Commands that are ready are started by the longest path behind them, on queues simulated with the commands'
costs; a command waits while the buffers it begins would overfill a memory. What a command takes itself does
not count: of two for one queue that one goes first behind which more is left (J. R. Jackson, "Scheduling a
production line to minimize maximum tardiness", 1955).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace


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

    def begins(self, node: Node) -> bool:
        """Whether the node is the first to touch some buffer."""
        return any(name not in self.alive for name in node.buffers)

    def start(self, node: Node) -> dict[str, int]:
        """Begin the node's buffers and end those that no later node touches; returns the bytes between."""
        for name in node.buffers:
            if name not in self.alive:
                self.alive.add(name)
                self.used[self.spaces[name].memory] += self.spaces[name].size
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


def order(nodes: Sequence[Node], spaces: Mapping[str, Space], budgets: Mapping[str, int]) -> list[int]:
    """Positions of the nodes in the order in which to issue them.

    A node that begins a buffer goes ahead of others only if these can still be started in the given order
    afterwards; so the budgets hold wherever they hold for the given order.

    Args:
        nodes: in some valid order.
        spaces: of the buffers whose lifetime lies within the nodes.
        budgets: bytes that such buffers may take per memory.
    """
    behind = [path - node.cycles for path, node in zip(_longest_paths(nodes), nodes, strict=True)]
    memory = _Memory(nodes, spaces)
    waiting = {i: set(node.after) for i, node in enumerate(nodes)}
    free: dict[str, int] = defaultdict(int)
    finish: dict[int, int] = {}
    result: list[int] = []
    while waiting:
        start = {
            i: max([finish[b] for b in nodes[i].after] + [free[q] for q in nodes[i].queues], default=0)
            for i, before in waiting.items()
            if not before
        }
        candidates = sorted(start, key=lambda i: (start[i], -behind[i], i))
        chosen = next(i for i in candidates if _may_start(i, nodes, waiting, memory, budgets))
        finish[chosen] = start[chosen] + nodes[chosen].cycles
        for queue in nodes[chosen].queues:
            free[queue] = finish[chosen]
        memory.start(nodes[chosen])
        result.append(chosen)
        del waiting[chosen]
        for before in waiting.values():
            before.discard(chosen)
    return result


def _may_start(
    i: int, nodes: Sequence[Node], waiting: Iterable[int], memory: _Memory, budgets: Mapping[str, int]
) -> bool:
    """Whether the others can follow in the given order; true of the first of them, by induction."""
    others = [k for k in waiting if k != i]
    ahead = bool(others) and others[0] < i
    return (
        not ahead
        or not memory.begins(nodes[i])
        or memory.stays_within(budgets, (nodes[k] for k in (i, *others)))
    )


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
