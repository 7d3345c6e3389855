"""What lowering needs to know of a machine: where things can lie and how large they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from npuc.backends.machine import Machine
from npuc.backends.model import Command


@dataclass(frozen=True)
class Geometry:
    """The memories of one core, by role.

    Attributes:
        slices: slices of one core; 1 where the machine has none.
        main: the memory of weights and caches.
        local: the memory that passes stream from and commit to.
        stationary: the memory of a contraction's second operand; may be `local` itself.
        registers: the memory of the vector operand port, or "" where the machine has none.
        local_bytes, stationary_bytes, register_bytes: capacities per slice.
        granule: local writes are multiples of this many bytes.
    """

    slices: int
    main: str
    local: str
    stationary: str
    registers: str
    local_bytes: int
    stationary_bytes: int
    register_bytes: int
    granule: int

    def chunk(self, size: int) -> int:
        """Elements of a last dimension of `size` per slice: the smallest that covers it.

        A chunk is a multiple of the write granule at 2 bytes an element, whatever the element type,
        so that casts keep the placement.
        """
        unit = max(self.granule // 2, 1)
        per_slice = -(-size // self.slices)
        return -(-per_slice // unit) * unit if self.slices > 1 or unit > 1 else size

    def padded(self, size: int) -> int:
        """The size of a dimension cut into whole chunks."""
        return self.chunk(size) * self.slices


def geometry_of(machine: Machine) -> Geometry:
    """The roles of a machine's memories, read off the ports of its pass commands."""
    passes = [c for c in machine.commands.values() if c.kind == "pass"]
    local = _port_memory(passes, "stream")
    stationary = _port_memory(passes, "stationary")
    registers = _port_memory(passes, "vrf")
    return Geometry(
        slices=machine.slices,
        main=machine.main.name,
        local=local,
        stationary=stationary or local,
        registers=registers,
        local_bytes=machine.memories[local].size,
        stationary_bytes=machine.memories[stationary or local].size,
        register_bytes=machine.memories[registers].size if registers else 0,
        granule=machine.memories[local].write_granule,
    )


def _port_memory(passes: Sequence[Command], port: str) -> str:
    """The memory of the first pass command that has the port; "" if none has."""
    for command in passes:
        if port in command.ports:
            return command.ports[port].memories[0]
    return ""
