"""Assembly text: exact both ways, readable, and errors with line and column."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from npuc.backends.assembler import assemble, assemble_program, disassemble
from npuc.backends.instruction import FieldValue, Instruction, Reg, SemaphoreUse
from npuc.backends.machine import Machine
from npuc.ir.errors import UserError
from random_instructions import MACHINES, programs


@pytest.mark.parametrize("target", MACHINES)
def test_assembling_a_disassembly_gives_the_same_bytes(target: str) -> None:
    machine = MACHINES[target]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(program=programs(target))
    def check(program: list[Instruction]) -> None:
        text = b"".join(map(machine.encode, program))
        assert assemble(machine, disassemble(machine, text)) == text

    check()


def control(command: str, **fields: FieldValue) -> Instruction:
    return Instruction(command, "control", dict(fields))


PROGRAM = [
    control("set", rd=2, imm=65536),
    control("loop", rd=1, count=28),
    Instruction(
        "tu", "main",
        {"size": (4, 64, 16), "reduce": 0b110, "stream.base": Reg(0x40, 2), "stream.strides": (0, 0, 2),
         "stream.type": "bf16", "chain.op": ("mul", "exp"), "chain.source": ("imm",), "chain.value": (0.1,)},
        (SemaphoreUse(3, 1),), (SemaphoreUse(4, 2),),
    ),
    control("call", offset=464),
    control("end"),
    control("halt"),
    control("ret"),
]  # fmt: skip
LISTING = """\
last:
; tile.pass in model.layers.{}.mlp
set rd=r2 imm=0x10000
loop rd=r1 count=28
  main tu size=4,64,16 reduce=0b110 stream.base=r2+0x40 stream.strides=0,0,2 stream.type=bf16 \
chain.op=mul,exp chain.source=imm chain.value=0.1 wait=3:1 signal=4:2
  call offset=L1d0
end
; tile.copy
halt
L1d0:
ret
"""


def test_listing_is_readable(rngd: Machine) -> None:
    text = b"".join(map(rngd.encode, PROGRAM))
    place = "tile.pass in model.layers.{}.mlp"
    listing = disassemble(rngd, text, {"last": 0}, [(0, place), (16, place), (448, "tile.copy")])
    assert listing == LISTING
    again = assemble_program(rngd, listing)
    assert again.text == text
    assert again.symbols["last"] == 0


def test_labels_of_symbols_and_calls(rngd: Machine) -> None:
    source = "first:\ncall offset=body\nhalt\nbody: ; on one line with a comment\nbody2: ret\nend_:\n"
    program = assemble_program(rngd, source)
    assert program.symbols == {"first": 0, "body": 32, "body2": 32, "end_": 48}
    listing = disassemble(rngd, program.text, program.symbols)
    assert assemble_program(rngd, listing) == program


def test_generated_labels_do_not_clash(rngd: Machine) -> None:
    text = rngd.encode(control("call", offset=16)) + rngd.encode(control("ret"))
    listing = disassemble(rngd, text, {"L10": 0})
    assert "call offset=L10_" in listing
    assert assemble(rngd, listing) == text


def test_call_between_commands_stays_a_number(rngd: Machine) -> None:
    text = rngd.encode(control("call", offset=12345))
    assert disassemble(rngd, text) == "call offset=0x3039\n"


def test_empty_program(rngd: Machine) -> None:
    assert disassemble(rngd, b"") == ""
    assert assemble(rngd, "\n; nothing\n") == b""


# Each case: source, line:column, parts of message and remedy.
ERRORS = [
    ("halt\n  stop", "2:3", "unknown command 'stop'", "halt"),
    ("main halt", "1:1", "halt does not run on queue 'main'", "control"),
    ("tu size=1", "1:1", "tu does not run on queue 'control'", "main, sub"),
    ("main tu colour=1", "1:9", "tu has no field 'colour'", "size"),
    ("main tu size", "1:9", "tu has no field 'size'", "it has"),
    ("set rd=1", "1:8", "rd is '1'", "r1"),
    ("set rd=r1 imm=five", "1:15", "imm is 'five'", "integer"),
    ("main tu size=4,x", "1:16", "size is 'x'", "integer"),
    ("main tu stream.base=r1*2", "1:21", "stream.base is 'r1*2'", "rN+integer"),
    ("main tu fill=much", "1:14", "fill is 'much'", "0.5"),
    ("main tu wait=3", "1:14", "'3' is no semaphore use", "3:1"),
    ("set rd=r1 rd=r2", "1:11", "field 'rd' is given twice", "remove"),
    ("halt\ncall offset=nowhere", "2:13", "unknown label 'nowhere'", "none"),
    ("a:\na: halt", "2:1", "label 'a' is defined twice", "rename"),
    ("3x: halt", "1:1", "'3x' is no label", "letters"),
    ("halt\nmain tu size=0", "2:1", "tu: size[0] is 0, outside 1 … 65536", "manual"),
    ("main tu size=1 wait=99:1", "1:1", "wait on semaphore 99", "manual"),
    ("main tu stream.type=f64", "1:1", "stream.type is 'f64'", "manual"),
]


@pytest.mark.parametrize(("source", "place", "message", "remedy"), ERRORS)
def test_errors_name_line_and_column(
    rngd: Machine, source: str, place: str, message: str, remedy: str
) -> None:
    with pytest.raises(UserError) as caught:
        assemble(rngd, source, "a.s")
    assert caught.value.where == f"a.s:{place}"
    assert message in caught.value.message
    assert remedy in caught.value.remedy


@settings(max_examples=200, deadline=None)
@given(source=st.text(st.sampled_from("main tu sub dma=:,;+r0x1.set\n"), max_size=60))
def test_any_text_assembles_or_is_refused(source: str) -> None:
    rngd = MACHINES["rngd"]
    where = "<assembly>:"
    try:
        assemble(rngd, source)
    except UserError as error:
        where = error.where
    assert where.startswith("<assembly>:")
