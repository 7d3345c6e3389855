"""A command's fields seen as a loop nest: the measures that limits and costs are written with.

All measures look at one command only. Register-offset values count with their immediate part, since the
register is known at dispatch only. Dimensions count from 0 (outermost) here, from 1 in fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from math import gcd, prod
from typing import TYPE_CHECKING

from npuc.backends.instruction import FieldValue, Instruction, Reg
from npuc.backends.model import Command, ElementType, Memory, UnitGroup

if TYPE_CHECKING:
    from npuc.backends.machine import Machine

Selector = Callable[["View", int], bool]


class View:
    """An instruction with its command's defaults filled in; nothing is checked here."""

    def __init__(self, machine: Machine, command: Command, instruction: Instruction) -> None:
        self.machine = machine
        self.command = command
        self.instruction = instruction
        self.memo: dict[str, float] = {}
        self._runs: dict[tuple[tuple[str, ...], tuple[Selector, ...]], int] = {}
        self.index = 0  # element of a tuple field that a limit looks at

    def value(self, name: str) -> FieldValue:
        """A field's value, padded to its declared count."""
        given = self.instruction.fields.get(name)
        declared = self.command.fields[name]
        if given is None:
            return declared.neutral
        if declared.count is not None and isinstance(given, tuple) and len(given) < declared.count:
            return (*given, *(declared.default,) * (declared.count - len(given)))  # type: ignore[return-value]
        return given

    def scalar(self, name: str) -> float | str:
        """A field's value as one number or name; of a tuple field the element that ``index`` says."""
        value = self.value(name)
        if isinstance(value, Reg):
            return value.imm
        return value[self.index] if isinstance(value, tuple) else value

    def integer(self, name: str) -> int:
        """A numeric field's immediate value."""
        value = self.scalar(name)
        return 0 if isinstance(value, str) else int(value)

    def integers(self, name: str) -> tuple[int, ...]:
        """A tuple field's values; () where the command lacks the field."""
        if name not in self.command.fields:
            return ()
        value = self.value(name)
        return tuple(int(v) for v in value) if isinstance(value, tuple) else ()

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Loop extents; dimension 0 of a copy is clipped by a constant ``limit``."""
        sizes = self.integers("size")
        if self.command.kind == "copy" and "limit" in self.command.fields:
            limit = self.value("limit")
            if isinstance(limit, int) and limit >= 0:
                return (min(sizes[0], limit), *sizes[1:])
        return sizes

    @cached_property
    def reduced(self) -> frozenset[int]:
        """The nest dimensions that are summed (or maximised) over."""
        mask = self.integer("reduce") if "reduce" in self.command.fields else 0
        return frozenset(d for d in range(len(self.sizes)) if mask >> d & 1)

    def dimension(self, name: str) -> int:
        """The nest dimension that a field coded "0 = none, i + 1" names; -1 for none."""
        return self.integer(name) - 1 if name in self.command.fields else -1

    @cached_property
    def ring(self) -> int:
        """The dimension that walks over the slices; -1 for none."""
        return self.dimension("ring_dim")

    @cached_property
    def _strides(self) -> dict[str, tuple[int, ...]]:
        return {port: self.integers(f"{port}.strides") for port in self.command.ports}

    def stride(self, port: str, dim: int) -> int:
        """Bytes from one index of a dimension to the next; elements for types of less than 8 bits."""
        return self._strides[port][dim]

    @cached_property
    def _types(self) -> dict[str, ElementType | None]:
        names = {port: f"{port}.type" for port in self.command.ports}
        fields, types = self.command.fields, self.machine.element_types
        return {p: types.get(str(self.scalar(n if n in fields else "type"))) for p, n in names.items()}

    def type_name(self, port: str) -> str:
        """The element type of a port; ``none`` where the port is unused."""
        found = self._types[port]
        return "none" if found is None else found.name

    def used(self, port: str) -> bool:
        """Whether the command uses the port."""
        return self._types[port] is not None

    def bits(self, port: str) -> int:
        """Bits of an element of the port; 0 where it is unused."""
        found = self._types[port]
        return 0 if found is None else found.bits

    def macs(self, port: str) -> int:
        """Multiply-accumulates per cycle and slice for the port's type."""
        found = self._types[port]
        return 0 if found is None else found.macs

    def memory(self, port: str) -> Memory:
        """The memory that the port addresses."""
        name = f"{port}.memory"
        if name in self.command.fields:
            return self.machine.memories[str(self.scalar(name))]
        return self.machine.memories[self.command.ports[port].memories[0]]

    def bytes(self, port: str, elements: float) -> int:
        """Bytes that a number of the port's elements take."""
        return -(-int(elements) * self.bits(port) // 8)

    def size(self, *selectors: Selector) -> int:
        """Product of the extents of the dimensions that all selectors take."""
        return prod(n for d, n in enumerate(self.sizes) if all(select(self, d) for select in selectors))

    def elements(self, port: str) -> int:
        """Distinct elements of the port: product of the extents of the dimensions in which it moves."""
        return prod(n for d, n in enumerate(self.sizes) if self.stride(port, d))

    def repeats(self, dim: int) -> bool:
        """Whether the stream stands still over this dimension while only the stationary operand moves."""
        ports = self.command.ports
        if "stationary" not in ports or dim in self.reduced or not self.used("stationary"):
            return False
        return not self.stride("stream", dim) and bool(self.stride("stationary", dim))

    def _inner(self, port: str) -> Iterator[tuple[int, int]]:
        """Dimensions of more than one step, innermost first, without those that the port sits through.

        The stream's end inside the ring dimension: other slices' elements come in between.
        """
        reading = self.command.ports[port].direction == "reads"
        for d in range(len(self.sizes) - 1, -1, -1):
            if self.sizes[d] <= 1:
                continue
            if d == self.ring and port == "stream":
                return
            if not self.stride(port, d) and (self.repeats(d) if reading else d in self.reduced):
                continue
            yield d, self.sizes[d]

    def run(self, *ports: str, selectors: tuple[Selector, ...] = ()) -> int:
        """Elements at the inner end of the nest that are contiguous in all ports."""
        found = self._runs.get((ports, selectors))
        if found is None:
            found = self._runs[ports, selectors] = self._run(ports, selectors)
        return found

    def _run(self, ports: tuple[str, ...], selectors: tuple[Selector, ...]) -> int:
        length = 1
        indexed = self.dimension("index.dim") if "src" in ports else -1
        for d, n in self._inner(ports[0]):
            if d == indexed or not all(select(self, d) for select in selectors):
                break
            if any(self._step_bits(port, d) != length * self.bits(port) for port in ports):
                break
            length *= n
        return length

    def behind(self, port: str, length: float, *selectors: Selector) -> int:
        """How many runs of so many elements lie one behind the other at the inner end of a port.

        Args:
            port: the port.
            length: of a run: the product of the extents of some innermost dimensions.
            selectors: what the dimensions outside the run must be.
        """
        run = found = 1
        for d, n in self._inner(port):
            if run < length:
                run *= n
            elif all(select(self, d) for select in selectors) and (
                self._step_bits(port, d) == run * found * self.bits(port)
            ):
                found *= n
            else:
                break
        return found

    def _step_bits(self, port: str, dim: int) -> int:
        bits = self.bits(port)
        return self.stride(port, dim) * (8 if bits >= 8 else bits)

    def fetches(self, port: str, hold: float, lanes: float) -> int:
        """Elements fetched, repeated fetches included.

        Dimensions in which only the stationary operand moves cost no fetch while what is inside them fits in
        ``hold`` bytes, or while they fit side by side in ``lanes`` lanes. The ring dimension is others' work.
        """
        total = footprint = 1
        left = max(int(lanes), 1)
        for d in range(len(self.sizes) - 1, -1, -1):
            n = self.sizes[d]
            if n == 1 or (d == self.ring and port == "stream"):
                continue
            if self.stride(port, d):
                footprint *= n
            elif self.repeats(d):
                if self.bytes(port, footprint) <= hold:
                    continue
                taken = min(n, left)
                left //= taken
                n = -(-n // taken)
            total *= n
        return total

    def accumulators(self) -> int:
        """Results alive at once: product of the kept extents inside the outermost reduced dimension."""
        outermost = min((d for d in self.reduced if self.sizes[d] > 1), default=len(self.sizes))
        return prod(n for d, n in enumerate(self.sizes) if d > outermost and d not in self.reduced)

    def base(self, port: str) -> int:
        """The immediate part of the port's base address."""
        return self.integer(f"{port}.base")

    def alignment(self, port: str) -> int:
        """Greatest common divisor in bytes of base and the strides outside the contiguous run; 0 = any."""
        run = self.run(port)
        found = self.base(port)
        length = 1
        for d, n in self._inner(port):
            if length < run:
                length *= n
            else:
                found = gcd(found, abs(self.stride(port, d)))
        return found

    def first(self, port: str) -> int:
        """Lowest byte address of the port, registers counting zero."""
        return self.base(port) + sum(
            min(0, self._step_bits(port, d)) * (n - 1) // 8 for d, n in enumerate(self.sizes) if n > 1
        )

    def last(self, port: str) -> int:
        """Highest byte address of the port, registers counting zero."""
        ends = sum(max(0, self._step_bits(port, d)) * (n - 1) // 8 for d, n in enumerate(self.sizes) if n > 1)
        return self.base(port) + ends + max(self.bytes(port, 1), 1) - 1

    def space(self, port: str) -> int:
        """Bytes of the addresses that the port sees: one slice in a pass, all windows or chips in a copy."""
        memory = self.memory(port)
        if self.command.kind != "copy":
            return memory.size
        if memory.slices > 1:
            return memory.window * memory.slices
        return memory.size * (self.machine.chips if memory.level == "chip" else 1)

    def names(self, field: str) -> tuple[str, ...]:
        """The names in a tuple field of names."""
        value = self.value(field)
        return tuple(str(v) for v in value) if isinstance(value, tuple) else (str(value),)

    def count(self, field: str, wanted: frozenset[str]) -> int:
        """How many entries of a tuple field are among the wanted names; without any, all but ``none``."""
        return sum(v in wanted if wanted else v != "none" for v in self.names(field))

    def chain_ops(self) -> tuple[str, ...]:
        """The chain's operations."""
        if "chain.op" not in self.command.fields:
            return ()
        return tuple(v for v in self.names("chain.op") if v != "none")

    def narrow(self) -> bool:
        """Whether the chain uses a unit of a half-width group."""
        used = assign_units(self.command.units, self.chain_ops()) or ()
        return any(self.command.units[group].narrow for group, _ in used)

    def dram_bytes(self) -> int:
        """Bytes moved from and to the main memory, whole bursts, index lists included."""
        total = 0
        joint = self.command.kind == "copy" and len(self.command.ports) > 1
        for port in self.command.ports:
            memory = self.memory(port)
            if not memory.main or not self.used(port):
                continue
            run = self.run(*self.command.ports) if joint else self.run(port)
            moved = prod(self.sizes) if joint else self.elements(port)
            bursts = -(-self.bytes(port, run) // memory.burst)
            total += moved // run * bursts * memory.burst
        indexed = self.dimension("index.dim")
        return total + (4 * self.sizes[indexed] if indexed >= 0 else 0)


@lru_cache(maxsize=4096)
def assign_units(groups: tuple[UnitGroup, ...], ops: tuple[str, ...]) -> tuple[tuple[int, str], ...] | None:
    """Assign chain operations to vector units: (group index, unit name) for each, None if impossible.

    Groups come in hardware order and each unit runs at most once; half-width groups are avoided if possible.
    """
    full = tuple(range(len(groups)))
    wide = tuple(i for i in full if not groups[i].narrow)
    return _assign(groups, wide, ops, 0, frozenset()) or _assign(groups, full, ops, 0, frozenset())


def _assign(
    groups: tuple[UnitGroup, ...], order: tuple[int, ...], ops: tuple[str, ...], at: int, busy: frozenset[str]
) -> tuple[tuple[int, str], ...] | None:
    if not ops:
        return ()
    for place in range(at, len(order)):
        for unit, can in groups[order[place]].units:
            if ops[0] in can and unit not in busy:
                rest = _assign(groups, order, ops[1:], place, busy | {unit})
                if rest is not None:
                    return ((order[place], unit), *rest)
    return None
