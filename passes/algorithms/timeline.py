"""When commands run on in-order queues, as early as possible and as late as costs nothing.

The program's loops are unrolled for a few iterations. A command starts when its queue is free and all that it
conflicts with is done; how late it may start follows backwards from the end of the program.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from npuc.passes.algorithms.hazards import (
    Barrier,
    Command,
    Conflicts,
    Credit,
    Instance,
    Item,
    Loop,
    commands_of,
)
from npuc.passes.algorithms.reuse import Life

UNROLLED = 3
"""Iterations of a loop that are walked: the first, the last, and one for all between."""


@dataclass(eq=False)
class Run:
    """One execution of a command.

    Attributes:
        loops, iterations: the loops around it, outermost first, and which of those walked it is.
        start, finish: cycles from the beginning of the program.
        latest: the last start that does not make the program longer.
        before: what it waits for.
    """

    command: Command
    loops: tuple[Loop, ...]
    iterations: tuple[int, ...]
    start: int
    finish: int
    before: tuple[Run, ...] = field(repr=False, default=())
    latest: int = 0


def timeline(items: Sequence[Item], cycles: Callable[[Command], int]) -> list[Run]:
    """Every execution in program order.

    Args:
        items: the program; of a barrier all queues wait for each other.
        cycles: what a command takes.
    """
    loops = dict(commands_of(items))
    conflicts = Conflicts(loops)
    queues: dict[str, list[Run]] = defaultdict(list)
    runs: list[Run] = []
    fence: tuple[Run, ...] = ()
    for command, iterations in _steps(items, ()):
        if command is None:
            fence = tuple(queue[-1] for queue in queues.values() if queue)
            continue
        queue = queues[command.queue]
        instance = Instance(command, len(queue), len(runs), iterations, {})
        before = [queues[name][position] for name, position in conflicts.before(instance).items()]
        before = (*fence, *queue[-1:], *before)
        start = max((run.finish for run in before), default=0)
        conflicts.record(instance)
        run = Run(command, loops[command], iterations, start, start + cycles(command), before)
        queue.append(run)
        runs.append(run)
    _find_latest(runs)
    return runs


def _find_latest(runs: Sequence[Run]) -> None:
    end = max((run.finish for run in runs), default=0)
    deadline = dict.fromkeys(runs, end)
    for run in reversed(runs):
        run.latest = deadline[run] - (run.finish - run.start)
        for earlier in run.before:
            deadline[earlier] = min(deadline[earlier], run.latest)


def _steps(
    block: Sequence[Item], iterations: tuple[int, ...]
) -> Iterator[tuple[Command | None, tuple[int, ...]]]:
    """Commands and, as None, barriers."""
    for item in block:
        if isinstance(item, Loop):
            for i in range(min(item.count, UNROLLED)):
                yield from _steps(item.body, (*iterations, i))
        elif not isinstance(item, Credit):
            yield None if isinstance(item, Barrier) else item, iterations


def lives(runs: Sequence[Run], depths: Mapping[str, int]) -> dict[str, list[Life]]:
    """When each of some spaces is in use, in program order.

    Args:
        runs: a timeline.
        depths: how many loops are around a buffer's lifetime, by the space in which it lies alone.
    """
    found: dict[tuple[str, tuple[int, ...]], Life] = {}
    for order, run in enumerate(runs):
        spaces = {access.space for access in (*run.command.reads, *run.command.writes)}
        for space in spaces & depths.keys():
            key = space, run.iterations[: depths[space]]
            life = found.get(key)
            if life is None:
                weight = _weight(run, depths[space])
                found[key] = Life(order, run.start, run.latest, run.finish, weight)
                continue
            life.ready = min(life.ready, run.start)
            life.latest = min(life.latest, run.latest)
            life.finish = max(life.finish, run.finish)
    result: dict[str, list[Life]] = defaultdict(list)
    for (space, _), life in found.items():
        result[space].append(life)
    return result


def _weight(run: Run, depth: int) -> int:
    """How many iterations of the outer loops that of the run stands for."""
    stands_for = (
        loop.count - UNROLLED + 1 if i == UNROLLED - 2 and loop.count > UNROLLED else 1
        for loop, i in zip(run.loops[:depth], run.iterations, strict=False)
    )
    return prod(stands_for)
