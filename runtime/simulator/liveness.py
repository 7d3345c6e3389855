"""What of the commands' results is read: commands are left out, or made smaller.

Holds for local memories only, of which nothing remains after a run; what is in a shared memory is there as
the program says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from npuc.runtime.simulator.access import Access
from npuc.runtime.simulator.dispatched import Dispatched
from npuc.runtime.simulator.memory import SimulatedMemory
from npuc.runtime.simulator.plan import CopyPlan, PassPlan
from numpy.typing import NDArray

Wanted = Mapping[str, NDArray[np.int16]]
"""Per local memory and byte in a slice how many slices, the first ones, are read there."""


def live(commands: Sequence[Dispatched], local: Mapping[str, SimulatedMemory]) -> list[Dispatched]:
    """The commands whose results are read in a local memory, or that write to a shared one.

    Those of whose results only the first slices or the first steps are read are clipped to them.
    """
    wanted = {name: np.zeros(memory.size, np.int16) for name, memory in local.items()}
    kept: list[Dispatched] = []
    for command in reversed(commands):
        target = wanted.get(command.target.memory.name)
        if target is not None and command.write is not None:
            part = target[slice(*command.write.box)]
            meets = isinstance(command.plan, CopyPlan) and command.plan.meet
            if not meets:
                if not part.any():
                    continue
                _clip(command, command.write, part)
            if command.complete:
                part[:] = 0
        for name, port in command.ports.items():
            if port is not command.target:
                _want(wanted, command.reads.get(name), port.memory.name)
        kept.append(command)
    return kept[::-1]


def _want(wanted: Wanted, access: Access | None, memory: str) -> None:
    name = access.memory.name if access is not None else memory
    if name in wanted:
        stamps = wanted[name] if access is None else wanted[name][slice(*access.box)]
        top = np.iinfo(np.int16).max if access is None else access.top
        np.maximum(stamps, top, out=stamps)


def _clip(command: Dispatched, write: Access, part: NDArray[np.int16]) -> None:
    """Leave out the slices that nothing reads, and the steps of the outermost axis."""
    sizes = list(command.sizes)
    axis = write.slice_axis
    if axis is not None and not _joins_slices(command):
        sizes[axis] = min(sizes[axis], int(part.max()))
    steps = [step for _, step in write.steps]
    outer = max(range(len(steps)), key=steps.__getitem__)
    inside = sum(step * (n - 1) for i, (step, n) in enumerate(zip(steps, sizes, strict=True)) if i != outer)
    if min(steps) >= 0 and steps[outer] >= inside + write.item:
        read = int(np.flatnonzero(part)[-1]) + 1
        sizes[outer] = min(sizes[outer], -(-read // steps[outer]))
    command.sizes = tuple(sizes)
    command.reads = {name: access.clipped(_of_nest(access, sizes)) for name, access in command.reads.items()}


def _of_nest(access: Access, sizes: Sequence[int]) -> list[int]:
    """The sizes for an access, whose own may be smaller where it does not move."""
    return [min(n, m) for n, m in zip(access.sizes, sizes, strict=True)]


def _joins_slices(command: Dispatched) -> bool:
    """Whether a result depends on what other slices compute."""
    plan = command.plan
    return isinstance(plan, PassPlan) and any(step.op.startswith("ring_") for step in plan.spec.chain)
