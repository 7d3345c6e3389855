"""A program's run as straight-line code: commands bound to memory once, executed again and again.

What a program dispatches depends on its parameters only in some addresses and limits (affine.py). So a run is
prepared once per entry: data flow is simplified (forwarding.py) and every command bound to views of memory.
For new parameters the few commands that depend on them are bound again, for known ones not even those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from npuc.ir.errors import UserError
from npuc.ir.pass_binding import Call, Scratch
from npuc.runtime.simulator.affine import NotAffine
from npuc.runtime.simulator.binding import Binder, Conflict
from npuc.runtime.simulator.dispatched import Dispatched, dispatched
from npuc.runtime.simulator.forwarding import Forwarding, Interval
from npuc.runtime.simulator.liveness import live
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.plan import CopyPlan
from npuc.runtime.simulator.program import LoadedProgram


class Member(NamedTuple):
    """What a core knows of the group that runs a program together.

    Attributes:
        known: the first runtime parameters, which say where it is.
        meet: waits for the others of its chip or system.
    """

    known: tuple[int, ...] = ()
    meet: Callable[[str], object] = lambda scope: None


ALONE = Member()


def prepare(
    program: LoadedProgram,
    entry: str,
    parameters: int,
    memories: Mapping[str, SimulatedMemory],
    local: Mapping[str, SimulatedMemory],
    member: Member = ALONE,
) -> StraightLine | None:
    """The straight-line code of an entry for any ``parameters`` values.

    None where the program is not of that kind, or has an error that executing it command by command shows.
    """
    try:
        found = dispatched(program, entry, parameters, memories, member.known)
        flow = Forwarding(local)
        for command in found:
            flow.add(command)
        return StraightLine(live(flow.commands, local), len(found), flow, memories, member.meet)
    except (NotAffine, UserError):
        return None


class StraightLine:
    """The commands of a run as calls, bound to memories.

    Attributes:
        executed: how many commands the program dispatches.
    """

    def __init__(
        self,
        commands: Sequence[Dispatched],
        executed: int,
        flow: Forwarding,
        memories: Mapping[str, SimulatedMemory],
        meet: Callable[[str], object],
    ) -> None:
        self.executed = executed
        self._relied, self._conditions = _merged(flow.relied), flow.conditions
        self._varying: list[tuple[int, Binder]] = []
        self._calls: list[Call] = []
        self._positions: list[int] = []  # of each call's command in the program
        scratch = Scratch()
        for command in commands:
            binder = Binder(command, memories, scratch)
            if isinstance(command.plan, CopyPlan) and command.plan.meet:
                self._calls.append(partial(meet, command.plan.meet))
            if not command.fixed:
                self._varying.append((len(self._calls), binder))
            self._calls += binder.bind() if command.fixed else [_nothing]
            self._positions += [command.position] * (len(self._calls) - len(self._positions))
        self._values = {value: 0 for _, binder in self._varying for value in binder.values}

    def ready(self, parameters: Sequence[int]) -> bool:
        """Bind what depends on the parameters; False where the program must be run command by command."""
        for value in self._values:
            self._values[value] = value.at(parameters)
        if not all(condition.hold(parameters) for condition in self._conditions):
            return False
        try:
            for at, binder in self._varying:
                self._calls[at] = binder.bound(self._values, self._relied)
        except (Conflict, UserError):
            return False
        return True

    def run(self) -> None:
        """Execute what is `ready`.

        Raises:
            Stopped: a command found an error in the data.
        """
        at = 0
        try:
            with torch.inference_mode():  # spares every operation a tenth of its time
                for at, call in enumerate(self._calls):
                    call()
        except UserError as error:
            raise Stopped(error, self._positions[at]) from error


class Stopped(Exception):
    """An error in the data, and the position of the command that found it."""

    def __init__(self, error: UserError, position: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.position = position


def _nothing() -> None:
    pass


def _merged(intervals: set[Interval]) -> dict[str, tuple[list[int], list[int]]]:
    """Per memory the starts and ends of disjoint intervals, in order."""
    found: dict[str, tuple[list[int], list[int]]] = {}
    for memory, low, high in sorted(intervals):
        starts, ends = found.setdefault(memory, ([], []))
        if ends and low <= ends[-1]:
            ends[-1] = max(ends[-1], high)
        else:
            starts.append(low)
            ends.append(high)
    return found
