"""Planting faults into the compiler: a pass that spoils its result, an encoder that spoils commands.

Nothing in the compiler knows of them: a pass is replaced where passes are registered, the encoder where it is
defined, for as long as `planted` lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from npuc.backends.instruction import Instruction
from npuc.backends.machine import Machine
from npuc.ir.universe import NPUC_UNIVERSE
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.transforms import get_all_passes

ENCODER = "encode"


@dataclass(frozen=True)
class Fault:
    """A fault, and where it should be found.

    Attributes:
        name: for people.
        step: the pass that is spoilt, or ``encode``.
        op, module: what is to be named.
        plant: spoils the pass's result, or a command before it is encoded.
        model: ``demo``, or a family of models.
    """

    name: str
    step: str
    op: str
    module: str
    plant: Callable[[Any], Any]
    model: str = "demo"


@contextmanager
def planted(fault: Fault) -> Generator[None]:
    """While this lasts, the compiler has the fault."""
    if fault.step == ENCODER:
        right = Machine.encode
        Machine.encode = lambda self, instruction: right(self, fault.plant(instruction))
        try:
            yield
        finally:
            Machine.encode = right
        return
    passes = NPUC_UNIVERSE.all_passes
    known = passes.get(fault.step)
    factory = known or get_all_passes()[fault.step]
    passes[fault.step] = lambda: spoilt(factory(), fault.plant)
    try:
        yield
    finally:
        if known is None:
            del passes[fault.step]
        else:
            passes[fault.step] = known


def spoilt(right: type[ModulePass], plant: Callable[[ModuleOp], None]) -> type[ModulePass]:
    """A pass of the same name and options that does one thing more."""

    def apply(self: ModulePass, ctx: Context, op: ModuleOp) -> None:
        right.apply(self, ctx, op)
        plant(op)

    return type(right.__name__, (right,), {"apply": apply})


def programs(module: ModuleOp) -> list[ModuleOp]:
    """The modules of a module's programs, or itself before there are any."""
    return [op for op in module.body.block.ops if isinstance(op, ModuleOp)] or [module]


def named(module: ModuleOp, name: str, path: str) -> Iterator[Operation]:
    """In each program the first operation of a name that comes from a checkpoint module."""
    for program in programs(module):
        found = (op for op in program.walk() if op.name == name and module_of(op) == path)
        op = next(found, None)
        if op is not None:
            yield op


def all_named(module: ModuleOp, name: str, path: str) -> list[Operation]:
    """All operations of a name that come from a checkpoint module."""
    return [op for op in module.walk() if op.name == name and module_of(op) == path]


def module_of(op: Operation) -> str:
    attr = op.attributes.get("module")
    return attr.data if isinstance(attr, StringAttr) else ""


def comes_from(instruction: Instruction, op: str, path: str) -> bool:
    """Whether a command was made from an operation of a checkpoint module."""
    return instruction.location == f"{op} {path}"
