"""Runs the passes of phase schedule on a tile module."""

from pathlib import Path

from npuc.ir.universe import load_pass
from npuc.passes.emit import EmittedProgram, emit_programs
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

TOY = str(Path(__file__).parents[2] / "toy" / "toy.npu")
PASSES = (
    "inline-calls",
    "select-commands",
    "order-commands",
    "multi-buffer",
    "allocate-buffers",
    "insert-sync",
    "lower-to-npu",
)


def schedule(module: ModuleOp, target: str) -> EmittedProgram:
    """The program of a module with one; the module is verified after each pass."""
    module.verify()
    for name in PASSES:
        options = {} if name in ("inline-calls", "multi-buffer") else {"target": target}
        load_pass(name)(**options).apply(Context(), module)
        module.verify()
    (program,) = emit_programs(module, target)
    return program
