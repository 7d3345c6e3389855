"""What a command does, taken from its fields once: its specification, and where each port's addresses lead.

A machine's commands are known by their kind and the standard field names only (docs/design.md, section 6).
A constant copy limit of −1 means no limit; one that comes from a register moves nothing when it is negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from npuc.backends.instruction import Instruction, Reg
from npuc.backends.machine import Machine
from npuc.backends.model import Memory
from npuc.backends.view import View
from npuc.ir.commands import Bound, CopySpec, PassSpec, Port, Step, torch_type
from npuc.ir.errors import UserError
from npuc.ir.meetings import MEETINGS
from npuc.runtime.simulator.memory import SimulatedMemory, out_of_bounds, slice_distance

PASS_PORTS = ("stream", "stationary", "operand", "vrf", "out")


@dataclass(frozen=True)
class PortPlan:
    """A port's addresses: one axis for the slices (passes only), then the nest.

    Attributes:
        name: of the port.
        memory: that it addresses.
        base: address, resolved at dispatch.
        item: bytes of an element.
        sizes: extents of the axes.
        slice_steps: slices that a step along an axis moves.
        strides: bytes that a step along an axis moves inside the slice.
        windowed: the base counts the slices in windows (copies).
    """

    name: str
    memory: Memory
    base: Reg
    item: int
    sizes: tuple[int, ...]
    slice_steps: tuple[int, ...]
    strides: tuple[int, ...]
    windowed: bool

    def storage_strides(self) -> tuple[int, ...]:
        """Bytes that a step along an axis moves in the memory's storage."""
        distance = slice_distance(self.memory)
        return tuple(q * distance + r for q, r in zip(self.slice_steps, self.strides, strict=True))

    def start(self, address: int) -> tuple[int, int]:
        """Slice and local address of nest index 0."""
        if self.windowed and self.memory.window:
            return divmod(address, self.memory.window)
        return 0, address

    def span(self, steps: Sequence[int], extent: int | None = None) -> tuple[int, int]:
        """Lowest and highest multiple sum of steps over the axes; ``extent`` clips axis 0."""
        sizes = self.sizes if extent is None else (min(extent, self.sizes[0]), *self.sizes[1:])
        moves = [s * (n - 1) for s, n in zip(steps, sizes, strict=True)]
        return sum(m for m in moves if m < 0), sum(m for m in moves if m > 0)

    def locate(self, memory: SimulatedMemory, address: int, extent: int | None = None) -> int:
        """Byte of nest index 0 in the memory's storage.

        Raises:
            UserError: out-of-bounds or misaligned.
        """
        first, local = self.start(address)
        low, high = self.span(self.strides, extent)
        low_slice, high_slice = self.span(self.slice_steps, extent)
        if not (0 <= local + low and local + high + self.item <= memory.size):
            raise _named(self.name, out_of_bounds(memory, local + low, local + high + self.item))
        if not (0 <= first + low_slice and first + high_slice < max(memory.slices, 1)):
            slices = f"{self.name}: slices {first + low_slice} to {first + high_slice} of {memory.name}"
            raise UserError("out-of-bounds", f"{slices} do not all exist, it has {memory.slices}")
        if local % self.item:
            raise UserError(
                "misaligned",
                f"{self.name}: address {address:#x} is no multiple of the element's {self.item} bytes",
            )
        return first * memory.distance + local


@dataclass(frozen=True)
class PassPlan:
    """A pass: specification, ports and limits."""

    spec: PassSpec
    ports: dict[str, PortPlan]
    mask_limit: Reg
    limit: Reg


@dataclass(frozen=True)
class CopyPlan:
    """A copy: specification and ports; ``limit`` None moves everything, ``index`` is the index list.

    With ``meet`` it starts when all cores of the chip or system are ready to start it.
    """

    spec: CopySpec
    src: PortPlan
    dst: PortPlan
    index: PortPlan | None
    limit: Reg | None
    meet: str = ""

    def extent(self, registers: Sequence[int]) -> int:
        """The extent of nest dimension 0 that is moved."""
        size = self.spec.size[0]
        if self.limit is None:
            return size
        return max(0, min(size, self.limit.imm + registers[self.limit.reg]))


def plan_command(machine: Machine, instruction: Instruction) -> PassPlan | CopyPlan:
    """The plan of a pass or copy.

    Raises:
        UserError: the command uses an element type that is not simulated, or makes no sense.
    """
    fields = Fields(machine, instruction)
    return _plan_pass(fields) if fields.view.command.kind == "pass" else _plan_copy(fields)


class Fields:
    """An instruction's fields by name; those that the command lacks are neutral."""

    def __init__(self, machine: Machine, instruction: Instruction) -> None:
        self.machine = machine
        self.view: View = machine.view(instruction)
        size = self.ints("size")
        self.index_dim = self.dim("index.dim")
        whole = self.view.command.kind == "pass"
        self.kept = [d for d, n in enumerate(size) if whole or n > 1 or d in (0, self.index_dim)]
        self.size = tuple(size[d] for d in self.kept)

    def has(self, name: str) -> bool:
        return name in self.view.command.fields

    def ints(self, name: str) -> tuple[int, ...]:
        return self.view.integers(name)

    def int(self, name: str, default: int = 0) -> int:
        """An integer that no register may offset."""
        if not self.has(name):
            return default
        value = self.view.value(name)
        if isinstance(value, Reg) and value.reg:
            raise UserError(
                "bad-command", f"{name} comes from a register, which the simulator does not expect"
            )
        return self.view.integer(name)

    def reg(self, name: str, default: int = 0) -> Reg:
        """A number that a register may offset."""
        if not self.has(name):
            return Reg(default, 0)
        value = self.view.value(name)
        return value if isinstance(value, Reg) else Reg(self.view.integer(name), 0)

    def dim(self, name: str) -> int | None:
        """A dimension coded 0 = none, i + 1."""
        value = self.int(name)
        return value - 1 if value else None

    def bound(self, name: str) -> Bound | None:
        dim = self.dim(f"{name}.dim")
        return None if dim is None else Bound(dim, self.int(f"{name}.slice"))

    def type_name(self, port: str) -> str:
        name = f"{port}.type" if self.has(f"{port}.type") else "type"
        return str(self.view.scalar(name)) if self.has(name) else "none"

    def memory(self, port: str) -> Memory:
        return self.view.memory(port)

    def strides(self, port: str) -> tuple[int, ...]:
        """Byte strides, one per extent of the nest."""
        found = self.ints(f"{port}.strides")
        return tuple(found[d] if n > 1 else 0 for d, n in zip(self.kept, self.size, strict=True))

    def chain(self) -> tuple[Step, ...]:
        if not self.has("chain.op"):
            return ()
        ops, sources = self.view.names("chain.op"), self.view.names("chain.source")
        values = self.view.value("chain.value")
        numbers = values if isinstance(values, tuple) else (values,)
        steps = [
            Step(op, s, float(v))
            for op, s, v in zip(ops, sources, numbers, strict=True)  # type: ignore[arg-type]
        ]
        return tuple(step for step in steps if step.op != "none")


def _plan_pass(fields: Fields) -> PassPlan:
    slices = fields.machine.slices
    ring = fields.dim("ring_dim")
    used = [p for p in PASS_PORTS if p in fields.view.command.ports and fields.type_name(p) != "none"]
    ports = {name: _pass_port(fields, name, ring) for name in used}
    if "out" not in ports:
        raise UserError("bad-command", "a pass without out stores nothing")
    layouts = {name: _element_layout(fields, port) for name, port in ports.items()}
    reduce = fields.int("reduce")
    spec = PassSpec(
        size=fields.size,
        slices=slices,
        reduce=frozenset(d for d in range(len(fields.size)) if reduce >> d & 1),
        ring_dim=ring,
        mask=fields.bound("mask"),
        chain=fields.chain(),
        limit=fields.bound("limit"),
        fill=float(fields.view.scalar("fill")) if fields.has("fill") else 0.0,
        within=None,
        **layouts,
    )
    return PassPlan(spec, ports, fields.reg("mask.limit"), fields.reg("limit.limit"))


def _pass_port(fields: Fields, name: str, ring: int | None) -> PortPlan:
    """A pass's port: the slices are axis 0, all at the same local address."""
    memory = fields.memory(name)
    per_slice = int(memory.slices > 1)
    walks = name == "stream" and ring is not None and bool(per_slice)
    steps = [0 if walks else per_slice] + [int(walks and d == ring) for d in range(len(fields.size))]
    return PortPlan(
        name=name,
        memory=memory,
        base=fields.reg(f"{name}.base"),
        item=_item(fields.type_name(name)),
        sizes=(fields.machine.slices, *fields.size),
        slice_steps=tuple(steps),
        strides=(0, *fields.strides(name)),
        windowed=False,
    )


def _element_layout(fields: Fields, port: PortPlan) -> Port:
    """Element strides of a pass's port, the slice's first."""
    strides = (slice_distance(port.memory), *port.strides[1:])
    return Port(torch_type(fields.type_name(port.name)), _in_elements(port.name, strides, port.item))


def _plan_copy(fields: Fields) -> CopyPlan:
    index_dim = None if fields.index_dim is None else fields.kept.index(fields.index_dim)
    src, dst = _copy_port(fields, "src", index_dim), _copy_port(fields, "dst", None)
    scale = fields.int("index.scale")
    spec = CopySpec(
        size=fields.size,
        item=src.item,
        src=_in_elements("src", src.storage_strides(), src.item),
        dst=_in_elements("dst", dst.storage_strides(), dst.item),
        index_dim=index_dim,
        index_scale=_in_elements("index", (scale,), src.item)[0] if index_dim is not None else 0,
    )
    limit = fields.reg("limit", -1)
    index = None if index_dim is None else _index_port(fields, index_dim)
    meet = ("", *MEETINGS)[fields.int("meet")]
    return CopyPlan(spec, src, dst, index, None if limit == Reg(-1, 0) else limit, meet)


def _copy_port(fields: Fields, name: str, index_dim: int | None) -> PortPlan:
    """A copy's port; a stride of a per-slice memory moves whole windows and bytes inside the slice."""
    memory = fields.memory(name)
    strides = [0 if d == index_dim else s for d, s in enumerate(fields.strides(name))]
    steps = [_windows(memory, s, n) for s, n in zip(strides, fields.size, strict=True)]
    return PortPlan(
        name=name,
        memory=memory,
        base=fields.reg(f"{name}.base"),
        item=_item(fields.type_name(name)),
        sizes=fields.size,
        slice_steps=tuple(steps),
        strides=tuple(s - q * memory.window for s, q in zip(strides, steps, strict=True)),
        windowed=True,
    )


def _windows(memory: Memory, stride: int, extent: int) -> int:
    """The slices a stride moves: what is left of it must fit the slice over the whole extent."""
    if memory.slices <= 1 or not memory.window:
        return 0
    down = stride // memory.window
    if (stride - down * memory.window) * (extent - 1) < memory.size:
        return down
    return down + 1


def _index_port(fields: Fields, dim: int) -> PortPlan:
    """The index list: i32 in main memory, one entry per step of the dimension."""
    steps = tuple(4 if d == dim else 0 for d in range(len(fields.size)))
    zeros = (0,) * len(fields.size)
    return PortPlan(
        "index", fields.machine.main, fields.reg("index.base"), 4, fields.size, zeros, steps, windowed=False
    )


def _item(type_name: str) -> int:
    return torch.empty(0, dtype=torch_type(type_name)).element_size()


def _in_elements(name: str, strides: Sequence[int], item: int) -> tuple[int, ...]:
    for stride in strides:
        if stride % item:
            raise UserError(
                "misaligned", f"{name}: stride {stride} is no multiple of the element's {item} bytes"
            )
    return tuple(stride // item for stride in strides)


def _named(port: str, error: UserError) -> UserError:
    return UserError(error.kind, f"{port}: {error.message}", where=error.where, remedy=error.remedy)
