"""From `npu` programs to encoded ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from npuc.backends.elf import Program
from npuc.backends.instruction import Instruction
from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.ir.errors import UserError
from npuc.ir.npu import CommandOp, LabelOp, ProgramOp
from npuc.passes.command_fields import element_name
from npuc.passes.target_option import machine_of
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, MemRefType, ModuleOp, StringAttr

IoTensor = tuple[int, tuple[int, ...], str]


@dataclass(frozen=True)
class EmittedProgram:
    """An encoded program.

    Attributes:
        name: that of its bucket.
        io: inputs and outputs in main memory: (address, shape, element type); logits are [rows, vocabulary].
    """

    name: str
    program: Program
    io: dict[str, IoTensor]


def emit_programs(module: ModuleOp, target: str) -> list[EmittedProgram]:
    """All programs of a scheduled module, in order.

    Raises:
        UserError: a command cannot be encoded.
    """
    machine = machine_of(target)
    emitted: list[EmittedProgram] = []
    for op in module.walk():
        if isinstance(op, ProgramOp):
            holder = op.parent_op()
            assert isinstance(holder, ModuleOp)
            io = io_of(machine, holder)
            instructions, symbols = instructions_of(machine, op)
            description = {
                **_json(holder.attributes.get("npuc.bucket")),
                "io": {k: list(v) for k, v in io.items()},
            }
            program = encode(machine, instructions, symbols, description)
            emitted.append(EmittedProgram(op.sym_name.data, program, io))
    return emitted


def instructions_of(machine: Machine, op: ProgramOp) -> tuple[list[Instruction], dict[str, int]]:
    """The program's instructions, calls resolved, and the byte offset of each label."""
    symbols: dict[str, int] = {}
    instructions: list[Instruction] = []
    offset = 0
    for inner in op.body.block.ops:
        if isinstance(inner, LabelOp):
            symbols[inner.label.data] = offset
        elif isinstance(inner, CommandOp):
            instructions.append(inner.instruction)
            offset += machine.command(instructions[-1]).format.length
    return [_resolved(instruction, symbols) for instruction in instructions], symbols


def encode(
    machine: Machine,
    instructions: list[Instruction],
    symbols: dict[str, int],
    description: dict[str, Any] | None = None,
) -> Program:
    """Encode instructions; the line table has an entry wherever the location changes.

    Raises:
        UserError: an instruction cannot be encoded.
    """
    text = bytearray()
    lines: list[tuple[int, str]] = []
    for instruction in instructions:
        if instruction.location != (lines[-1][1] if lines else ""):
            lines.append((len(text), instruction.location))
        text += machine.encode(instruction)
    return Program(machine.name, bytes(text), symbols, lines, description or {})


def _resolved(instruction: Instruction, symbols: dict[str, int]) -> Instruction:
    """A call with the offset of its label instead of the name."""
    target = instruction.fields.get("offset")
    if instruction.command != "call" or not isinstance(target, str):
        return instruction
    if target not in symbols:
        raise UserError(
            "unknown-label",
            f"call of '{target}', which is no label",
            where=instruction.location,
            remedy=f"the labels are {', '.join(symbols)}",
        )
    return Instruction("call", instruction.queue, {"offset": symbols[target]}, location=instruction.location)


def io_of(machine: Machine, holder: ModuleOp) -> dict[str, IoTensor]:
    """The program's tensors in main memory, from the attribute that allocate-buffers sets."""
    found = holder.attributes.get("npuc.io")
    result: dict[str, IoTensor] = {}
    for name, attr in found.data.items() if isinstance(found, DictionaryAttr) else ():
        assert isinstance(attr, DictionaryAttr)
        kind = attr.data["type"]
        assert isinstance(kind, MemRefType)
        shape = kind.get_shape()
        if name.startswith("logits"):
            shape = (prod(shape[:-1]), shape[-1])
        result[name] = tile.integer(attr.data["address"]), shape, element_name(machine, kind.element_type)
    return result


def _json(attr: object) -> dict[str, Any]:
    """A dictionary attribute of numbers and names."""
    if not isinstance(attr, DictionaryAttr):
        return {}
    plain = {k: v for k, v in attr.data.items() if isinstance(v, IntegerAttr | StringAttr)}
    return {k: v.value.data if isinstance(v, IntegerAttr) else v.data for k, v in plain.items()}
