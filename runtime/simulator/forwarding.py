"""Which command wrote what another reads, and what follows: data flow of a run's commands.

A command that reads what was only moved there reads it where it came from. What is the same in all slices is
computed and stored in one of them. All of it holds for local memories only, of which nothing remains after a
run; what is in a shared memory is there as the program says.

The commands are looked at in the order of the program: right for programs without hazards (hazards.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from npuc.ir.commands import Bound, PassSpec, Port, compile_pass
from npuc.runtime.simulator.access import Access
from npuc.runtime.simulator.affine import Affine, Value
from npuc.runtime.simulator.dispatched import Dispatched
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.plan import CopyPlan, PassPlan
from numpy.typing import NDArray

Interval = tuple[str, int, int]
"""Memory, first byte and last + 1."""


class Bounds(NamedTuple):
    """What an address from parameters must be: from ``low`` to ``high``, a multiple of ``item``."""

    address: Affine
    low: int
    high: int
    item: int

    def hold(self, parameters: Sequence[int]) -> bool:
        """Whether it is that for these parameters."""
        address = self.address.at(parameters)
        return self.low <= address <= self.high and address % self.item == 0


class Gap(NamedTuple):
    """What a distance that comes from parameters must be: at most ``low`` or at least ``high``."""

    distance: Value
    low: int
    high: int

    def hold(self, parameters: Sequence[int]) -> bool:
        """Whether it is that for these parameters."""
        distance = self.distance.at(parameters) if isinstance(self.distance, Affine) else self.distance
        return not self.low < distance < self.high


class Forwarding:
    """The commands of a run, each looked at in turn.

    Attributes:
        commands: those looked at; their reads are rewritten.
        relied: intervals of shared memories that are read later than the program does it. Commands whose
            addresses depend on parameters must not write there.
        conditions: that the parameters must meet for what was rewritten.
    """

    def __init__(self, local: Mapping[str, SimulatedMemory]) -> None:
        self.commands: list[Dispatched] = []
        self.relied: set[Interval] = set()
        self.conditions: set[Bounds | Gap] = set()
        self._writers = {name: np.zeros(memory.size, np.int32) for name, memory in local.items()}
        self._by_number: dict[int, Dispatched] = {}
        self._shared_writes: list[Dispatched] = []

    def add(self, command: Dispatched) -> None:
        """The next command."""
        for name in command.ports:
            if name in command.reads:
                command.reads[name] = self._resolved(command, name)
            elif command.ports[name] is not command.target:
                self._need_all(command.ports[name].memory.name)
        command.uniform = _is_uniform(command)
        self._note_write(command)
        self.commands.append(command)
        self._by_number[command.number] = command

    def _resolved(self, command: Dispatched, name: str) -> Access:
        """The access of a port, as far back along moves as it can be followed."""
        access = command.reads[name]
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
            masked = name == "stationary" and masks(writer)
            origin = self._origin(access, writer) if masked or moves(writer) else None
            if origin is None or (masked and not _bound(command, access, writer)):
                return access.in_one_slice() if writer.uniform and writer.complete else access
            access = origin
        return access

    def _origin(self, access: Access, writer: Dispatched) -> Access | None:
        """Where what ``access`` reads was moved from by ``writer``, if it is still there."""
        if writer.write is None or not writer.unlimited:
            return None
        source = _source(writer)
        if source is None or (source.memory.name in self._writers and (writer.uniform or source.shift)):
            return None  # what was gathered from the slices is better read where it is together
        origin = access.through(writer.write, source)
        if origin is None or not self._unchanged(origin, writer.number):
            return None
        if source.shift is not None:
            low, high = source.box
            self.conditions.add(Bounds(source.shift, -low, source.memory.size - high, source.item))
        return origin

    def _unchanged(self, origin: Access, since: int) -> bool:
        """Whether no command behind ``since`` wrote there."""
        low, high = origin.box
        stamps = self._writers.get(origin.memory.name)
        if stamps is not None:
            return int(stamps[low:high].max()) < since
        behind = [w for w in self._shared_writes if w.number > since]
        behind = [w for w in behind if w.target.memory.name == origin.memory.name]
        if origin.shift is None:
            written = [w.write for w in behind if w.write is not None]
            if len(written) < len(behind):
                self.relied.add((origin.memory.name, low, high))
        else:
            found = [w.write or w.shifted.get(w.target.name) for w in behind]
            written = [access for access in found if access is not None]
            if len(written) < len(behind):
                return False
        gaps = [_gap(origin, access) for access in written]
        self.conditions.update(gap for gap in gaps if isinstance(gap.distance, Affine))
        return all(gap.hold(()) for gap in gaps if isinstance(gap.distance, int))

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


def _gap(one: Access, other: Access) -> Gap:
    """What keeps two accesses apart."""
    (low, high), (other_low, other_high) = one.box, other.box
    return Gap(one.distance(other), low - other_high, high - other_low)


def moves(command: Dispatched) -> bool:
    """Whether a command only moves elements."""
    plan = command.plan
    if isinstance(plan, CopyPlan):
        return not plan.meet and plan.index is None and _source(command) is not None
    return _source(command) is not None and compile_pass(plan.spec).moves_bits


def masks(command: Dispatched) -> bool:
    """Whether a command moves elements and replaces those outside of a mask by 0."""
    plan = command.plan
    return isinstance(plan, PassPlan) and _source(command) is not None and compile_pass(plan.spec).masks_bits


def _source(command: Dispatched) -> Access | None:
    """Where a command reads that reads in one place."""
    found = {**command.shifted, **command.reads}
    found.pop(command.target.name, None)
    return next(iter(found.values())) if len(found) == 1 else None


def _bound(command: Dispatched, access: Access, writer: Dispatched) -> bool:
    """Give a pass the mask of the command that wrote what its stationary operand reads; False if it cannot.

    Args:
        command: the pass.
        access: its read.
        writer: moved what it reads, and masked it.
    """
    plan, masked = command.plan, writer.plan
    assert isinstance(masked, PassPlan)
    assert masked.spec.mask is not None
    assert writer.write is not None
    if not isinstance(plan, PassPlan) or plan.spec.mask is not None or command.within is not None:
        return False
    mask, ring = masked.spec.mask, masked.spec.ring_dim
    slice_axis = 0 if ring is None else 1 + ring
    steps = [int(axis == 1 + mask.dim) for axis in range(len(writer.sizes))]
    steps[slice_axis] += mask.slice_step
    counted = [step if n > 1 else 0 for step, n in zip(steps, writer.sizes, strict=True)]
    positions = replace(writer.write, start=(0, 0), steps=tuple((0, step) for step in counted))
    found = access.through(writer.write, positions)
    if found is None or found.start != (0, 0):
        return False
    slice_step, *nest = (step for _, step in found.steps)
    dims = [dim for dim, step in enumerate(nest) if step]
    if slice_step < 0 or len(dims) != 1 or nest[dims[0]] != 1:
        return False
    command.within = Bound(dims[0], slice_step)
    command.limits = (writer.limits[0], *command.limits[1:])
    return True


def rewritten_spec(command: Dispatched) -> PassSpec:
    """A pass with the layouts of its rewritten accesses; its result goes to one slice if that is enough."""
    assert isinstance(command.plan, PassPlan)
    slices, *size = command.sizes
    spec = replace(command.plan.spec, slices=slices, size=tuple(size), within=command.within)
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
