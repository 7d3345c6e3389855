"""List scheduling: an order of commands in which in-order queues overlap.

Commands that are ready are started by the longest path that still depends on them, on queues simulated
with the commands' costs; a command waits while the buffers it begins would overfill a memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


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


@dataclass
class _Memory:
    """Bytes in use while nodes are started in turn."""

    spaces: Mapping[str, Space]
    budgets: Mapping[str, int]
    remaining: dict[str, int]
    used: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    alive: set[str] = field(default_factory=set[str])

    def fits(self, node: Node) -> bool:
        """Whether the buffers that the node begins fit."""
        wanted: dict[str, int] = defaultdict(int)
        for name in node.buffers:
            if name not in self.alive:
                wanted[self.spaces[name].memory] += self.spaces[name].size
        return all(self.used[memory] + size <= self.budgets.get(memory, 0) for memory, size in wanted.items())

    def start(self, node: Node) -> dict[str, int]:
        """Begin the node's buffers and end those that no later node touches; returns the bytes between."""
        for name in node.buffers:
            space = self.spaces[name]
            if name not in self.alive:
                self.alive.add(name)
                self.used[space.memory] += space.size
        used = dict(self.used)
        for name in node.buffers:
            self.remaining[name] -= 1
            if not self.remaining[name]:
                self.used[self.spaces[name].memory] -= self.spaces[name].size
        return used


def order(nodes: Sequence[Node], spaces: Mapping[str, Space], budgets: Mapping[str, int]) -> list[int]:
    """Positions of the nodes in the order in which to issue them.

    Args:
        nodes: in some valid order.
        spaces: of the buffers whose lifetime lies within the nodes.
        budgets: bytes that such buffers may take per memory. If nothing that is ready fits, the first ready
            node in the given order starts anyway, so that a tight memory falls back to that order.
    """
    urgency = _longest_paths(nodes)
    memory = _Memory(spaces, budgets, _uses(nodes))
    waiting = {i: set(node.after) for i, node in enumerate(nodes)}
    free: dict[str, int] = defaultdict(int)
    finish: dict[int, int] = {}
    result: list[int] = []
    while waiting:
        ready = [i for i, before in waiting.items() if not before]
        fitting = [i for i in ready if memory.fits(nodes[i])] or ready[:1]
        start = {
            i: max([finish[b] for b in nodes[i].after] + [free[q] for q in nodes[i].queues], default=0)
            for i in fitting
        }
        chosen = min(fitting, key=lambda i: (start[i], -urgency[i], i))
        finish[chosen] = start[chosen] + nodes[chosen].cycles
        for queue in nodes[chosen].queues:
            free[queue] = finish[chosen]
        memory.start(nodes[chosen])
        result.append(chosen)
        del waiting[chosen]
        for before in waiting.values():
            before.discard(chosen)
    return result


def peaks(nodes: Sequence[Node], spaces: Mapping[str, Space]) -> dict[str, int]:
    """The most bytes in use at once per memory, in the given order."""
    memory = _Memory(spaces, {}, _uses(nodes))
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


def _uses(nodes: Sequence[Node]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for node in nodes:
        for name in node.buffers:
            counts[name] += 1
    return counts
