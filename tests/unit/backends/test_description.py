"""Machine descriptions: what the language accepts, and how it refuses the rest."""

from __future__ import annotations

import pytest
from npuc.backends.description import parse_description
from npuc.backends.machine import Machine, build_machine
from npuc.ir.errors import UserError

HEAD = """\
machine mini "a minimal machine"
clock 1.0 GHz assumed
registers 8 assumed
semaphores 4 assumed
memory ram main "the memory" { level chip size 1 KiB assumed bandwidth 8 assumed }
type f32 float 32 macs 1 assumed
queue q depth 2 "the queue" assumed
format f bytes 64 waits 1 signals 1 assumed
param start = 3 "start-up" from "a data sheet"
"""
COMMAND = """\
command go pass "a pass" {{
  opcode 0x20 format f queues q base start
  field size[4] u8 = 1 in 1 .. 255 "extents"
  stage all kernel store "everything" {{
    port out writes ram types f32 base u12 strides s12 "results"
    {body}
  }}
}}
"""


def load(text: str) -> Machine:
    return build_machine(parse_description(text, "mini.npu"))


def test_minimal_machine_loads() -> None:
    machine = load(HEAD + COMMAND.format(body="cycles steps"))
    assert (machine.name, machine.slices, machine.cores_per_chip) == ("mini", 1, 1)
    assert machine.main.size == 1024
    assert list(machine.commands["go"].fields) == ["size", "out.base", "out.strides", "out.type"]
    assert machine.sources["start"] == "a data sheet"
    assert "halt" in machine.commands, "the common control commands are part of every machine"


# Each case: what is appended to the head, the position of the error (0: not looked at), parts of the message.
SYNTAX = [
    ("memory x { }", (10, 10), "unexpected '{'", "a quoted text"),
    ("clock 1.0 MHz assumed", (10, 11), "unexpected character 'M'", "syntax"),
    ('queue r depth 2 "r"', (10, 20), "the file ends inside a declaration", "complete"),
    ('param p = 3 "p" assumed ;', (10, 25), "unexpected ';'", "'registers'"),
    ('command go pass "x" { opcode 1', (10, 31), "the file ends inside", "'}'"),
    ("registers ?", (10, 11), "unexpected character '?'", "syntax"),
    ("nonsense 3", (10, 1), "unexpected 'nonsense'", "'command'"),
]


@pytest.mark.parametrize(("tail", "position", "message", "remedy"), SYNTAX)
def test_syntax_error_names_line_and_column(
    tail: str, position: tuple[int, int], message: str, remedy: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(HEAD + tail)
    assert caught.value.where == "mini.npu:{}:{}".format(*position)
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


MEANING = [
    ('limit out.size > 1 because "x" assumed', "unknown name 'out.size'", "start"),
    ('limit used(in) because "x" assumed', "'in' is not a port", "out"),
    ('limit nothing(out) > 0 because "x" assumed', "unknown measure 'nothing'", "accumulators"),
    ('limit steps because "x" assumed', "'steps' is not true or false", "compare it"),
    ('limit out.type > 3 because "x" assumed', "compares a name", "quoted name"),
    ('limit out.type + 1 > 3 because "x" assumed', "is a name, not a number", "compare it"),
    (
        'limit bytes(out) > 3 because "x" assumed',
        "bytes takes 2 arguments, 1 are given",
        "bytes(port, number)",
    ),
    (
        'limit behind(out) > 3 because "x" assumed',
        "behind takes 2 arguments",
        "behind(port, number, selectors)",
    ),
    ('limit behind(out, 1, steps) > 3 because "x" assumed', "'steps' selects no dimensions", "rests(PORT)"),
    ('limit size + out.strides > 3 because "x" assumed', "mentions 2 tuple fields", "one limit for each"),
    ('limit count(out.type, "f64") > 1 because "x" assumed', "no value of out.type", "none, f32"),
    ('limit size(inner) > 1 because "x" assumed', "'inner' selects no dimensions", "moves(PORT)"),
    ('limit extent(steps) > 1 because "x" assumed', "'steps' is not a field", "size"),
    ("cycles size", "'size' is a tuple", "limits"),
    ("cycles queue", "unknown name 'queue'", "known here"),
    ('field size u8 "again"', "field 'size' is declared twice", "rename"),
    ('field x u99 "wide"', "unknown field kind 'u99'", "u1 … u64"),
    ('field x u8 = 300 "far"', "default 300 of 'x' is outside", "DEFAULT"),
    ('field x u4 in 0 .. 99 "far"', "bound 99 of 'x' does not fit u4", "widen"),
    ('field x[99] u8 "long"', "format 'f' has 512 bits", "format longer"),
    ('field x[2] u8 register "both"', "tuple with a register", "scalar"),
    ('port out reads ram types f32 base u8 strides s8 "two"', "port 'out' is declared twice", "rename"),
    ('port in reads rom types f32 base u8 strides s8 "in"', "unknown memory 'rom'", "ram"),
    ('port in reads ram types f64 base u8 strides s8 "in"', "unknown element type 'f64'", "f32"),
    ("units chain.op assumed { group g { u: add; } }", "units execute 'chain.op'", "declare"),
]


@pytest.mark.parametrize(("body", "message", "remedy"), MEANING)
def test_faulty_command_is_refused(body: str, message: str, remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        load(HEAD + COMMAND.format(body=body))
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.where.startswith("mini.npu:")


FILES = [
    (HEAD.replace("main ", ""), "not exactly one memory is the main one"),
    (HEAD.replace("registers 8 assumed", ""), "registers or semaphores is missing"),
    (HEAD.replace("level chip", "level planet"), "unknown level 'planet'"),
    (HEAD.replace("size 1 KiB assumed", ""), "memory 'ram' has no size"),
    (HEAD.replace("bandwidth 8", "speed 8 assumed bandwidth 8"), "unknown property 'speed'"),
    (HEAD.replace("bandwidth 8", "size 8 assumed bandwidth 8"), "property 'size' is given twice"),
    (HEAD + 'queue q depth 2 "again" assumed', "queue 'q' is declared twice"),
    (HEAD + 'queue control depth 2 "mine" assumed', "'control' is the sequencer's own queue"),
    (HEAD + "format g bytes 9999 waits 0 signals 0 assumed", "format 'g' has 9999 bytes"),
    (HEAD + 'command x control "x" { opcode 3 format f queues q }', "opcode 0x03 is that of 'mul' and 'x'"),
    (HEAD + 'command x control "x" { opcode 300 format f queues q }', "opcode of 'x' is 300"),
    (HEAD + 'command x control "x" { opcode 33 format g queues q }', "unknown format 'g'"),
    (HEAD + 'command x control "x" { opcode 33 format f queues r }', "unknown queue 'r'"),
    (HEAD + 'command x control "x" { opcode 33 format f }', "command 'x' has no queue"),
    (HEAD + 'command halt control "x" { opcode 33 format f queues q }', "command 'halt' is declared twice"),
    ("", "machine, clock, registers or semaphores is missing"),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_faulty_machine_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(text)
    assert caught.value.kind == "machine-description"
    assert caught.value.remedy


def test_every_number_needs_a_source() -> None:
    with pytest.raises(UserError, match="unexpected 'clock'") as caught:
        load('machine m "m"\nregisters 8\nclock 1.0 GHz assumed')
    assert "'assumed', 'from'" in caught.value.remedy


def test_division_by_zero_names_the_expression() -> None:
    machine = load(HEAD + COMMAND.format(body="cycles steps / macs(out)").replace("macs 1", ""))
    from npuc.backends.instruction import Instruction

    assert machine.cost(Instruction("go", "q", {"out.type": "f32"})).cycles == 4
    with pytest.raises(UserError, match=r"'macs\(out\)' is zero"):
        machine.cost(Instruction("go", "q"))


def test_missing_file() -> None:
    from npuc.backends.machine import load_machine

    with pytest.raises(UserError, match="cannot be read"):
        load_machine("/nowhere/x.npu")
