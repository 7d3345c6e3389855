"""Program files: read by standard tools, any change detected, hostile files refused."""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section
from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.backends.assembler import assemble_program
from npuc.backends.elf import Program, parse_program, program_bytes, read_program, write_program
from npuc.backends.machine import Machine
from npuc.ir.errors import UserError

SOURCE = "last: set rd=r1 imm=5\nall: call offset=body\nhalt\nbody: dma dma size=4 type=f32\nret\n"
LINES = [(0, "entry"), (32, "tile.pass in model.layers.{}.mlp.down_proj"), (48, "entry")]
DESCRIPTION = {"batch": 1, "inputs": [{"name": "tokens", "offset": 4096}], "scale": 0.5, "note": "größe"}


@pytest.fixture(scope="module")
def program(rngd: Machine) -> Program:
    code = assemble_program(rngd, SOURCE)
    return Program("rngd", code.text, code.symbols, LINES, DESCRIPTION, b"constants")


SMALL = Program("toy", b"\x0b" + bytes(15), {"last": 0}, [(9, "halt")], {"a": 1})


def test_round_trip_through_a_file(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "decode_1x64.elf"
    write_program(program, path)
    assert read_program(path) == program
    assert [p.name for p in tmp_path.iterdir()] == ["decode_1x64.elf"], "no temporary file is left"


def test_same_program_gives_the_same_bytes(program: Program) -> None:
    shuffled = Program(
        program.target, program.text, dict(reversed(program.symbols.items())), program.lines,
        dict(reversed(DESCRIPTION.items())), program.rodata,
    )  # fmt: skip
    assert program_bytes(shuffled) == program_bytes(program)


def test_pyelftools_reads_sections_symbols_and_notes(program: Program) -> None:
    elf = ELFFile(io.BytesIO(program_bytes(program)))
    assert section(elf, ".text").data() == program.text
    assert section(elf, ".rodata").data() == b"constants"
    table = section(elf, ".symtab")
    functions = {s.name: (s["st_value"], s["st_size"]) for s in table.iter_symbols() if s.name}
    assert functions == {"last": (0, 16), "all": (16, 32), "body": (48, 176)}
    assert {s["st_info"]["type"] for s in table.iter_symbols() if s.name} == {"STT_FUNC"}
    notes = {n["n_type"]: n for n in section(elf, ".note.npuc").iter_notes()}
    assert {n["n_name"] for n in notes.values()} == {"npuc"}
    lines = section(elf, ".npuc.lines").data()
    pool = section(elf, ".npuc.locations").data()
    entries = list(struct.iter_unpack("<QI", lines))
    assert [(offset, pool[at : pool.index(b"\0", at)].decode()) for offset, at in entries] == LINES
    assert entries[0][1] == entries[2][1], "equal locations are stored once"


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
def test_readelf_has_no_complaint(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "p.elf"
    write_program(program, path)
    done = subprocess.run(["readelf", "--all", "--wide", path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "FUNC    GLOBAL DEFAULT    1 body" in done.stdout
    assert "npuc                 0x00000020" in done.stdout


def test_every_flipped_byte_is_detected() -> None:
    data = program_bytes(SMALL)
    assert parse_program(data, "small").symbols == {"last": 0}
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[at] ^= mask
            with pytest.raises(UserError) as caught:
                parse_program(bytes(changed), "small.elf")
            assert caught.value.where == "small.elf"


def test_every_truncation_and_appended_byte_is_detected() -> None:
    data = program_bytes(SMALL)
    for end in range(len(data)):
        with pytest.raises(UserError):
            parse_program(data[:end], "small.elf")
    with pytest.raises(UserError, match="sha256"):
        parse_program(data + b"\0", "small.elf")


def resign(data: bytes, original: bytes) -> bytes:
    """Give changed bytes the right digest, as a hostile writer would."""
    at = original.index(digest(original))
    blank = data[:at] + bytes(32) + data[at + 32 :]
    return blank[:at] + hashlib.sha256(blank).digest() + blank[at + 32 :]


def section(elf: ELFFile, name: str) -> Section:
    found = elf.get_section_by_name(name)
    assert found is not None, name
    return found


def digest(data: bytes) -> bytes:
    notes = section(ELFFile(io.BytesIO(data)), ".note.npuc").data()
    return notes[-32:]


@settings(max_examples=400, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 5000), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]), st.integers(1, 8)),
        min_size=1,
        max_size=4,
    )
)
def test_hostile_files_with_a_right_digest_load_or_are_refused(changes: list[tuple[int, int, int]]) -> None:
    original = program_bytes(SMALL)
    changed = bytearray(original)
    for at, value, length in changes:
        at %= len(changed)
        changed[at : at + length] = bytes([value]) * min(length, len(changed) - at)
    kind = "malformed-program"
    try:
        parse_program(resign(bytes(changed), original), "hostile")
    except UserError as error:
        kind = error.kind
    assert kind == "malformed-program"


def replace(program: Program, old: bytes, new: bytes) -> bytes:
    original = program_bytes(program)
    assert original.count(old) == 1
    assert len(old) == len(new)
    return resign(original.replace(old, new), original)


def test_hostile_contents(program: Program) -> None:
    cases = [
        (SMALL, b'{"a":1}', b'["a",1]', "no JSON object"),
        (SMALL, b'{"a":1}', b"{{{{{{{", "no JSON"),
        (SMALL, b'{"a":1}', b'{"a":NaN}'[:7], "no JSON"),
        (SMALL, struct.pack("<QI", 9, 1), struct.pack("<QI", 17, 1), "holds offset 17"),
        (SMALL, struct.pack("<QI", 9, 1), struct.pack("<QI", 9, 2), "no string starts at byte 2"),
        (SMALL, struct.pack("<QI", 9, 1), struct.pack("<QI", 9, 1 << 31), "no string starts"),
        (SMALL, b"\0halt\0", b"\0ha\xfft\0", "not UTF-8"),
        (SMALL, b"toy\0", b"\xfftoy"[:3] + b"\0", "not UTF-8"),
        (program, struct.pack("<QI", 32, 7), struct.pack("<QI", 999, 7), "holds offset 999"),
        (program, b"\0all\0", b"\0xll\0", ""),
    ]
    for base, old, new, message in cases:
        if not message:
            assert "xll" in parse_program(replace(base, old, new), "x").symbols
            continue
        with pytest.raises(UserError, match=message):
            parse_program(replace(base, old, new), "x")


def test_deeply_nested_description_is_refused() -> None:
    flat = Program("toy", b"", {}, [], {"a": "x" * 20_000})
    with pytest.raises(UserError, match="no JSON"):
        parse_program(replace(flat, b'"' + b"x" * 20_000 + b'"', b"[" * 20_002), "deep")


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    for data in (b"", b"\x7fELF", b"#!/bin/sh\n" * 20, Path("/bin/sh").read_bytes()):
        with pytest.raises(UserError):
            parse_program(data, "other")
    with pytest.raises(UserError, match="cannot read it"):
        read_program(tmp_path / "missing.elf")


def test_writer_refuses_what_cannot_be_read_back() -> None:
    with pytest.raises(UserError, match="symbol 'far' is at 99, the text has 4 bytes"):
        program_bytes(Program("toy", bytes(4), {"far": 99}))
    with pytest.raises(UserError, match="contains a zero byte"):
        program_bytes(Program("toy", bytes(4), {}, [(0, "a\0b")]))
    with pytest.raises(ValueError, match="JSON"):
        program_bytes(Program("toy", b"", {}, [], {"x": float("nan")}))
