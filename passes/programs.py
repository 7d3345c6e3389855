"""The programs of a `tile` module: one per bucket, each a set of functions that call each other."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.passes.command_fields import element_name
from npuc.passes.specialized import buckets_of
from xdsl.dialects.builtin import MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.exceptions import PassFailedException


def programs(module: ModuleOp) -> list[ModuleOp]:
    """The modules that hold a program's functions: the nested ones, or the module itself."""
    found = buckets_of(module)
    return [m for m in found or [module] if any(isinstance(op, FuncOp) for op in m.body.block.ops)]


def calls_of(function: FuncOp) -> Iterator[tile.CallOp]:
    """All calls in a function, loops included."""
    return (op for op in function.walk() if isinstance(op, tile.CallOp))


def callees_first(program: ModuleOp) -> list[FuncOp]:
    """The functions that the program's entries reach, each after those that it calls.

    Raises:
        PassFailedException: for a recursive or unknown callee.
    """
    functions = {f.sym_name.data: f for f in program.body.block.ops if isinstance(f, FuncOp)}
    done: list[FuncOp] = []
    visiting: list[str] = []

    def visit(name: str) -> None:
        if name not in functions:
            raise PassFailedException(f"@{visiting[-1]} calls @{name}, which does not exist")
        if name in visiting:
            raise PassFailedException(f"@{name} calls itself through {' → '.join(visiting)}")
        if functions[name] in done:
            return
        visiting.append(name)
        for call in calls_of(functions[name]):
            visit(call.callee.string_value())
        visiting.pop()
        done.append(functions[name])

    for entry in entries(program):
        visit(entry.sym_name.data)
    return done


def entries(program: ModuleOp) -> list[FuncOp]:
    """The public functions, where the runtime starts the program.

    Raises:
        PassFailedException: one of them is called.
    """
    functions = [f for f in program.body.block.ops if isinstance(f, FuncOp)]
    called = {call.callee.string_value() for f in functions for call in calls_of(f)}
    found = [f for f in functions if f.sym_visibility is None or f.sym_visibility.data != "private"]
    for function in found:
        if function.sym_name.data in called:
            raise PassFailedException(f"@{function.sym_name.data} is public and called; make it private")
    return found


def buffer_bytes(machine: Machine, value: SSAValue | Attribute) -> int:
    """Bytes of a buffer in one slice, rounded up to what its memory writes at once."""
    kind = value.type if isinstance(value, SSAValue) else value
    assert isinstance(kind, MemRefType)
    memory = machine.memories[tile.memory_of(kind)]
    name = element_name(machine, kind.element_type)
    bits = machine.element_types[name].bits if name in machine.element_types else 8
    size = -(-slice_elements(machine, kind) * bits // 8)
    return -(-size // memory.write_granule) * memory.write_granule


def slice_elements(machine: Machine, kind: Attribute) -> int:
    """Elements of a buffer in one slice; dimension 0 of a buffer in a per-slice memory is the slice."""
    assert isinstance(kind, MemRefType)
    shape = kind.get_shape()
    return prod(shape[1:] if machine.memories[tile.memory_of(kind)].slices > 1 else shape)
