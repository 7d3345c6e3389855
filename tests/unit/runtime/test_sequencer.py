"""Control flow of the sequencer: what it dispatches, with which registers."""

from __future__ import annotations

import pytest
from commands_of import HALT, RNGD, control, port, tu
from npuc.backends.instruction import Instruction
from npuc.ir.errors import UserError
from npuc.runtime.simulator.program import load_instructions
from npuc.runtime.simulator.sequencer import Sequencer

MARK = tu((2,), port("out", 0, 4))
CONTROL_BYTES = RNGD.commands["set"].format.length
MARK_BYTES = RNGD.commands["tu"].format.length


def registers_at_dispatch(
    instructions: list[Instruction], register: int = 1, params: tuple[int, ...] = ()
) -> list[int]:
    """The value of a register at each dispatch."""
    sequencer = Sequencer(load_instructions(RNGD, instructions))
    return [
        sequencer.registers[register]
        for position in sequencer.trace("main", params)
        if instructions[position] is MARK
    ]


def test_arithmetic() -> None:
    program = [
        control("set", rd=2, imm=5),
        control("mul", rd=3, rs=2, imm=-7),
        control("add", rd=1, rs=2, rt=3, imm=100),
        MARK,
        HALT,
    ]
    assert registers_at_dispatch(program) == [70]


def test_register_zero_stays_zero_and_registers_have_64_bits() -> None:
    program = [
        control("set", rd=0, imm=9),
        MARK,
        control("set", rd=1, imm=2**62),
        control("mul", rd=1, rs=1, imm=2),
        MARK,
        HALT,
    ]
    assert registers_at_dispatch(program, register=0) == [0, 0]
    assert registers_at_dispatch(program, register=1) == [0, -(2**63)]


def test_nested_loops_count_and_survive_writes_to_their_register() -> None:
    program = [
        control("loop", rd=2, count=3),
        control("loop", rd=3, count=2),
        control("mul", rd=1, rs=2, imm=10),
        control("add", rd=1, rs=1, rt=3),
        control("set", rd=3, imm=77),
        MARK,
        control("end"),
        control("end"),
        HALT,
    ]
    assert registers_at_dispatch(program) == [0, 1, 10, 11, 20, 21]


def test_the_loop_register_holds_the_last_iteration_behind_the_loop() -> None:
    program = [control("loop", rd=1, count=4), control("end"), MARK, HALT]
    assert registers_at_dispatch(program) == [3]


def test_calls_return_behind_themselves_also_from_loops() -> None:
    body = 5 * CONTROL_BYTES
    program = [
        control("loop", rd=1, count=2),
        control("call", offset=body),
        control("end"),
        control("call", offset=body),
        HALT,
        MARK,
        control("ret"),
    ]
    assert registers_at_dispatch(program) == [0, 1, 1]


def test_parameters_are_indexed_by_a_register() -> None:
    program = [
        control("loop", rd=2, count=2),
        control("mul", rd=3, rs=2, imm=5),
        control("param", rd=1, index=1, rs=3),
        MARK,
        control("end"),
        HALT,
    ]
    assert registers_at_dispatch(program, params=tuple(range(100, 111))) == [101, 106]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([control("param", rd=1, index=3), HALT], "reads runtime parameter 3, 2 were given"),
        ([control("end"), HALT], "an end without a loop"),
        ([control("ret"), HALT], "a ret without a call"),
        ([control("call", offset=3), HALT], "no command starts at 0x3"),
        ([control("call", offset=0), HALT], "nested too deep"),
        ([control("set", rd=1, imm=1)], "past the end of its text"),
    ],
)
def test_broken_programs_are_refused(program: list[Instruction], message: str) -> None:
    with pytest.raises(UserError, match=message):
        registers_at_dispatch(program, params=(0, 1))


def test_an_unknown_entry_names_the_known_ones() -> None:
    program = load_instructions(RNGD, [HALT], {"last": 0, "all": 0})
    with pytest.raises(UserError, match=r"no entry 'first' \(its entries are all, last\)"):
        Sequencer(program).start("first", ())
