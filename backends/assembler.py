"""Assembly text of programs: one command a line, exact both ways.

    body:                                        ; a label: an entry, or the target of a call
    set rd=r2 imm=65536
    loop rd=r1 count=28
      main tu size=4,64,16 reduce=0b110 stream.base=r2+0x40 stream.strides=0,0,2 wait=3:1 signal=4:2
    end
    ret

A line holds the queue (left out for control commands), the command, and the fields that differ from their
defaults; tuples leave out neutral elements at their end. ``;`` starts a comment.
assemble(disassemble(x)) is x.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from npuc.backends.instruction import FieldValue, Instruction, Reg, SemaphoreUse
from npuc.backends.machine import Machine
from npuc.backends.model import Command, Field
from npuc.ir.errors import UserError

_LABEL = re.compile(r"[A-Za-z_.$][\w.$]*")
_MASKS = ("reduce",)  # fields written in binary
_ADDRESSES = (".base", "imm", "offset")  # ends of the names of fields written in hexadecimal


@dataclass(frozen=True)
class Assembly:
    """Assembled text.

    Attributes:
        text: the encoded commands.
        symbols: label → byte offset.
    """

    text: bytes
    symbols: dict[str, int]


def commands_of(machine: Machine, text: bytes) -> Iterator[tuple[int, Instruction]]:
    """The commands of a program's text with their byte offsets.

    Raises:
        UserError: ``malformed-program``, naming the offset, for anything that is no command.
    """
    offset = 0
    while offset < len(text):
        instruction, length = machine.decode(text, offset)
        yield offset, instruction
        offset += length


def disassemble(
    machine: Machine,
    text: bytes,
    symbols: Mapping[str, int] | None = None,
    lines: Sequence[tuple[int, str]] = (),
) -> str:
    """Assembly text of a program's text.

    Args:
        machine: the machine it is for.
        text: encoded commands.
        symbols: names of offsets; other call targets get labels of their own.
        lines: (offset, location), ascending; a location is shown as a comment where it changes.

    Raises:
        UserError: ``malformed-program``, naming the offset.
    """
    commands = list(commands_of(machine, text))
    labels = _labels(machine, commands, symbols or {})
    names = {offset: found[0] for offset, found in labels.items()}
    starts = [offset for offset, _ in lines]
    out: list[str] = []
    depth, shown = 0, ""
    for offset, instruction in commands:
        out += [f"{name}:" for name in labels.get(offset, [])]
        place = bisect_right(starts, offset) - 1
        if place >= 0 and lines[place][1] != shown:
            shown = lines[place][1]
            out.append(f"{'  ' * depth}; {_one_line(shown)}")
        depth -= depth > 0 and instruction.command == "end"
        out.append("  " * depth + format_instruction(machine, instruction, names))
        depth += instruction.command == "loop"
    out += [f"{name}:" for name in labels.get(len(text), [])]
    return "\n".join(out) + "\n" if out else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _labels(
    machine: Machine, commands: Sequence[tuple[int, Instruction]], symbols: Mapping[str, int]
) -> dict[int, list[str]]:
    """Offset → labels. Only offsets at which a line starts get one."""
    ends = [commands[-1][0] + len(machine.encode(commands[-1][1]))] if commands else [0]
    starts = {offset for offset, _ in commands} | set(ends)
    labels: dict[int, list[str]] = {}
    for name, offset in sorted(symbols.items()):
        if offset in starts and _LABEL.fullmatch(name):
            labels.setdefault(offset, []).append(name)
    for _, instruction in commands:
        for field in machine.commands[instruction.command].fields.values():
            target = instruction.fields.get(field.name, field.default)
            if field.written == "label" and isinstance(target, int) and target in starts:
                labels.setdefault(target, [_fresh(f"L{target:x}", symbols)])
    return labels


def _fresh(name: str, taken: Mapping[str, int]) -> str:
    while name in taken:
        name += "_"
    return name


def format_instruction(machine: Machine, instruction: Instruction, names: Mapping[int, str]) -> str:
    """One command as a line of assembly, without indentation; ``names`` are the labels by offset."""
    command = machine.commands[instruction.command]
    words = [] if instruction.queue == "control" else [instruction.queue]
    words.append(instruction.command)
    for name, field in command.fields.items():
        if name in instruction.fields:
            words.append(f"{name}={_show_field(field, instruction.fields[name], names)}")
        elif field.written == "label" and 0 in names:
            words.append(f"{name}={names[0]}")
    words += [f"wait={semaphore}:{count}" for semaphore, count in instruction.waits]
    words += [f"signal={semaphore}:{count}" for semaphore, count in instruction.signals]
    return " ".join(words)


def _show_field(field: Field, value: FieldValue, names: Mapping[int, str]) -> str:
    if field.count is None or isinstance(value, Reg) or not isinstance(value, tuple):
        return _show(field, value, names)
    shown = [_show(field, element, names) for element in value]
    neutral = _show(field, field.default, names)
    while len(shown) > 1 and shown[-1] == neutral:
        shown.pop()
    return ",".join(shown)


def _show(field: Field, value: object, names: Mapping[int, str]) -> str:
    if isinstance(value, Reg):
        if not value.imm:
            return f"r{value.reg}"
        return f"r{value.reg}{_show_number(field, value.imm, sign='+')}"
    if field.kind == "float" and isinstance(value, (int, float)):
        return str(np.float32(value))
    if isinstance(value, str):
        return value
    assert isinstance(value, int)
    if field.written == "reg":
        return f"r{value}"
    if field.written == "label" and value in names:
        return names[value]
    return _show_number(field, value)


def _show_number(field: Field, value: int, sign: str = "") -> str:
    if field.name in _MASKS:
        return format(value, f"{sign}#b")
    if field.name.endswith(_ADDRESSES) and abs(value) > 9:
        return format(value, f"{sign}#x")
    return format(value, f"{sign}d")


@dataclass(frozen=True)
class _Word:
    """A word of a line, with its column from 1."""

    text: str
    column: int


@dataclass
class _Line:
    """A command read so far; ``targets`` are fields that name labels."""

    number: int
    instruction: Instruction
    targets: dict[str, _Word]


class _Assembler:
    """Reads assembly text; every error names file, line and column."""

    def __init__(self, machine: Machine, file: str) -> None:
        self.machine = machine
        self.file = file
        self.line = 0
        self.offset = 0
        self.symbols: dict[str, int] = {}
        self.lines: list[_Line] = []

    def fail(self, column: int, message: str, remedy: str, line: int | None = None) -> NoReturn:
        where = f"{self.file}:{self.line if line is None else line}:{column}"
        raise UserError("assembly", message, where=where, remedy=remedy)

    def read(self, text: str) -> None:
        for number, line in enumerate(text.split("\n"), start=1):
            self.line = number
            code = line.split(";", 1)[0]
            words = [_Word(found[0], found.start() + 1) for found in re.finditer(r"\S+", code)]
            if words and words[0].text.endswith(":"):
                self.label(words[0])
                words = words[1:]
            if words:
                self.command(words)

    def label(self, word: _Word) -> None:
        name = word.text[:-1]
        if not _LABEL.fullmatch(name):
            self.fail(word.column, f"'{name}' is no label", "use letters, digits, '_', '.' and '$'")
        if name in self.symbols:
            self.fail(word.column, f"label '{name}' is defined twice", "rename one of them")
        self.symbols[name] = self.offset

    def command(self, words: list[_Word]) -> None:
        queue = "control"
        first = words[0]
        if first.text in self.machine.queues and len(words) > 1 and words[1].text in self.machine.commands:
            queue, words = first.text, words[1:]
        command = self.machine.commands.get(words[0].text)
        if command is None:
            known = ", ".join(self.machine.commands)
            self.fail(words[0].column, f"unknown command '{words[0].text}'", f"the commands are {known}")
        if queue not in command.queues:
            self.fail(
                first.column,
                f"{command.name} does not run on queue '{queue}'",
                f"write one of {', '.join(command.queues)} before it",
            )
        self.lines.append(self.operands(command, queue, words[1:]))
        self.offset += command.format.length

    def operands(self, command: Command, queue: str, words: list[_Word]) -> _Line:
        fields: dict[str, FieldValue] = {}
        waits: list[SemaphoreUse] = []
        signals: list[SemaphoreUse] = []
        targets: dict[str, _Word] = {}
        for word in words:
            name, equals, text = word.text.partition("=")
            value = _Word(text, word.column + len(name) + 1)
            if name in ("wait", "signal") and name not in command.fields:
                (waits if name == "wait" else signals).append(self.use(value))
                continue
            if not equals or name not in command.fields:
                known = ", ".join(command.fields) or "nothing"
                self.fail(word.column, f"{command.name} has no field '{name}'", f"it has {known}")
            if name in fields or name in targets:
                self.fail(word.column, f"field '{name}' is given twice", "remove one of them")
            field = command.fields[name]
            if field.written == "label" and _LABEL.fullmatch(text):
                targets[name] = value
            else:
                fields[name] = self.value(field, value)
        instruction = Instruction(command.name, queue, fields, tuple(waits), tuple(signals))
        return _Line(self.line, instruction, targets)

    def use(self, word: _Word) -> SemaphoreUse:
        found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", word.text)
        if found is None:
            self.fail(word.column, f"'{word.text}' is no semaphore use", "write SEMAPHORE:COUNT, e.g. 3:1")
        return SemaphoreUse(int(found[1]), int(found[2]))

    def value(self, field: Field, word: _Word) -> FieldValue:
        if field.count is None:
            return self.element(field, word)
        column, elements = word.column, list[int | float | str]()
        for text in word.text.split(","):
            element = self.element(field, _Word(text, column))
            assert not isinstance(element, Reg)
            elements.append(element)
            column += len(text) + 1
        return tuple(elements)  # type: ignore[return-value]

    def element(self, field: Field, word: _Word) -> int | float | str | Reg:
        if field.kind == "enum":
            return word.text
        try:
            if field.kind == "float":
                return float(np.float32(float(word.text)))
            if field.written == "reg":
                return int(_match(r"r(\d{1,3})", word.text)[1])
            if field.register and word.text.startswith("r"):
                found = _match(r"r(\d{1,3})([+-]\w+)?", word.text)
                return Reg(int(found[2] or "0", 0), int(found[1]))
            return int(word.text, 0)
        except (ValueError, OverflowError):
            wanted = {"reg": "a register, e.g. r1", "f32": "a number, e.g. 0.5"}
            remedy = wanted.get(field.written, "an integer" + (" or rN+integer" if field.register else ""))
            self.fail(word.column, f"{field.name} is '{word.text}'", f"write {remedy}")

    def encode(self) -> bytes:
        out = bytearray()
        for line in self.lines:
            for name, word in line.targets.items():
                if word.text not in self.symbols:
                    known = ", ".join(sorted(self.symbols)) or "none"
                    self.fail(
                        word.column, f"unknown label '{word.text}'", f"the labels are {known}", line.number
                    )
                line.instruction.fields[name] = self.symbols[word.text]
            try:
                out += self.machine.encode(line.instruction)
            except UserError as error:
                self.fail(1, error.message, error.remedy, line.number)
        return bytes(out)


def _match(pattern: str, text: str) -> re.Match[str]:
    found = re.fullmatch(pattern, text)
    if found is None:
        raise ValueError(text)
    return found


def assemble(machine: Machine, text: str, file: str = "<assembly>") -> bytes:
    """Encode assembly text.

    Raises:
        UserError: ``assembly``, naming file, line and column.
    """
    return assemble_program(machine, text, file).text


def assemble_program(machine: Machine, text: str, file: str = "<assembly>") -> Assembly:
    """Encode assembly text and keep its labels; errors as `assemble`."""
    assembler = _Assembler(machine, file)
    assembler.read(text)
    return Assembly(assembler.encode(), assembler.symbols)
