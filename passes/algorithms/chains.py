"""Cutting a chain of vector steps into passes that a machine's vector units can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.ir.tile import MAX_CHAIN, Step


@dataclass(frozen=True)
class VectorUnits:
    """The vector units of a pass in pipeline order.

    Attributes:
        stages: stages in order; each holds units usable in any order, each unit once per pass, as
            (name, ops it executes).
        immediates: immediate operands per pass.
    """

    stages: tuple[tuple[tuple[str, frozenset[str]], ...], ...]
    immediates: int = 3


def vector_units(machine: Machine) -> VectorUnits:
    """The units of the machine's first pass command that has a chain."""
    command = next(c for c in machine.commands.values() if c.kind == "pass" and c.units)
    return VectorUnits(
        tuple(tuple((name, frozenset(ops)) for name, ops in group.units) for group in command.units)
    )


_SHARED_PORTS = {
    True: {"operand": {"operand"}, "vrf": {"vrf", "stash"}, "stash": {"vrf", "stash"}},
    False: {"operand": {"operand", "stash"}, "vrf": {"vrf"}, "stash": {"operand", "stash"}},
}
"""Sources that cannot be in one pass with another: in the first one, and in those after it.

The stash lies in the register file; after the first pass it is fetched again, through the operand port.
"""


@dataclass
class _Part:
    """The pass being filled."""

    first: bool
    steps: list[Step] = field(default_factory=list)
    stage: int = 0
    used: set[str] = field(default_factory=set)

    def accept(self, step: Step, units: VectorUnits) -> bool:
        """Adds the step if a unit at or after the current stage is free and the ports allow it."""
        if len(self.steps) == MAX_CHAIN or not self._sources_fit(step, units):
            return False
        for number in range(self.stage, len(units.stages)):
            for name, ops in units.stages[number]:
                if step.op in ops and name not in self.used:
                    self.stage = number
                    self.used.add(name)
                    self.steps.append(step)
                    return True
        return False

    def _sources_fit(self, step: Step, units: VectorUnits) -> bool:
        sources = [s.source for s in self.steps]
        if step.source == "imm":
            return sources.count("imm") < units.immediates
        shared = _SHARED_PORTS[self.first]
        if step.source in shared:
            return not any(source in shared[step.source] for source in sources)
        return True


def split_chain(steps: Sequence[Step], units: VectorUnits) -> list[list[Step]]:
    """The steps as consecutive passes, greedily filled.

    An empty chain is one empty pass (a plain move).

    Raises:
        ValueError: when no unit executes a step.
    """
    parts: list[list[Step]] = []
    part = _Part(first=True)
    for step in steps:
        if part.accept(step, units):
            continue
        parts.append(part.steps)
        part = _Part(first=False)
        if not part.accept(step, units):
            raise ValueError(f"no vector unit executes {step.op}")
    return [*parts, part.steps]
