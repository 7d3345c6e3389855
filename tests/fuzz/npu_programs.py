"""Random `npu` programs: instructions of a machine with any fields, as a module and as a binary."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from npuc.backends.instruction import Instruction
from npuc.ir.npu import CommandOp, LabelOp, ProgramOp
from npuc.passes.emit import emit_programs, instructions_of
from npuc.passes.target_option import machine_of
from random_instructions import programs
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Region


@st.composite
def npu_modules(draw: st.DrawFn, target: str) -> ModuleOp:
    """A module with one program."""
    block = Block([LabelOp("main")])
    for instruction in draw(programs(target)):
        if instruction.command != "call":  # it names a label; the codec has tests of its own
            block.add_op(CommandOp(instruction, "model.layers.{}", "tile.pass"))
    return ModuleOp([ModuleOp([ProgramOp("decode_1x1", Region(block))])])


def lost_by_encoding(module: ModuleOp, target: str) -> Instruction | None:
    """The first instruction that is another one once it was encoded and decoded."""
    machine = machine_of(target)
    (emitted,) = emit_programs(module, target)
    text, offset = emitted.program.text, 0
    (program,) = [op for op in module.walk() if isinstance(op, ProgramOp)]
    for instruction in instructions_of(machine, program)[0]:
        decoded, length = machine.decode(text, offset)
        offset += length
        if decoded != machine.normalise(replace(instruction, location="")):
            return instruction
    return None
