"""Which memory an operand of a pass or copy stands for, and which bytes of it are touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.passes.command_fields import element_name
from npuc.passes.programs import buffer_bytes, callees_first, calls_of, slice_elements
from xdsl.dialects.builtin import MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, SSAValue

WRITE_PORTS = ("out", "dst")
SHARED = "shared by ranks"
"""The buffers of an exchange between ranks count as one, which a copy that waits for the others changes."""


@dataclass
class Aliases:
    """Arguments of a program's functions that may be the same buffer, because some call passes one twice."""

    first: dict[BlockArgument, BlockArgument] = field(default_factory=dict[BlockArgument, BlockArgument])

    @staticmethod
    def of(program: ModuleOp) -> Aliases:
        """Follow the calls from the entries inwards."""
        result = Aliases()
        functions = callees_first(program)
        by_name = {f.sym_name.data: f for f in functions}
        for function in reversed(functions):
            for call in calls_of(function):
                result._call(call, by_name[call.callee.string_value()])
        return result

    def root(self, value: SSAValue) -> SSAValue:
        """One value for all that may be the same buffer."""
        while isinstance(value, BlockArgument) and value in self.first:
            value = self.first[value]
        return value

    def _call(self, call: tile.CallOp, callee: FuncOp) -> None:
        seen: dict[SSAValue, BlockArgument] = {}
        for operand, argument in zip(call.arguments, callee.body.block.args, strict=True):
            if isinstance(operand.type, MemRefType):
                root = self.root(operand)
                earlier = self.root(seen.setdefault(root, argument))
                own = self.root(argument)
                if earlier is not own:
                    assert isinstance(own, BlockArgument)
                    assert isinstance(earlier, BlockArgument)
                    self.first[own] = earlier


@dataclass(frozen=True)
class Touched:
    """Bytes [start, stop) of an object that lies apart from all others.

    The object is the buffer's allocation, a function's argument, or the name of a cache's part, of which the
    layers and slots are not told apart.
    """

    memory: str
    root: tile.AllocOp | BlockArgument | str
    start: int
    stop: int


def accesses(
    machine: Machine, aliases: Aliases, op: tile.PassOp | tile.CopyOp
) -> Iterator[tuple[Touched, bool]]:
    """What a command touches in each slice, and whether it writes it; but weights, which nothing writes."""
    spec = op.spec
    for name in spec.ports:
        found = _touched(machine, aliases, op.buffers, spec, name)
        if found is not None:
            shared = isinstance(op.buffers[spec.ports[name].buffer].owner, tile.SharedOp)
            meets = shared and isinstance(spec, tile.CopySpec) and bool(spec.meet)
            yield found, name in WRITE_PORTS or meets


def _touched(
    machine: Machine,
    aliases: Aliases,
    buffers: Sequence[SSAValue],
    spec: tile.PassSpec | tile.CopySpec,
    name: str,
) -> Touched | None:
    port = spec.ports[name]
    value = buffers[port.buffer]
    owner = value.owner
    if isinstance(owner, tile.WeightOp):
        return None
    memory = tile.memory_of(value)
    if isinstance(owner, tile.SharedOp):
        return Touched(memory, f"{SHARED} {owner.exchange}", 0, 1)
    if isinstance(owner, tile.CacheSlotOp):
        return Touched(memory, f"{owner.symbol.string_value()}.{owner.part.data}", 0, 1)
    size = spec.size
    if name == "index" and isinstance(spec, tile.CopySpec):
        size = (spec.size[max(spec.index_dim, 0)],)
    start, stop = _extent(machine, size, port, value)
    root = owner if isinstance(owner, tile.AllocOp) else aliases.root(value)
    assert isinstance(root, tile.AllocOp | BlockArgument)
    return Touched(memory, root, start, stop)


def _extent(machine: Machine, size: tuple[int, ...], port: tile.Port, value: SSAValue) -> tuple[int, int]:
    """First and last touched byte (exclusive) inside one slice of the buffer."""
    assert isinstance(value.type, MemRefType)
    memory = machine.memories[tile.memory_of(value)]
    whole = buffer_bytes(machine, value)
    if port.index:
        return 0, whole
    bits = machine.element_types[element_name(machine, value.type.element_type)].bits
    steps = [stride * (n - 1) for stride, n in zip(port.strides, size, strict=True)]
    offset = port.offset % max(slice_elements(machine, value.type), 1)
    first = offset + sum(min(step, 0) for step in steps)
    last = offset + sum(max(step, 0) for step in steps)
    start = first * bits // 8 // memory.write_granule * memory.write_granule
    stop = -(-(last + 1) * bits // 8 // memory.write_granule) * memory.write_granule
    return max(start, 0), min(stop, whole)
