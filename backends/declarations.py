"""What a machine description declares, as plain records with their positions.

backends/description.py parses text to them, backends/builder.py gives them their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from npuc.ir.errors import UserError


@dataclass(frozen=True)
class Position:
    """Where a record stands; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


def fail(position: Position, message: str, remedy: str) -> NoReturn:
    """Raise the UserError of a faulty description."""
    raise UserError("machine-description", message, where=str(position), remedy=remedy)


@dataclass(frozen=True)
class Expr:
    """An expression: ``kind`` is literal, text, name, call, if, or, and, not, minus, compare or arithmetic.

    ``value`` is the number, text, name or operator; ``text`` the source, for messages and the manual.
    """

    kind: str
    value: float | str
    args: tuple[Expr, ...]
    position: Position
    text: str


@dataclass(frozen=True)
class NamedNumber:
    """A number with its unit applied, where it comes from, and what it says."""

    name: str
    value: float
    source: str
    position: Position
    doc: str = ""


@dataclass(frozen=True)
class MemoryDecl:
    """``memory NAME``: properties are numbers, ``level`` is a word; ``ends`` is used by links only."""

    name: str
    main: bool
    doc: str
    words: dict[str, str]
    numbers: dict[str, NamedNumber]
    position: Position
    ends: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class TypeDecl:
    """``type NAME``: bits, multiply-accumulates per cycle and slice, whether those are simulator-only."""

    name: str
    kind: str
    bits: int
    macs: int
    simulator_only: bool
    source: str
    position: Position


@dataclass(frozen=True)
class FormatDecl:
    """``format NAME``: fixed length in bytes, slots for waits and signals."""

    name: str
    length: int
    waits: int
    signals: int
    source: str
    position: Position


@dataclass(frozen=True)
class FieldDecl:
    """``field NAME[count] kind``: ``default`` and bounds are None where not written."""

    name: str
    count: int | None
    kind: str
    register: bool
    default: float | str | None
    low: float | None
    high: float | None
    doc: str
    source: str
    position: Position


@dataclass(frozen=True)
class PortDecl:
    """``port NAME``: where it reads or writes, its element types, and the kinds of base and strides."""

    name: str
    direction: str
    memories: tuple[str, ...]
    types: tuple[str, ...]
    base: str
    strides: str
    doc: str
    source: str
    position: Position


@dataclass(frozen=True)
class LimitDecl:
    """``limit EXPR when EXPR because TEXT``."""

    expr: Expr
    condition: Expr | None
    reason: str
    source: str
    position: Position


@dataclass(frozen=True)
class GroupDecl:
    """``group NAME``: (unit, operations it executes); ``source`` is "" where that of the units holds."""

    name: str
    narrow: bool
    source: str
    units: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class UnitsDecl:
    """``units FIELD``: groups in hardware order; a group's units may run in any order, each once a pass."""

    field: str
    groups: tuple[GroupDecl, ...]
    source: str
    position: Position


@dataclass(frozen=True)
class StageDecl:
    """``stage NAME``: its kernel, when it takes part, its cycles."""

    name: str
    kernel: str
    condition: Expr | None
    doc: str
    cycles: Expr | None
    source: str
    position: Position


CommandItem = FieldDecl | PortDecl | LimitDecl | UnitsDecl


@dataclass
class CommandDecl:
    """``command NAME``: items in written order, each with the stage it belongs to ("" for none)."""

    name: str
    kind: str
    doc: str
    position: Position
    opcode: int = -1
    format: str = ""
    queues: tuple[str, ...] = ()
    base: Expr | None = None
    drain: Expr | None = None
    lets: list[tuple[str, Expr]] = field(default_factory=list[tuple[str, Expr]])
    items: list[tuple[str, CommandItem]] = field(default_factory=list[tuple[str, CommandItem]])
    stages: list[StageDecl] = field(default_factory=list[StageDecl])


@dataclass
class Description:
    """All declarations of a file, in written order."""

    file: str
    name: str = ""
    doc: str = ""
    clock: NamedNumber | None = None
    levels: list[NamedNumber] = field(default_factory=list[NamedNumber])
    memories: list[MemoryDecl] = field(default_factory=list[MemoryDecl])
    links: list[MemoryDecl] = field(default_factory=list[MemoryDecl])
    types: list[TypeDecl] = field(default_factory=list[TypeDecl])
    queues: list[NamedNumber] = field(default_factory=list[NamedNumber])
    counts: dict[str, NamedNumber] = field(default_factory=dict[str, NamedNumber])
    params: list[NamedNumber] = field(default_factory=list[NamedNumber])
    formats: list[FormatDecl] = field(default_factory=list[FormatDecl])
    commands: list[CommandDecl] = field(default_factory=list[CommandDecl])
