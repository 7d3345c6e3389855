"""Encoding and decoding: every field over its whole range, and what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from npuc.backends.codec import element_width
from npuc.backends.instruction import FieldValue, Instruction, Reg, SemaphoreUse
from npuc.backends.machine import Machine
from npuc.ir.errors import UserError
from random_instructions import MACHINES, instructions

COMMANDS = [(target, command) for target, machine in MACHINES.items() for command in machine.commands]


def plain(value: FieldValue) -> FieldValue:
    """A value as decoding gives it: f32 precision; no register where it is register 0."""
    if isinstance(value, Reg):
        return value if value.reg else value.imm
    if isinstance(value, tuple):
        return tuple(plain(element) for element in value)  # type: ignore[return-value]
    return struct.unpack("<f", struct.pack("<f", value))[0] if isinstance(value, float) else value


@pytest.mark.parametrize(("target", "command"), COMMANDS)
def test_decode_gives_back_what_was_encoded(target: str, command: str) -> None:
    machine = MACHINES[target]

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(original=instructions(target, command))
    def check(original: Instruction) -> None:
        encoded = machine.encode(original)
        assert len(encoded) == machine.commands[command].format.length
        decoded, length = machine.decode(b"\xff" * 3 + encoded + b"\xff", 3)
        assert length == len(encoded)
        assert (decoded.command, decoded.queue) == (original.command, original.queue)
        assert (decoded.waits, decoded.signals) == (original.waits, original.signals)
        for name in machine.commands[command].fields:
            assert machine.field(decoded, name) == plain(machine.field(original, name))
        assert decoded == machine.normalise(original)
        assert machine.encode(decoded) == encoded

    check()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    original=instructions("rngd", "tu"),
    noise=st.integers(1, (1 << 128) - 1),
    at=st.integers(0, 380),
)
def test_random_bytes_decode_exactly_or_not_at_all(original: Instruction, noise: int, at: int) -> None:
    rngd = MACHINES["rngd"]
    encoded = rngd.encode(original)
    bits = int.from_bytes(encoded, "little") ^ noise << at * 8
    damaged = (bits & (1 << len(encoded) * 8) - 1).to_bytes(len(encoded), "little")
    where = "offset 0x0"
    try:
        decoded, length = rngd.decode(damaged, 0)
    except UserError as error:
        where = error.where
    else:
        assert rngd.encode(decoded) == damaged[:length]
    assert where == "offset 0x0"


def test_layout_of_a_command_is_as_documented(rngd: Machine) -> None:
    encoded = rngd.encode(Instruction("add", "control", {"rd": 3, "rs": 1, "rt": 2, "imm": -2}))
    assert len(encoded) == 16
    bits = int.from_bytes(encoded, "little")
    assert bits & 0xFFFF == 0x02, "opcode, then queue 0"
    assert [bits >> 16 + 6 * i & 63 for i in range(3)] == [3, 1, 2]
    assert bits >> 34 == (1 << 64) - 2


def test_fields_do_not_overlap(machine: Machine) -> None:
    for command in machine.commands.values():
        at = 16 + (command.format.waits + command.format.signals) * (
            (machine.semaphores - 1).bit_length() + 8
        )
        for field in command.fields.values():
            assert field.offset == at
            at += element_width(machine, field) * (field.count or 1)
        assert at <= command.format.length * 8


def test_register_zero_is_no_register(rngd: Machine) -> None:
    assert rngd.normalise(Instruction("dma", "dma", {"src.base": Reg(16, 0)})).fields == {"src.base": 16}


def test_short_tuples_are_padded(rngd: Machine) -> None:
    fields = rngd.normalise(Instruction("dma", "dma", {"size": (5,), "src.strides": (-7,)})).fields
    assert fields == {"size": (5, 1, 1, 1, 1, 1, 1, 1), "src.strides": (-7, 0, 0, 0, 0, 0, 0, 0)}


def patch(encoded: bytes, bit: int, width: int, value: int) -> bytes:
    bits = int.from_bytes(encoded, "little")
    bits = bits & ~(((1 << width) - 1) << bit) | value << bit
    return bits.to_bytes(len(encoded), "little")


def test_malformed_commands_name_the_offset(rngd: Machine) -> None:
    tu = rngd.encode(Instruction("tu", "main", {}))
    fields = rngd.commands["tu"].fields
    cases = {
        "unknown opcode 0xee": b"\xee" + tu[1:],
        "tu on queue code 3, not one of main, sub": patch(tu, 8, 8, 3),
        "tu on queue code 200": patch(tu, 8, 8, 200),
        "tu has nonzero reserved bits": patch(tu, len(tu) * 8 - 1, 1, 1),
        "semaphore slot 0 holds semaphore 5, count 0": patch(tu, 16, 6, 5),
        "semaphore slot 1 holds semaphore 0, count 1": patch(tu, 16 + 14 + 6, 8, 1),
        "size is 0, outside 1 … 65536": patch(tu, fields["size"].offset, 17, 0),
        "size is 65537, outside 1 … 65536": patch(tu, fields["size"].offset, 17, 65537),
        "chain.op has code 63, the last one is": patch(tu, fields["chain.op"].offset, 6, 63),
        "fill is not a number": patch(tu, fields["fill"].offset, 32, 0x7FC00000),
        "tu has 384 bytes, 383 are left": tu[:-1],
    }
    for message, damaged in cases.items():
        with pytest.raises(UserError) as caught:
            rngd.decode(bytes(16) + damaged, 16)
        assert message in caught.value.message
        assert (caught.value.kind, caught.value.where) == ("malformed-program", "offset 0x10")


def test_decoding_behind_the_end(rngd: Machine) -> None:
    for offset in (16, 99, -1):
        with pytest.raises(UserError, match="no command here, the text has 16 bytes"):
            rngd.decode(rngd.encode(Instruction("halt", "control")), offset)


def test_encoding_refuses_what_does_not_fit(rngd: Machine) -> None:
    with pytest.raises(UserError, match="size\\[1\\] is 0, outside") as caught:
        rngd.encode(Instruction("tu", "main", {"size": (1, 0)}, location="tile.pass in model.layers.3.mlp"))
    assert caught.value.where == "tile.pass in model.layers.3.mlp"
    with pytest.raises(UserError, match="wait of 0 tokens"):
        rngd.encode(Instruction("tu", "main", {}, (SemaphoreUse(1, 0),)))
