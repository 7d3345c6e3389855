"""Which command wrote what another reads, and what follows: data flow of a run's commands.

A command that reads what was only moved there reads it where it came from. What is the same in all slices is
computed and stored in one of them. All of it holds for local memories only, of which nothing remains after a
run; what is in a shared memory is there as the program says.

The commands are looked at in the order of the program: right for programs without hazards (hazards.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from npuc.ir.commands import PassSpec, Port, compile_pass
from npuc.runtime.simulator.access import Access
from npuc.runtime.simulator.dispatched import Dispatched
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.plan import CopyPlan, PassPlan
from numpy.typing import NDArray

Interval = tuple[str, int, int]
"""Memory, first byte and last + 1."""


class Forwarding:
    """The commands of a run, each looked at in turn.

    Attributes:
        commands: those looked at; their reads are rewritten.
        relied: intervals of shared memories that are read later than the program does it. Commands whose
            addresses depend on parameters must not write there.
    """

    def __init__(self, local: Mapping[str, SimulatedMemory]) -> None:
        self.commands: list[Dispatched] = []
        self.relied: set[Interval] = set()
        self._writers = {name: np.zeros(memory.size, np.int32) for name, memory in local.items()}
        self._by_number: dict[int, Dispatched] = {}
        self._shared_writes: list[Dispatched] = []

    def add(self, command: Dispatched) -> None:
        """The next command."""
        for name in command.ports:
            if name in command.reads:
                command.reads[name] = self._resolved(command.reads[name])
            elif command.ports[name] is not command.target:
                self._need_all(command.ports[name].memory.name)
        command.uniform = _is_uniform(command)
        self._note_write(command)
        self.commands.append(command)
        self._by_number[command.number] = command

    def _resolved(self, access: Access) -> Access:
        """The access, as far back along moves as it can be followed."""
        while access.memory.name in self._writers:
            low, high = access.box
            writers = self._writers[access.memory.name][low:high]
            number = int(writers[0])
            if not (writers == number).all():
                self._need(writers)
                return access
            writer = self._by_number.get(number)
            if writer is None:
                return access
            origin = self._origin(access, writer)
            if origin is None:
                return access.in_one_slice() if writer.uniform and writer.complete else access
            access = origin
        return access

    def _origin(self, access: Access, writer: Dispatched) -> Access | None:
        """Where what ``access`` reads was moved from by ``writer``, if it is still there."""
        if not moves(writer) or writer.write is None or not writer.unlimited:
            return None
        source = next(iter(writer.reads.values()), None)
        if source is None or (writer.uniform and source.memory.name in self._writers):
            return None  # what was gathered from the slices is better read where it is together
        origin = access.through(writer.write, source)
        return origin if origin is not None and self._unchanged(origin, writer.number) else None

    def _unchanged(self, origin: Access, since: int) -> bool:
        """Whether no command behind ``since`` wrote there."""
        low, high = origin.box
        stamps = self._writers.get(origin.memory.name)
        if stamps is not None:
            return int(stamps[low:high].max()) < since
        behind = [w for w in self._shared_writes if w.number > since]
        for writer in behind:
            if writer.write is not None and writer.target.memory.name == origin.memory.name:
                if writer.write.box[0] < high and low < writer.write.box[1]:
                    return False
        if any(writer.write is None for writer in behind):
            self.relied.add((origin.memory.name, low, high))
        return True

    def _note_write(self, command: Dispatched) -> None:
        stamps = self._writers.get(command.target.memory.name)
        if stamps is None:
            self._shared_writes.append(command)
        elif command.write is None:
            self._need(stamps)
            stamps.fill(command.number)
        else:
            low, high = command.write.box
            if not command.complete:
                self._need(stamps[low:high])
            stamps[low:high] = command.number

    def _need(self, writers: NDArray[np.int32]) -> None:
        for number in np.unique(writers):
            if number:
                self._by_number[int(number)].needed = True

    def _need_all(self, memory: str) -> None:
        if memory in self._writers:
            self._need(self._writers[memory])


def moves(command: Dispatched) -> bool:
    """Whether a command only moves elements, all its addresses being fixed."""
    plan = command.plan
    if isinstance(plan, CopyPlan):
        return not plan.meet and plan.index is None and len(command.reads) == 1
    return len(command.reads) == 1 and compile_pass(plan.spec).moves_bits


def rewritten_spec(command: Dispatched) -> PassSpec:
    """A pass with the layouts of its rewritten accesses; its result goes to one slice if that is enough."""
    assert isinstance(command.plan, PassPlan)
    slices, *size = command.sizes
    spec = replace(command.plan.spec, slices=slices, size=tuple(size))
    if spec.mask is None and spec.limit is None:
        spec = replace(spec, ring_dim=None)  # the stream's strides say how it walks over the slices
    ports: dict[str, Port] = {}
    for name, port in spec.ports().items():
        access = command.write if name == "out" else command.reads.get(name)
        if access is None:
            continue
        strides = access.strides
        if name == "out" and command.uniform and command.complete and not command.needed:
            strides = (0, *strides[1:])
        ports[name] = Port(port.dtype, strides)
    return replace(spec, **ports)  # type: ignore[arg-type]


def _is_uniform(command: Dispatched) -> bool:
    if command.write is None or command.write.memory.slices <= 1:
        return False
    if isinstance(command.plan, PassPlan):
        return not compile_pass(rewritten_spec(command)).varies_along_slices
    axis, source = command.write.slice_axis, command.reads.get("src")
    return axis is not None and source is not None and source.steps[axis] == (0, 0)
