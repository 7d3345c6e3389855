"""Bits of a command: encoder and decoder, derived from the declared fields.

A command is a little-endian number of its format's length. From bit 0: opcode (8), queue (8, the position in
``queues``), waits and signals (semaphore number, then count, 8 bits; count 0 = slot unused), then the fields
in declared order, a register number above the immediate where the field has one. The rest is reserved: zero.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from npuc.backends.builder import COUNT_BITS, HEADER_BITS, bits_for
from npuc.backends.instruction import FieldValue, Instruction, Reg, SemaphoreUse
from npuc.backends.model import MAX_TOKENS, Command, Field
from npuc.ir.errors import UserError

if TYPE_CHECKING:
    from npuc.backends.machine import Machine


def element_problem(machine: Machine, field: Field, value: object) -> str:
    """What is wrong with one element of a field; "" if it can be encoded."""
    if field.kind == "enum":
        return "" if value in field.names else f"is '{value}', not one of {', '.join(field.names)}"
    if isinstance(value, Reg):
        if not field.register:
            return f"is {value.imm} + r{value.reg}, but takes no register"
        if not 0 <= value.reg < machine.registers:
            return f"adds register {value.reg}, the machine has 0 … {machine.registers - 1}"
        value = value.imm
    if field.kind == "float":
        if not isinstance(value, (int, float)) or math.isnan(value):
            return f"is {value}, not a number"
        return (
            ""
            if math.isinf(value) or abs(value) < 3.4028235677973366e38
            else f"is {value}, too large for f32"
        )
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return f"is {value!r}, not an integer"
    return "" if field.low <= number <= field.high else f"is {number}, outside {field.low} … {field.high}"


def field_problems(machine: Machine, field: Field, value: FieldValue) -> list[str]:
    """All reasons why a field's value cannot be encoded."""
    if field.count is None:
        problem = element_problem(machine, field, value)
        return [f"{field.name} {problem}"] if problem else []
    if not isinstance(value, tuple) or isinstance(value, Reg):
        return [f"{field.name} is {value!r}, not a tuple of up to {field.count}"]
    if len(value) > field.count:
        return [f"{field.name} has {len(value)} elements, at most {field.count} fit"]
    found = [(i, element_problem(machine, field, element)) for i, element in enumerate(value)]
    return [f"{field.name}[{i}] {problem}" for i, problem in found if problem]


def use_problems(machine: Machine, uses: Sequence[SemaphoreUse], slots: int, what: str) -> list[str]:
    """All reasons why waits or signals cannot be encoded."""
    found = [f"{len(uses)} {what}s are given, the format has room for {slots}"] if len(uses) > slots else []
    for semaphore, count in uses:
        if not 0 <= semaphore < machine.semaphores:
            found.append(f"{what} on semaphore {semaphore}, the machine has 0 … {machine.semaphores - 1}")
        if not 1 <= count <= MAX_TOKENS:
            found.append(f"{what} of {count} tokens on semaphore {semaphore}, outside 1 … {MAX_TOKENS}")
    return found


def encoding_problems(machine: Machine, instruction: Instruction) -> list[str]:
    """All reasons why an instruction has no encoding; each is a sentence without the command's name."""
    command = machine.commands.get(instruction.command)
    if command is None:
        return [f"unknown command, the machine has {', '.join(machine.commands)}"]
    found: list[str] = []
    if instruction.queue not in command.queues:
        found.append(f"queue is '{instruction.queue}', not one of {', '.join(command.queues)}")
    for name, value in instruction.fields.items():
        if name not in command.fields:
            found.append(f"unknown field '{name}', the command has {', '.join(command.fields)}")
        else:
            found += field_problems(machine, command.fields[name], value)
    found += use_problems(machine, instruction.waits, command.format.waits, "wait")
    return found + use_problems(machine, instruction.signals, command.format.signals, "signal")


def _element_bits(field: Field, value: object, register_bits: int) -> int:
    register = 0
    if isinstance(value, Reg):
        value, register = value
    if field.kind == "enum":
        return field.names.index(str(value))
    if field.kind == "float":
        return int.from_bytes(struct.pack("<f", value), "little")
    bits = operator.index(value) & ((1 << field.bits) - 1)  # type: ignore[arg-type]
    return bits | register << field.bits if register_bits else bits


def element_width(machine: Machine, field: Field) -> int:
    """Bits of one element of a field, with its register."""
    return field.bits + (bits_for(machine.registers) if field.register else 0)


def _field_bits(machine: Machine, field: Field, value: FieldValue) -> int:
    """A field's bits, not yet shifted to its offset."""
    width = element_width(machine, field)
    if field.count is None:
        return _element_bits(field, value, width - field.bits)
    out = 0
    elements = value if isinstance(value, tuple) else ()
    for i in range(field.count):
        element = elements[i] if i < len(elements) else field.default
        out |= _element_bits(field, element, 0) << i * width
    return out


def default_bits(machine: Machine, command: Command) -> dict[str, int]:
    """Bits of each field's default, not shifted."""
    return {name: _field_bits(machine, field, field.neutral) for name, field in command.fields.items()}


def encode(machine: Machine, instruction: Instruction) -> bytes:
    """Encode an instruction.

    Raises:
        UserError: when a field, queue or semaphore has no encoding; names the command and its location.
    """
    problems = encoding_problems(machine, instruction)
    if problems:
        raise UserError(
            "encoding",
            f"{instruction.command}: {problems[0]}",
            where=instruction.location,
            remedy=f"see the ISA manual of {machine.name}",
        )
    command = machine.commands[instruction.command]
    defaults = machine.default_bits[command.name]
    bits = command.opcode | machine.queue_codes[instruction.queue] << 8
    at = HEADER_BITS
    semaphore_bits = bits_for(machine.semaphores)
    for uses, slots in (
        (instruction.waits, command.format.waits),
        (instruction.signals, command.format.signals),
    ):
        for i, (semaphore, count) in enumerate(uses):
            bits |= (semaphore | count << semaphore_bits) << at + i * (semaphore_bits + COUNT_BITS)
        at += slots * (semaphore_bits + COUNT_BITS)
    for name, field in command.fields.items():
        given = instruction.fields.get(name)
        found = defaults[name] if given is None else _field_bits(machine, field, given)
        bits |= found << field.offset
    return bits.to_bytes(command.format.length, "little")


class _Decoder:
    """Decodes one command at an offset; every error names that offset."""

    def __init__(self, machine: Machine, data: bytes, offset: int) -> None:
        self.machine = machine
        self.data = data
        self.offset = offset

    def fail(self, message: str) -> NoReturn:
        raise UserError(
            "malformed-program",
            message,
            where=f"offset {self.offset:#x}",
            remedy=f"the text is damaged or not made for {self.machine.name}; build the program again",
        )

    def decode(self) -> tuple[Instruction, int]:
        if not 0 <= self.offset < len(self.data):
            self.fail(f"no command here, the text has {len(self.data)} bytes")
        command = self.machine.opcodes.get(self.data[self.offset])
        if command is None:
            self.fail(f"unknown opcode {self.data[self.offset]:#04x}")
        length = command.format.length
        if self.offset + length > len(self.data):
            self.fail(f"{command.name} has {length} bytes, {len(self.data) - self.offset} are left")
        bits = int.from_bytes(self.data[self.offset : self.offset + length], "little")
        queue = self.machine.queue_names.get(bits >> 8 & 0xFF, "")
        if queue not in command.queues:
            self.fail(
                f"{command.name} on queue code {bits >> 8 & 0xFF}, not one of {', '.join(command.queues)}"
            )
        waits, at = self.uses(bits, HEADER_BITS, command.format.waits)
        signals, end = self.uses(bits, at, command.format.signals)
        fields: dict[str, FieldValue] = {}
        defaults = self.machine.default_bits[command.name]
        for name, field in command.fields.items():
            width = element_width(self.machine, field) * (field.count or 1)
            chunk = bits >> field.offset & ((1 << width) - 1)
            if chunk != defaults[name]:
                fields[name] = self.field(field, chunk)
            end = field.offset + width
        if bits >> end:
            self.fail(f"{command.name} has nonzero reserved bits from bit {end}")
        return Instruction(command.name, queue, fields, waits, signals), length

    def uses(self, bits: int, at: int, slots: int) -> tuple[tuple[SemaphoreUse, ...], int]:
        semaphore_bits = bits_for(self.machine.semaphores)
        width = semaphore_bits + COUNT_BITS
        found: list[SemaphoreUse] = []
        for i in range(slots):
            slot = bits >> at + i * width & ((1 << width) - 1)
            if not slot:
                continue
            semaphore, count = slot & ((1 << semaphore_bits) - 1), slot >> semaphore_bits
            if count == 0 or len(found) != i or semaphore >= self.machine.semaphores:
                self.fail(f"semaphore slot {i} holds semaphore {semaphore}, count {count}")
            found.append(SemaphoreUse(semaphore, count))
        return tuple(found), at + slots * width

    def field(self, field: Field, chunk: int) -> FieldValue:
        if field.count is None:
            return self.element(field, chunk)
        width = element_width(self.machine, field)
        mask = (1 << width) - 1
        return tuple(self.element(field, chunk >> i * width & mask) for i in range(field.count))  # type: ignore[return-value]

    def element(self, field: Field, bits: int) -> int | float | str | Reg:
        if field.kind == "enum":
            if bits >= len(field.names):
                self.fail(f"{field.name} has code {bits}, the last one is {len(field.names) - 1}")
            return field.names[bits]
        if field.kind == "float":
            value = struct.unpack("<f", bits.to_bytes(4, "little"))[0]
            if math.isnan(value):
                self.fail(f"{field.name} is not a number")
            return value
        register, number = bits >> field.bits, bits & ((1 << field.bits) - 1)
        if field.signed and number >> field.bits - 1:
            number -= 1 << field.bits
        if not field.low <= number <= field.high or register >= self.machine.registers:
            self.fail(f"{field.name} is {number}, outside {field.low} … {field.high}")
        return Reg(number, register) if register else number


def decode(machine: Machine, data: bytes, offset: int) -> tuple[Instruction, int]:
    """Decode the command at an offset: (instruction with the fields that differ from their defaults, bytes).

    Raises:
        UserError: with kind ``malformed-program``, naming the offset: unknown opcode, nonzero reserved bits,
            a value outside its range, or the data ends inside the command.
    """
    return _Decoder(machine, data, offset).decode()
