"""Instructions from passes and copies: fields, byte strides and nests that fit the machine's command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from npuc.backends.instruction import FieldValue, Instruction, Reg
from npuc.backends.machine import Machine
from npuc.backends.model import Command, Memory
from npuc.ir import tile
from npuc.passes.algorithms.nests import PLAIN, REDUCED, Dim, fit
from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Attribute, SSAValue

Address = int | Reg
SPARE_BYTES = 8  # room for an element of any type
RING, MASK, LIMIT, CLIP, INDEX = "ring", "mask", "limit", "clip", "index"


class NoSuchCommand(Exception):
    """A machine command cannot express a pass or copy; the message says why."""


@dataclass(frozen=True)
class Operand:
    """Where a port's buffer lies.

    Attributes:
        memory: its memory.
        type: its element type.
        address: of the port's first element.
        window: in copies, from an address in a slice, or in a chip's shared buffer, to that in the next one.
    """

    memory: str
    type: str
    address: Address
    window: int = 0


def element_name(machine: Machine, element: Attribute) -> str:
    """The machine's name of an element type; the IR's own where the machine has none."""
    return machine_type(machine, str(element))


def machine_type(machine: Machine, name: str) -> str:
    """The machine's name of the element type that the IR calls `name`."""
    name = name.lower()
    return name.removesuffix("fn") if name not in machine.element_types else name


def operand_of(machine: Machine, value: SSAValue, address: Address) -> Operand:
    """The operand that a buffer value is."""
    assert isinstance(value.type, MemRefType)
    memory, owner = machine.memories[tile.memory_of(value)], value.owner
    window = memory.window
    if isinstance(owner, tile.SharedOp) and owner.system:
        window = tile.integer(owner.attributes["window"]) if "window" in owner.attributes else memory.size
    return Operand(memory.name, element_name(machine, value.type.element_type), address, window)


def pass_instruction(
    machine: Machine,
    choice: tuple[str, str],
    spec: tile.PassSpec,
    operands: Mapping[str, Operand],
    limits: Mapping[str, Address],
) -> Instruction:
    """The instruction of a pass as a given (command, queue).

    Raises:
        NoSuchCommand: the command lacks a port, memory, element type or field that the pass needs.
    """
    command = machine.commands[choice[0]]
    roles = {d: REDUCED for d in spec.reduce}
    special = ((RING, spec.ring_dim), (MASK, _dim(spec.mask)), (LIMIT, _dim(spec.limit)))
    for role, d in special:
        if d >= 0:
            roles[d] = roles.get(d, PLAIN) + role
    dims = _nest(machine, command, spec.size, spec.ports, operands, roles)
    fields: dict[str, FieldValue] = {"size": tuple(dim.size for dim in dims)}
    if spec.reduce:
        fields["reduce"] = sum(1 << i for i, dim in enumerate(dims) if REDUCED in dim.role)
    if spec.fill is not None:
        fields["fill"] = spec.fill
    for role, name in ((RING, "ring_dim"), (MASK, "mask.dim"), (LIMIT, "limit.dim")):
        if any(role in dim.role for dim in dims):
            fields[name] = next(i for i, dim in enumerate(dims) if role in dim.role) + 1
    for name, limit in (("mask", spec.mask), ("limit", spec.limit)):
        if limit is not None:
            fields[f"{name}.limit"] = limits[name]
            fields[f"{name}.slice"] = limit.slice_stride
    fields.update(_chain(spec))
    fields.update(_port_fields(machine, command, spec.ports, operands, dims))
    return _checked(command, choice[1], fields)


def copy_instruction(
    machine: Machine,
    choice: tuple[str, str],
    spec: tile.CopySpec,
    operands: Mapping[str, Operand],
    limits: Mapping[str, Address],
) -> Instruction:
    """The instruction of a copy as a given (command, queue); addresses of per-slice memories use windows.

    Raises:
        NoSuchCommand: as in pass_instruction.
    """
    command = machine.commands[choice[0]]
    roles: dict[int, str] = {0: CLIP} if spec.limit is not None else {}
    if spec.index_dim >= 0:
        roles[spec.index_dim] = roles.get(spec.index_dim, PLAIN) + INDEX
    ports = {name: port for name, port in spec.ports.items() if name != "index"}
    dims = _nest(machine, command, spec.size, ports, operands, roles)
    source = operands["src"]
    fields: dict[str, FieldValue] = {"size": tuple(dim.size for dim in dims), "type": source.type}
    fields.update(_port_fields(machine, command, ports, operands, dims))
    if spec.limit is not None:
        fields["limit"] = limits["limit"]
    if spec.meet:
        fields["meet"] = 1 + tile.MEETINGS.index(spec.meet)
    if spec.index_dim >= 0:
        fields["index.dim"] = next(i for i, dim in enumerate(dims) if INDEX in dim.role) + 1
        fields["index.base"] = operands["index"].address
        fields["index.scale"] = byte_offset(machine, source.type, spec.index_scale)
    return _checked(command, choice[1], fields)


def nothing(machine: Machine, queue: str) -> Instruction:
    """An instruction that only waits and signals: a copy of no element, or a fill of the spare bytes.

    Raises:
        NoSuchCommand: no command of the queue can do that.
    """
    for command in machine.commands.values():
        if command.kind != "control" and queue in command.queues:
            try:
                instruction = _idle(machine, command, queue)
            except NoSuchCommand:
                continue
            if not machine.check(instruction):
                return instruction
    raise NoSuchCommand(f"queue '{queue}' of {machine.name} has no command that can do nothing")


def _idle(machine: Machine, command: Command, queue: str) -> Instruction:
    if command.kind == "copy":
        kind = next(t.name for t in machine.element_types.values() if t.bits >= 8)
        fields: dict[str, FieldValue] = {"type": kind, "limit": 0}
        return _checked(command, queue, fields)
    memory = machine.memories[command.ports["out"].memories[0]]
    kind = max(command.ports["out"].types, key=lambda name: machine.element_types[name].bits)
    width = machine.element_types[kind].bits // 8
    spare = spare_bytes(machine, memory)
    place = Operand(memory.name, kind, memory.size - spare, memory.window)
    spec = tile.PassSpec((spare // width,), {"out": tile.Port(0, 0, (1,))}, fill=0.0)
    return pass_instruction(machine, (command.name, queue), spec, {"out": place}, {})


def spare_bytes(machine: Machine, memory: Memory) -> int:
    """Bytes kept free at the end of a memory for passes that do nothing but store them."""
    passes = [c for c in machine.commands.values() if c.kind == "pass"]
    if all(command.ports["out"].memories[0] != memory.name for command in passes):
        return 0
    return max(memory.write_granule, SPARE_BYTES)


def byte_offset(machine: Machine, element: str, elements: int) -> int:
    """Bytes that so many elements take."""
    return elements * machine.element_types[element].bits // 8


def _dim(limit: tile.Limit | None) -> int:
    return limit.dim if limit is not None else -1


def _nest(
    machine: Machine,
    command: Command,
    size: Sequence[int],
    ports: Mapping[str, tile.Port],
    operands: Mapping[str, Operand],
    roles: Mapping[int, str],
) -> list[Dim]:
    """The nest in byte strides, within the command's limits."""
    for name in ports:
        if name not in command.ports:
            raise NoSuchCommand(f"it has no port '{name}'")
    steps = [_byte_strides(machine, command, port, operands[name]) for name, port in ports.items()]
    dims = [Dim(n, tuple(step[d] for step in steps), roles.get(d, PLAIN)) for d, n in enumerate(size)]
    field = command.fields["size"]
    fitted = fit(dims, field.count or 1, int(field.high))
    if fitted is None:
        raise NoSuchCommand(
            f"nest {tuple(size)} does not fit {field.count} entries of up to {int(field.high)}"
        )
    return fitted


def _byte_strides(machine: Machine, command: Command, port: tile.Port, operand: Operand) -> tuple[int, ...]:
    """Strides as the command counts them: bytes, or elements of types below 8 bits; copies add windows."""
    kind = machine.element_types.get(operand.type)
    if kind is None:
        raise NoSuchCommand(f"the machine has no element type '{operand.type}'")
    scale = max(kind.bits // 8, 1)
    window = operand.window if command.kind == "copy" else 0
    slices = port.slices or (0,) * len(port.strides)
    return tuple(s * scale + k * window for s, k in zip(port.strides, slices, strict=True))


def _chain(spec: tile.PassSpec) -> Iterator[tuple[str, FieldValue]]:
    if spec.chain:
        yield "chain.op", tuple(step.op for step in spec.chain)
        yield "chain.source", tuple(step.source for step in spec.chain)
        yield "chain.value", tuple(step.value for step in spec.chain)


def _port_fields(
    machine: Machine,
    command: Command,
    ports: Mapping[str, tile.Port],
    operands: Mapping[str, Operand],
    dims: Sequence[Dim],
) -> Iterator[tuple[str, FieldValue]]:
    for number, name in enumerate(ports):
        operand, declared = operands[name], command.ports[name]
        if operand.memory not in declared.memories:
            raise NoSuchCommand(f"its port '{name}' does not reach memory '{operand.memory}'")
        if f"{name}.memory" in command.fields:
            yield f"{name}.memory", operand.memory
        if f"{name}.type" in command.fields:
            if operand.type not in declared.types:
                raise NoSuchCommand(f"its port '{name}' does not take {operand.type}")
            yield f"{name}.type", operand.type
        yield f"{name}.base", operand.address
        yield f"{name}.strides", tuple(dim.strides[number] for dim in dims)


def _checked(command: Command, queue: str, fields: Mapping[str, FieldValue]) -> Instruction:
    """The instruction without zero fields that the command lacks."""
    kept: dict[str, FieldValue] = {}
    for name, value in fields.items():
        if name in command.fields:
            kept[name] = value
        elif not _neutral(value):
            raise NoSuchCommand(f"it has no field '{name}'")
    return Instruction(command.name, queue, kept)


def _neutral(value: FieldValue) -> bool:
    return value in (0, 0.0, "none", Reg(0, 0))
