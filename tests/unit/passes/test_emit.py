"""npu operations as instructions and back, and their encoding with symbols and line table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from npuc.backends.assembler import commands_of
from npuc.backends.instruction import Instruction, Reg, SemaphoreUse
from npuc.ir.errors import UserError
from npuc.ir.npu import CommandOp, LabelOp, ProgramOp
from npuc.passes.emit import emit_programs, encode, instructions_of
from npuc.passes.target_option import machine_of
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, Region
from xdsl.utils.exceptions import VerifyException

_ints = st.integers(-(2**31), 2**31 - 1)
_values = st.one_of(
    _ints,
    st.floats(width=32, allow_nan=False),
    st.sampled_from(["f32", "none", "hbm"]),
    st.builds(Reg, _ints, st.integers(0, 63)),
    st.lists(_ints, min_size=1, max_size=8).map(tuple),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=12).map(tuple),
    st.lists(st.sampled_from(["exp", "mul"]), min_size=1, max_size=12).map(tuple),
)
_uses = st.lists(st.builds(SemaphoreUse, st.integers(0, 63), st.integers(1, 255)), max_size=4).map(tuple)


@given(
    st.builds(
        Instruction,
        st.just("tu"),
        st.just("main"),
        st.dictionaries(st.sampled_from(["size", "fill", "out.base", "out.type"]), _values),
        _uses,
        _uses,
        st.just("tile.pass model.layers.{}.mlp"),
    )
)
def test_a_command_says_what_its_instruction_says(instruction: Instruction) -> None:
    op = CommandOp(instruction, "model.layers.{}.mlp", "tile.pass")
    op.verify()
    assert op.instruction == instruction


def program(*ops: Operation) -> ProgramOp:
    return ProgramOp("decode_1x64", Region(Block(ops)))


def control(command: str, module: str = "", **fields: int | str) -> CommandOp:
    return CommandOp(Instruction(command, "control", dict(fields)), module)


def test_labels_become_symbols_and_calls_offsets() -> None:
    machine = machine_of("rngd")
    found = program(
        LabelOp("last"), control("call", offset="layer"), control("halt"), LabelOp("layer"), control("ret")
    )
    found.verify()
    instructions, symbols = instructions_of(machine, found)
    assert symbols == {"last": 0, "layer": 32}
    encoded = encode(machine, instructions, symbols)
    assert [i.command for _, i in commands_of(machine, encoded.text)] == ["call", "halt", "ret"]
    assert machine.decode(encoded.text)[0].fields == {"offset": 32}


def test_the_line_table_has_an_entry_where_the_location_changes() -> None:
    machine = machine_of("rngd")
    found = program(
        LabelOp("last"),
        control("set", rd=1, imm=5),
        control("set", "model.embed_tokens", rd=1, imm=6),
        control("set", "model.embed_tokens", rd=1, imm=7),
        control("halt"),
    )
    instructions, symbols = instructions_of(machine, found)
    assert encode(machine, instructions, symbols).lines == [(16, "model.embed_tokens"), (48, "")]


def test_every_program_of_a_module_is_emitted() -> None:
    bucket = ModuleOp([program(LabelOp("last"), control("halt"))])
    (emitted,) = emit_programs(ModuleOp([bucket]), "rngd")
    assert (emitted.name, emitted.program.target, emitted.program.symbols) == (
        "decode_1x64",
        "rngd",
        {"last": 0},
    )


def test_calls_of_unknown_labels_are_refused() -> None:
    found = program(LabelOp("last"), control("call", offset="nowhere"))
    with pytest.raises(VerifyException, match=r"call of '?nowhere"):
        found.verify()
    with pytest.raises(UserError, match="call of 'nowhere'"):
        instructions_of(machine_of("rngd"), found)


def test_a_label_stands_once() -> None:
    found = program(LabelOp("last"), LabelOp("last"), control("halt"))
    with pytest.raises(VerifyException, match=r"label '?last'? stands 2 times"):
        found.verify()
