"""Program files: 64-bit little-endian ELF, readable by standard tools.

    .text              commands
    .rodata            constants
    .npuc.program      description, JSON
    .npuc.lines        12-byte entries: offset in .text (8), offset in .npuc.locations (4); ascending
    .npuc.locations    zero-terminated UTF-8 strings
    .note.npuc         notes of the name "npuc": 1 target, 2 npuc version, 3 sha256
    .symtab .strtab .shstrtab

The sha256 is that of the file with these 32 bytes zeroed.

The reader accepts what the writer writes: a file that was changed in any byte is refused, and no field of a
hostile file makes it allocate more than a fixed multiple of the file's size. Format: ELF-64 Object File
Format 1.5 and the System V ABI.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from npuc.ir.errors import UserError
from npuc.ir.files import write_atomically

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_LINE = struct.Struct("<QI")
_NOTE = struct.Struct("<III")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)  # 64-bit, little-endian, version 1, System V
_EXECUTABLE, _NO_MACHINE = 2, 0
_PROGBITS, _SYMTAB, _STRTAB, _NOTES = 1, 2, 3, 7
_ALLOC, _EXEC, _MERGE, _STRINGS = 2, 4, 0x10, 0x20
_GLOBAL_FUNCTION = 0x12
_NOTE_NAME = b"npuc\0\0\0\0"
_NOTE_TARGET, _NOTE_VERSION, _NOTE_DIGEST = 1, 2, 3
_DIGEST_SIZE = 32
_ALIGN = 16
MAX_SECTIONS = 64
SYMBOLS_IN = ".text"


@dataclass(frozen=True)
class Program:
    """A program.

    Attributes:
        target: the machine it is for.
        text: encoded commands.
        symbols: entry or function → byte offset in the text.
        lines: (byte offset in the text, location), ascending.
        description: anything JSON can hold; what the runtime needs to know.
        rodata: constants.
        version: the npuc that wrote it.
    """

    target: str
    text: bytes
    symbols: dict[str, int] = field(default_factory=dict[str, int])
    lines: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    description: dict[str, Any] = field(default_factory=dict[str, Any])
    rodata: bytes = b""
    version: str = field(default_factory=lambda: version("npuc"))


@dataclass(frozen=True)
class _Section:
    """A section to write; ``link`` names another section."""

    name: str
    kind: int
    data: bytes
    flags: int = 0
    link: str = ""
    info: int = 0
    align: int = 1
    entry: int = 0


def _pool(strings: Iterable[str]) -> tuple[bytes, dict[str, int]]:
    """A string table that starts with the empty string, and each string's offset in it."""
    data, offsets = bytearray(b"\0"), {"": 0}
    for text in strings:
        if "\0" in text:
            raise UserError(
                "program", f"{text!r} contains a zero byte", remedy="rename the symbol or location"
            )
        if text not in offsets:
            offsets[text] = len(data)
            data += text.encode() + b"\0"
    return bytes(data), offsets


def _note(kind: int, payload: bytes) -> bytes:
    padding = bytes(-len(payload) % 4)
    return _NOTE.pack(len(_NOTE_NAME) - 3, len(payload), kind) + _NOTE_NAME + payload + padding


def _symbol_table(program: Program, names: dict[str, int]) -> bytes:
    """Global functions, by offset; a function ends where the next one starts."""
    ordered = sorted(program.symbols.items(), key=lambda item: (item[1], item[0]))
    ends = {offset for _, offset in ordered} | {len(program.text)}
    out = bytearray(_SYMBOL.size)
    for name, offset in ordered:
        if not 0 <= offset <= len(program.text):
            raise UserError(
                "program",
                f"symbol '{name}' is at {offset}, the text has {len(program.text)} bytes",
                remedy="give the offset of a command",
            )
        end = min((e for e in ends if e > offset), default=offset)
        out += _SYMBOL.pack(names[name], _GLOBAL_FUNCTION, 0, 1, offset, end - offset)
    return bytes(out)


def _sections(program: Program) -> list[_Section]:
    locations, places = _pool(location for _, location in program.lines)
    names, name_offsets = _pool(sorted(program.symbols))
    lines = b"".join(_LINE.pack(offset, places[location]) for offset, location in program.lines)
    description = json.dumps(program.description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    notes = [
        _note(_NOTE_TARGET, program.target.encode()),
        _note(_NOTE_VERSION, program.version.encode()),
        _note(_NOTE_DIGEST, bytes(_DIGEST_SIZE)),
    ]
    symbols = _symbol_table(program, name_offsets)
    return [
        _Section(SYMBOLS_IN, _PROGBITS, program.text, _ALLOC | _EXEC, align=_ALIGN),
        _Section(".rodata", _PROGBITS, program.rodata, _ALLOC, align=_ALIGN),
        _Section(".npuc.program", _PROGBITS, description.encode()),
        _Section(".npuc.lines", _PROGBITS, lines, link=".npuc.locations", align=4, entry=_LINE.size),
        _Section(".npuc.locations", _PROGBITS, locations, _MERGE | _STRINGS, entry=1),
        _Section(".note.npuc", _NOTES, b"".join(notes), align=4),
        _Section(".symtab", _SYMTAB, symbols, link=".strtab", info=1, align=8, entry=_SYMBOL.size),
        _Section(".strtab", _STRTAB, names),
    ]


def program_bytes(program: Program) -> bytes:
    """The program's file; the same program gives the same bytes.

    Raises:
        UserError: ``program``: a symbol outside the text, or a zero byte in a name.
        ValueError: the description is no JSON.
    """
    sections = _sections(program)
    header_names, name_offsets = _pool([*(s.name for s in sections), ".shstrtab"])
    sections.append(_Section(".shstrtab", _STRTAB, header_names))
    numbers = {section.name: number for number, section in enumerate(sections, start=1)} | {"": 0}
    body, headers = bytearray(_HEADER.size), bytearray(_SECTION.size)
    for section in sections:
        body += bytes(-len(body) % section.align)
        headers += _SECTION.pack(
            name_offsets[section.name], section.kind, section.flags, 0, len(body), len(section.data),
            numbers[section.link], section.info, section.align, section.entry,
        )  # fmt: skip
        body += section.data
    body += bytes(-len(body) % _ALIGN)
    body[: _HEADER.size] = _HEADER.pack(
        _IDENT, _EXECUTABLE, _NO_MACHINE, 1, 0, 0, len(body), 0, _HEADER.size, 0, 0, _SECTION.size,
        len(sections) + 1, numbers[".shstrtab"],
    )  # fmt: skip
    body += headers
    at = _Reader(bytes(body), "program").digest_offset()
    body[at : at + _DIGEST_SIZE] = hashlib.sha256(body).digest()
    return bytes(body)


def write_program(program: Program, path: str | Path) -> None:
    """Write a program's file, under a temporary name first, then renamed."""
    write_atomically(path, program_bytes(program))


class _Reader:
    """Reads a program's file; every offset and size is checked against the file before its use."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.sections: dict[str, tuple[int, int, int]] = {}  # name → (type, offset, size)
        self.read_sections()

    def fail(self, message: str) -> NoReturn:
        remedy = "the file is damaged or was not written by npuc; build the program again"
        raise UserError("malformed-program", message, where=self.where, remedy=remedy)

    def unpack(self, layout: struct.Struct, offset: int, what: str) -> tuple[Any, ...]:
        if offset + layout.size > len(self.data):
            self.fail(f"{what} at byte {offset} ends behind the file of {len(self.data)} bytes")
        return layout.unpack_from(self.data, offset)

    def read_sections(self) -> None:
        header = self.unpack(_HEADER, 0, "the ELF header")
        fixed = (*header[:6], *header[7:12])
        if fixed != (_IDENT, _EXECUTABLE, _NO_MACHINE, 1, 0, 0, 0, _HEADER.size, 0, 0, _SECTION.size):
            self.fail("the ELF header is not that of a program")
        start, count, names = header[6], header[12], header[13]
        if not 0 < names < count <= MAX_SECTIONS:
            self.fail(f"{count} sections with names in section {names}, at most {MAX_SECTIONS} are allowed")
        found = [self.unpack(_SECTION, start + i * _SECTION.size, f"section {i}") for i in range(count)]
        for number, section in enumerate(found):
            if section[4] + section[5] > len(self.data):
                self.fail(f"section {number} ends behind the file of {len(self.data)} bytes")
        pool = self.data[found[names][4] : found[names][4] + found[names][5]]
        for section in found[1:]:
            name = self.string(pool, section[0])
            if name in self.sections:
                self.fail(f"section {name} occurs twice")
            self.sections[name] = (section[1], section[4], section[5])

    def string(self, pool: bytes, offset: int) -> str:
        """The string that starts at an offset of a pool; strings never start inside one another."""
        end = pool.find(b"\0", offset) if offset < len(pool) else -1
        if end < 0 or (offset and pool[offset - 1]):
            self.fail(f"no string starts at byte {offset} of its table")
        try:
            return pool[offset:end].decode()
        except UnicodeDecodeError:
            self.fail(f"the string at byte {offset} of its table is not UTF-8")

    def place(self, name: str, kind: int = _PROGBITS) -> tuple[int, int]:
        """Offset and size of a section in the file."""
        if self.sections.get(name, (0, 0, 0))[0] != kind:
            self.fail(f"section {name} is missing")
        return self.sections[name][1:]

    def section(self, name: str, kind: int = _PROGBITS) -> bytes:
        offset, size = self.place(name, kind)
        return self.data[offset : offset + size]

    def records(self, name: str, layout: struct.Struct, kind: int = _PROGBITS) -> list[tuple[Any, ...]]:
        data = self.section(name, kind)
        if len(data) % layout.size:
            self.fail(f"section {name} has {len(data)} bytes, not a multiple of {layout.size}")
        return list(layout.iter_unpack(data))

    def notes(self) -> dict[int, tuple[int, int]]:
        """Note type → offset in the file and size of its payload."""
        offset, size = self.place(".note.npuc", _NOTES)
        end = offset + size
        found: dict[int, tuple[int, int]] = {}
        while offset < end:
            name_size, size, kind = self.unpack(_NOTE, offset, "a note")
            payload = offset + _NOTE.size + len(_NOTE_NAME)
            if name_size != len(_NOTE_NAME) - 3 or payload + size > end or kind in found:
                self.fail(f"the note at byte {offset} is malformed")
            if self.data[offset + _NOTE.size : payload] != _NOTE_NAME:
                self.fail(f"the note at byte {offset} is not one of npuc's")
            found[kind] = (payload, size)
            offset = payload + size + -size % 4
        if found.keys() != {_NOTE_TARGET, _NOTE_VERSION, _NOTE_DIGEST}:
            self.fail("the notes for target, version and digest are not all there")
        return found

    def digest_offset(self) -> int:
        """Where the digest stands in the file."""
        offset, size = self.notes()[_NOTE_DIGEST]
        if size != _DIGEST_SIZE:
            self.fail(f"the digest has {size} bytes, not {_DIGEST_SIZE}")
        return offset

    def check_digest(self) -> None:
        at = self.digest_offset()
        digest = hashlib.sha256(self.data[:at])
        digest.update(bytes(_DIGEST_SIZE))
        digest.update(memoryview(self.data)[at + _DIGEST_SIZE :])
        stored = self.data[at : at + _DIGEST_SIZE]
        if digest.digest() != stored:
            self.fail(f"the file's sha256 is {digest.hexdigest()[:16]}…, it says {stored.hex()[:16]}…")

    def note(self, kind: int) -> str:
        offset, size = self.notes()[kind]
        try:
            return self.data[offset : offset + size].decode()
        except UnicodeDecodeError:
            self.fail(f"the note at byte {offset} is not UTF-8")

    def symbols(self, size: int) -> dict[str, int]:
        names = self.section(".strtab", _STRTAB)
        out: dict[str, int] = {}
        for name_offset, _, _, _, offset, _ in self.records(".symtab", _SYMBOL, _SYMTAB)[1:]:
            name = self.string(names, name_offset)
            if name in out or offset > size:
                self.fail(f"symbol '{name}' occurs twice or lies behind the text")
            out[name] = offset
        return out

    def lines(self, size: int) -> list[tuple[int, str]]:
        pool = self.section(".npuc.locations")
        known: dict[int, str] = {}
        out: list[tuple[int, str]] = []
        last = 0
        for offset, place in self.records(".npuc.lines", _LINE):
            if not last <= offset <= size:
                self.fail(f"the line table holds offset {offset} after {last}, the text has {size} bytes")
            if place not in known:
                known[place] = self.string(pool, place)
            out.append((offset, known[place]))
            last = offset
        return out

    def description(self) -> dict[str, Any]:
        text = self.section(".npuc.program")
        try:
            found: object = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            self.fail(f"section .npuc.program is no JSON: {error}")
        if not isinstance(found, dict):
            self.fail("section .npuc.program is no JSON object")
        return found  # pyright: ignore[reportUnknownVariableType]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def parse_program(data: bytes, where: str, *, checked: bool = True) -> Program:
    """Read a program's file.

    Args:
        data: the file.
        where: its name, for errors.
        checked: refuse a file that was changed; tools that look for the change do not want that.

    Raises:
        UserError: ``malformed-program``: the file is damaged, changed, or was not written by npuc.
    """
    reader = _Reader(data, where)
    if checked:
        reader.check_digest()
    text = reader.section(SYMBOLS_IN)
    return Program(
        reader.note(_NOTE_TARGET), text, reader.symbols(len(text)), reader.lines(len(text)),
        reader.description(), reader.section(".rodata"), reader.note(_NOTE_VERSION),
    )  # fmt: skip


def read_program(path: str | Path) -> Program:
    """Read a program from a file; errors as `parse_program`, and ``unreadable-file``."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            "unreadable-file", f"cannot read it: {error.strerror}", where=str(path), remedy="check the path"
        ) from None
    return parse_program(data, str(path))
