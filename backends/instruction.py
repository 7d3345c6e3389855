"""One command of a program, as the scheduler, encoder, assembler and simulator speak of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Reg(NamedTuple):
    """A field value resolved at dispatch: ``imm + R[reg]``. Register 0 is always zero."""

    imm: int
    reg: int


FieldValue = int | float | str | Reg | tuple[int, ...] | tuple[str, ...] | tuple[float, ...]


class SemaphoreUse(NamedTuple):
    """A wait takes ``count`` tokens from semaphore ``semaphore``; a signal adds them."""

    semaphore: int
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclass(frozen=True)
class Instruction:
    """A command with its fields, as declared by the machine description.

    Attributes:
        command: the command's name in the machine description, e.g. ``"tu"``, ``"dma"``, ``"loop"``.
        queue: the queue that runs it; ``"control"`` for the sequencer's own commands.
        fields: field name → value; fields left out are zero (their declared default).
        waits: tokens taken before the command starts.
        signals: tokens given when the command is done.
        location: the IR op and checkpoint module it came from, for the line table.
    """

    command: str
    queue: str
    fields: dict[str, FieldValue] = field(default_factory=dict[str, FieldValue])
    waits: tuple[SemaphoreUse, ...] = ()
    signals: tuple[SemaphoreUse, ...] = ()
    location: str = ""
