"""Waits and signals that order every pair of conflicting commands, and few more.

Queues run their commands in order and independently of each other, so only conflicts between different
queues need tokens. The program (straight lines, loops, barriers) is cut at its barriers into regions.
Each region is walked once with its loops unrolled for a few iterations (`hazards.py`); a vector clock per
command says what is known to be finished when it starts, and a conflict that the clock does not cover
becomes an edge. Edges are static: "`sink` waits for `source`, `distance` iterations of `loop` earlier".

Tokens of an edge. A loop-carried edge starts with credits, given once before the outermost loop of the
region, and what is left of them is taken by a later command of the sink's queue. If the source is nested
deeper than the sink, the sink takes all of its tokens at once; if the sink is nested deeper, the source
signals one token for each of its executions; if both are, a relay (a command that does nothing) stands
before the sink's loop. Edges between the same two queues, both ends in one block and at equal distance,
share a semaphore: their tokens come and go in the same order once edges that others imply are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from npuc.passes.algorithms.hazards import Barrier, Command, Credit, Edge, Item, Loop, Trace, contains


@dataclass(frozen=True)
class Limits:
    """What the machine has: semaphores, tokens per wait or signal, waits and signals per command."""

    semaphores: int
    tokens: int = 255
    waits: int = 4
    signals: int = 4


def synchronize(program: list[Item], limits: Limits) -> None:
    """Make ``program`` safe: fill in waits and signals and insert barriers, credits and relays in place.

    A loop that contains a barrier is one region per iteration, and so is, as a last resort, a loop that
    would need more semaphores than there are.
    """
    _fence(program)
    _block(program, limits)


def _fence(block: list[Item]) -> bool:
    """Put barriers around loops that contain one, and at the end of their bodies."""
    fenced = False
    for item in list(block):
        if isinstance(item, Loop) and _fence(item.body):
            fenced = True
            _fence_loop(block, item)
        fenced |= isinstance(item, Barrier)
    return fenced


def _fence_loop(block: list[Item], loop: Loop) -> None:
    at = block.index(loop)
    if at > 0 and not isinstance(block[at - 1], Barrier):
        block.insert(at, Barrier())
    if not isinstance(loop.body[-1], Barrier):
        loop.body.append(Barrier())


def _block(block: list[Item], limits: Limits) -> None:
    result: list[Item] = []
    for cut, items in groupby(block, key=_cuts):
        for region in [[item] for item in items] if cut else [list(items)]:
            if cut and isinstance(region[0], Loop):
                _block(region[0].body, limits)
            elif not cut:
                _region(region, limits)
            result += region
    block[:] = result


def _cuts(item: Item) -> bool:
    return isinstance(item, Barrier) or (isinstance(item, Loop) and isinstance(item.body[-1], Barrier))


def _region(region: list[Item], limits: Limits) -> None:
    """Synchronize commands and loops without a barrier among them."""
    trace = Trace(region, limits.tokens)
    trace.find_edges()
    groups = _groups(trace, limits)
    if len(groups) > limits.semaphores:
        _split(region, limits)
        return
    for semaphore, edges in enumerate(groups):
        for edge in edges:
            edge.source.signals.append((semaphore, edge.signal))
            edge.sink.waits.append((semaphore, edge.wait))
        credit = sum(edge.credit for edge in edges)
        if credit:
            top = next(item for item in region if isinstance(item, Loop) and _around(item, edges[0]))
            _drain(region, top, edges, trace).waits.append((semaphore, credit))
            region.insert(region.index(top), Credit(semaphore, credit))
    _spread(region, limits)


def _around(item: Loop, edge: Edge) -> bool:
    return item is edge.loop or (edge.loop is not None and contains(item, edge.loop))


def _drain(region: list[Item], top: Loop, edges: Sequence[Edge], trace: Trace) -> Command:
    """The command after ``top`` that takes the left-over tokens, if possible one that waits for no longer."""
    queue = edges[0].sink.queue
    after = region[region.index(top) + 1 :]
    commands = [item for item in after if isinstance(item, Command) and item.queue == queue]
    if not commands:
        region.append(Command(queue))
        return _drain(region, top, edges, trace)
    free = (c for c in commands if all(trace.finished_before(c, edge.source) for edge in edges))
    return next(free, commands[-1])


def _groups(trace: Trace, limits: Limits) -> list[list[Edge]]:
    """Edges that can share a semaphore, together."""
    alike: dict[object, list[Edge]] = {}
    for edge in trace.edges:
        loop = edge.loop if edge.distance else None
        key = (edge.source.queue, edge.sink.queue, loop, edge.distance) if edge.direct else edge
        alike.setdefault(key, []).append(edge)
    order = {command: k for k, command in enumerate(trace.loops)}
    groups: list[list[Edge]] = []
    for edges in alike.values():
        groups.append([])
        for edge in _needed(edges, order):
            if sum(e.credit for e in groups[-1]) + edge.credit > limits.tokens:
                groups.append([])
            groups[-1].append(edge)
    return groups


def _needed(edges: Iterable[Edge], order: Mapping[Command, int]) -> list[Edge]:
    """The edges that no other implies: of edges around one another only the inner one.

    A conflict of later iterations can be found after one that its edge would have covered. Two such edges
    on one semaphore would take each other's tokens.
    """
    needed: list[Edge] = []
    for edge in sorted(edges, key=lambda e: (-order[e.source], order[e.sink])):
        if not needed or order[edge.sink] < order[needed[-1].sink]:
            needed.append(edge)
    return needed[::-1]


def _split(region: list[Item], limits: Limits) -> None:
    """Too many semaphores: a barrier in the middle, or after each iteration of the only loop."""
    _remove_relays(region)
    if len(region) > 1:
        region.insert(len(region) // 2, Barrier())
    elif isinstance(region[0], Loop):
        region[0].body.append(Barrier())
    _fence(region)
    _block(region, limits)


def _remove_relays(block: list[Item]) -> None:
    block[:] = [item for item in block if not isinstance(item, Command) or item.key is not None]
    for item in block:
        if isinstance(item, Loop):
            _remove_relays(item.body)


def _spread(block: list[Item], limits: Limits) -> None:
    """Move waits and signals that a command has no room for to relays before and after it."""
    for item in list(block):
        if isinstance(item, Loop):
            _spread(item.body, limits)
        if not isinstance(item, Command):
            continue
        item.waits, item.signals = _merged(item.waits), _merged(item.signals)
        while len(item.waits) > limits.waits:
            relay = Command(item.queue, waits=item.waits[: limits.waits])
            item.waits = item.waits[limits.waits :]
            block.insert(block.index(item), relay)
        while len(item.signals) > limits.signals:
            relay = Command(item.queue, signals=item.signals[-limits.signals :])
            item.signals = item.signals[: -limits.signals]
            block.insert(block.index(item) + 1, relay)


def _merged(uses: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """One entry per semaphore."""
    semaphores = sorted({semaphore for semaphore, _ in uses})
    return [(s, sum(count for t, count in uses if t == s)) for s in semaphores]
