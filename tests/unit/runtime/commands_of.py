"""Short ways to write commands of the rngd and toy machines in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from npuc.backends.instruction import Instruction, Reg, SemaphoreUse
from npuc.backends.machine import Machine, load_machine

ROOT = Path(__file__).parents[3]
RNGD: Machine = load_machine(ROOT / "backends" / "rngd" / "rngd.npu")
TOY: Machine = load_machine(ROOT / "tests" / "toy" / "toy.npu")
WINDOW = RNGD.memories["dm"].window

Uses = dict[int, int]


def uses(tokens: Uses | None) -> tuple[SemaphoreUse, ...]:
    return tuple(SemaphoreUse(*item) for item in (tokens or {}).items())


def control(command: str, **fields: int) -> Instruction:
    return Instruction(command, "control", dict(fields))


HALT = control("halt")


def port(name: str, base: int | Reg, *strides: int, type: str = "f32") -> dict[str, Any]:
    """The fields of a pass's port."""
    return {f"{name}.base": base, f"{name}.strides": strides, f"{name}.type": type}


def tu(
    size: tuple[int, ...],
    *ports: dict[str, Any],
    queue: str = "main",
    waits: Uses | None = None,
    signals: Uses | None = None,
    location: str = "",
    **fields: Any,
) -> Instruction:
    """A pass of rngd; in field names ``__`` stands for a dot."""
    given: dict[str, Any] = {"size": size, "out.memory": "dm"}
    for part in ports:
        given |= part
    given |= {name.replace("__", "."): value for name, value in fields.items()}
    return Instruction("tu", queue, given, uses(waits), uses(signals), location)


def dma(
    size: tuple[int, ...],
    src: tuple[str, int | Reg, tuple[int, ...]],
    dst: tuple[str, int | Reg, tuple[int, ...]],
    *,
    type: str = "f32",
    waits: Uses | None = None,
    signals: Uses | None = None,
    location: str = "",
    **fields: Any,
) -> Instruction:
    """A copy of rngd: (memory, base, strides) on both sides."""
    given: dict[str, Any] = {"size": size, "type": type}
    for name, (memory, base, strides) in (("src", src), ("dst", dst)):
        given |= {f"{name}.memory": memory, f"{name}.base": base, f"{name}.strides": strides}
    given |= {name.replace("__", "."): value for name, value in fields.items()}
    return Instruction("dma", "dma", given, uses(waits), uses(signals), location)
