"""What makes a module interesting: a pipeline that fails on it, changes its values, or leaves hazards."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.ir.errors import UserError
from npuc.ir.npu import ProgramOp
from npuc.ir.printing import print_ir
from npuc.passes.allocate_buffers import memory_map
from npuc.passes.emit import instructions_of
from npuc.passes.instrumentation import Instrument, Verification
from npuc.passes.pipeline import context, run_passes
from npuc.passes.reduction.random_values import change_of_values
from npuc.runtime.device import parameters
from npuc.runtime.simulator.simulator import Simulator
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp
from xdsl.passes import ModulePass

TOLERANCE = 1e-3
KINDS = ("failure", "values", "hazard")


@dataclass
class _Running(Instrument):
    """Remembers the pass that runs."""

    name: str = ""

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        self.name = step.name


def failure(module: ModuleOp, pipeline: str) -> str:
    """Which pass fails on a module, and how, without names and numbers; "" if none does."""
    running = _Running()
    try:
        run_passes(context(), module, pipeline, [running, Verification()])
    except Exception as error:  # a pass may fail in any way
        cause = error.__cause__ or error
        words = re.sub(r"[%@'\"][\w.{}#-]*|\([^()]*\)|-?\d[\w.x]*", "", str(cause).split("\n")[-1])
        return f"{running.name}: {type(cause).__name__}: {' '.join(words.split())}"
    return ""


@dataclass(frozen=True)
class Fails:
    """The pipeline fails in the same pass with the same words."""

    pipeline: str
    signature: str

    def __call__(self, module: ModuleOp) -> bool:
        return failure(module, self.pipeline) == self.signature


@dataclass(frozen=True)
class ChangesValues:
    """Functions compute something else after the pipeline, of the same random arguments and weights."""

    pipeline: str
    machine: Machine
    tolerance: float = TOLERANCE

    def __call__(self, module: ModuleOp) -> bool:
        before = module.clone()
        try:
            run_passes(context(), module, self.pipeline)
            module.verify()
            figures = change_of_values(before, module, self.machine)
        except Exception:  # what cannot be run has no values
            return False
        return figures.max_rel_error > self.tolerance


@dataclass(frozen=True)
class HasHazard:
    """The programs that the pipeline makes have a hazard of a kind."""

    pipeline: str
    machine: Machine
    kinds: tuple[str, ...] = ("race", "reversed", "leak", "deadlock")

    def __call__(self, module: ModuleOp) -> bool:
        try:
            run_passes(context(), module, self.pipeline)
            return any(self._has_hazard(module, op) for op in module.walk() if isinstance(op, ProgramOp))
        except Exception:  # what cannot be run has no hazard
            return False

    def _has_hazard(self, module: ModuleOp, op: ProgramOp) -> bool:
        end = max(base + size for base, size in memory_map(module).values())
        simulator = Simulator(self.machine, end)
        simulator.zero(0, end)
        instructions, symbols = instructions_of(self.machine, op)
        program, rows = simulator.load(instructions, symbols), _rows(op)
        for entry in ("all", "last"):
            if entry in symbols:
                found = simulator.run(program, entry, parameters(rows), hazards=True).hazards
                if any(hazard.kind in self.kinds for hazard in found):
                    return True
        return False


def _rows(op: ProgramOp) -> list[tuple[int, int, int]]:
    """Slot, position and valid tokens of each row of a program, all tokens valid."""
    holder = op.parent_op()
    bucket = holder.attributes.get("npuc.bucket") if isinstance(holder, ModuleOp) else None
    if not isinstance(bucket, DictionaryAttr):
        return [(0, 0, 1)]
    batch, tokens, length = (tile.integer(bucket.data[n]) for n in ("batch", "new_tokens", "length"))
    return [(row, length - tokens, tokens) for row in range(batch)]


@dataclass(frozen=True)
class Script:
    """A user's command, given a file, says so with exit status 0."""

    command: str
    seconds: float = 300.0

    def __call__(self, module: ModuleOp) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "module.mlir"
            file.write_text(print_ir(module), encoding="utf-8")
            words = [*shlex.split(self.command), str(file)]
            try:
                done = subprocess.run(words, capture_output=True, check=False, timeout=self.seconds)
            except subprocess.TimeoutExpired:
                return False
            except OSError as error:
                raise UserError("test", f"cannot be run: {error}", where=self.command) from error
        return done.returncode == 0


def find_criterion(
    module: ModuleOp, pipeline: str, machine: Machine, kind: str | None = None
) -> tuple[str, Callable[[ModuleOp], bool]]:
    """The kind of what the pipeline does wrong to a module, and the criterion that it still does.

    Raises:
        UserError: ``not-interesting``, when it does nothing of that kind, or nothing wrong at all.
    """
    signature = failure(module.clone(), pipeline)
    if signature and kind in (None, "failure"):
        return "failure", Fails(pipeline, signature)
    candidates = {"values": ChangesValues(pipeline, machine), "hazard": HasHazard(pipeline, machine)}
    for name, criterion in candidates.items():
        if kind in (None, name) and criterion(module.clone()):
            return name, criterion
    raise UserError(
        "not-interesting",
        "the pipeline does not fail, change values or leave hazards"
        if kind is None
        else f"it shows no {kind}",
        where=pipeline,
    )
