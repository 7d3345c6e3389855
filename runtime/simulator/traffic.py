"""What copies move between chips, and what commands ask of what several cores share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, prod

from npuc.backends.machine import Machine
from npuc.backends.model import Cost
from npuc.runtime.simulator.plan import CopyPlan, PassPlan, PortPlan

Resource = tuple[str, int]
MEMORY, INWARD, OUTWARD = "memory", "in", "out"
"""A chip's main memory, and its link to other chips, in either direction."""
Demand = tuple[tuple[Resource, float], ...]


@dataclass(frozen=True)
class Chips:
    """How main memories of chips follow one another in addresses.

    Attributes:
        bytes: of a chip's part; 0 where there is one chip.
        own: the chip of the core that runs a command.
    """

    bytes: int = 0
    own: int = 0

    def moves(self, plan: CopyPlan, registers: Sequence[int], extent: int) -> dict[tuple[int, int], int]:
        """Bytes that a copy moves, by the chips that it reads and writes.

        A walk from chip to chip is a stride of whole parts; anything else stays where it begins.
        """
        sizes = (extent, *plan.spec.size[1:])
        ports = (plan.src, plan.dst)
        walks = [d for d in range(len(sizes)) if any(self._walks(port, d) for port in ports)]
        steps = [range(sizes[d]) for d in walks]
        found = Counter[tuple[int, int]]()
        each = prod(sizes) * plan.spec.item // max(prod(map(len, steps)), 1)
        for index in product(*steps):
            source, target = (self._chip(port, registers, walks, index) for port in ports)
            found[source, target] += each
        return found

    def _walks(self, port: PortPlan, dim: int) -> bool:
        return port.memory.main and port.strides[dim] != 0 and port.strides[dim] % self.bytes == 0

    def _chip(self, port: PortPlan, registers: Sequence[int], walks: Sequence[int], at: Sequence[int]) -> int:
        if not port.memory.main:
            return self.own
        moved = sum(port.strides[d] * i for d, i in zip(walks, at, strict=True))
        return (port.base.imm + registers[port.base.reg] + moved) // self.bytes

    def key(self, plan: PassPlan | CopyPlan, registers: Sequence[int]) -> tuple[int, ...]:
        """What tells apart runs of a command that move between other chips."""
        if not self.bytes or isinstance(plan, PassPlan):
            return ()
        return tuple(self._chip(port, registers, (), ()) for port in (plan.src, plan.dst))

    def shared(
        self,
        machine: Machine,
        plan: PassPlan | CopyPlan,
        cost: Cost,
        registers: Sequence[int],
        extent: int,
    ) -> tuple[Cost, Demand, int]:
        """A command's cost with its way between chips, what it asks of what is shared, its link's bytes."""
        link = machine.chip_link
        if not self.bytes or link is None or isinstance(plan, PassPlan) or not cost.dram_bytes or extent == 0:
            return cost, (((MEMORY, self.own), cost.dram_bytes),) if cost.dram_bytes else (), 0
        moves = self.moves(plan, registers, extent if extent > 0 else plan.spec.size[0])
        between = {chips: count for chips, count in moves.items() if chips[0] != chips[1]}
        asked = Counter[Resource]()
        whole, ports = sum(moves.values()), sum(p.memory.main for p in (plan.src, plan.dst))
        for chips, count in moves.items():
            for chip, port in zip(chips, (plan.src, plan.dst), strict=True):
                if port.memory.main:
                    asked[MEMORY, chip] += cost.dram_bytes * count // (whole * ports)
        for (source, target), count in between.items():
            asked[OUTWARD, source] += count
            asked[INWARD, target] += count
        if between:
            fixed = cost.cycles - max(cost.stages.values(), default=0)
            busiest = max(count for (kind, _), count in asked.items() if kind != MEMORY)
            cycles = max(cost.cycles, fixed + ceil(busiest / link.bandwidth)) + ceil(link.latency)
            cost = replace(cost, cycles=cycles)
        return cost, tuple((what, count) for what, count in asked.items() if count), sum(between.values())
