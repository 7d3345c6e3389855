"""The numerical check of passes: every module computes what the one before it did."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from npuc.ir.errors import UserError
from npuc.ir.npu import ProgramOp
from npuc.ir.printing import print_ir
from npuc.passes.checking import Figures, compare_outputs, first_difference
from npuc.passes.evaluation import Call, Evaluator, Place
from npuc.passes.instrumentation import Instrument, parse_pipeline_text, pipeline_text
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Of the largest logit: fp32 computations differ by the order of their sums, bf16 ones by a few roundings."""


@dataclass(frozen=True)
class CheckOptions:
    """What to check.

    Attributes:
        each: ``every`` pass, or ``phases`` only.
        input: a file of token ids or text; None for a fixed prompt.
        tolerance: the largest relative error of a step; None for the default of the compile's type.
        folder: where a failed step leaves its reproducer, in ``check.STEP``.
    """

    each: str = "every"
    input: Path | None = None
    tolerance: float | None = None
    folder: Path = Path()


@dataclass(frozen=True)
class Checked:
    """A step that was checked."""

    name: str
    figures: Figures


@dataclass
class PassCheck(Instrument):
    """Compares what the module computes before and after each pass (or phase); tells on stderr.

    Raises:
        UserError: ``numerical-drift``, from the first step whose error is above the tolerance.
    """

    evaluator: Evaluator
    options: CheckOptions
    checked: list[Checked] = field(default_factory=list[Checked])
    before: ModuleOp | None = None
    outputs: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    steps: list[ModulePass] = field(default_factory=list[ModulePass])

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        if self.before is None:
            self._take(module)
        self.steps.append(step)

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        if self.options.each == "every":
            self._check(step.name, module)

    def after_phase(self, phase: str, module: ModuleOp) -> None:
        if self.options.each == "phases" and self.steps:
            self._check(phase, module)

    def _take(self, module: ModuleOp, outputs: Mapping[str, Tensor] | None = None) -> None:
        self.outputs = self.evaluator.outputs(module) if outputs is None else outputs
        self.before = module.clone()
        self.steps = []

    def _check(self, name: str, module: ModuleOp) -> None:
        outputs = self.evaluator.outputs(module)
        figures = compare_outputs(outputs, self.outputs)
        self.checked.append(Checked(name, figures))
        print(line(name, figures), file=sys.stderr)
        rounds = any(getattr(step, "rounds_values", False) for step in self.steps)
        tolerance = inf if rounds else tolerance_of(self.options, module)
        if figures.max_rel_error > tolerance:
            raise self._drift(name, module, figures, tolerance)
        self._take(module, outputs)

    def _drift(self, name: str, module: ModuleOp, figures: Figures, tolerance: float) -> UserError:
        assert self.before is not None
        folder = write_reproducer(self.options.folder / f"check.{name}", self.before, module, self.steps)
        found = self._first(module, tolerance)
        message = f"{name} changes the logits by {figures.max_rel_error:.3g} of the largest"
        message += f", more than {tolerance:g}"
        if found is not None:
            message += f"; the first value that differs is %{found.value} of {found.operation}"
        return UserError(
            "numerical-drift",
            message,
            where=found.module if found else f"pass {name}",
            remedy=f"the IR before and after it is in {folder}",
        )

    def _first(self, module: ModuleOp, tolerance: float) -> Place | None:
        """Where values that keep their names first differ, or None where none of them does."""
        assert self.before is not None
        if any(isinstance(op, ProgramOp) for op in module.walk()):
            return None
        for call in self.evaluator.calls:
            now, then = (self._values(which, call) for which in (module, self.before))
            names = [[(place[:2], value) for place, value in values] for values in (now, then)]
            difference = first_difference(names[0], names[1], tolerance)
            if difference is not None:
                return now[difference.number][0]
        return None

    def _values(self, module: ModuleOp, call: Call) -> list[tuple[Place, Tensor]]:
        seen: list[tuple[Place, Tensor]] = []

        def watch(op: Operation, layer: int | None, results: Sequence[Tensor]) -> None:
            values = [(number, value) for number, value in enumerate(results) if value.is_floating_point()]
            seen.extend((Place.of(op, number, layer), value.clone()) for number, value in values)

        self.evaluator.run(module, call, watch)
        return seen


def line(name: str, figures: Figures) -> str:
    """What is told of a step."""
    return (
        f"check: {name:<16} max error {figures.max_abs_error:<9.3g} "
        f"relative {figures.max_rel_error:<9.3g} cosine {figures.cosine:.8f}"
    )


def tolerance_of(options: CheckOptions, module: ModuleOp) -> float:
    """The tolerance asked for, or that of the module's type."""
    dtype = module.attributes.get("npuc.dtype")
    default = TOLERANCE.get(dtype.data if isinstance(dtype, StringAttr) else "", TOLERANCE["float32"])
    return default if options.tolerance is None else options.tolerance


def write_reproducer(folder: Path, before: ModuleOp, after: ModuleOp, steps: Sequence[ModulePass]) -> Path:
    """Writes the IR before and after some passes, and their pipeline."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "before.mlir").write_text(print_ir(before), encoding="utf-8")
    (folder / "after.mlir").write_text(print_ir(after), encoding="utf-8")
    (folder / "pipeline.txt").write_text(parse_pipeline_text(pipeline_text(steps)) + "\n", encoding="utf-8")
    return folder


def read_prompt(file: Path | None, root: Path, vocab_size: int) -> list[int]:
    """The tokens of a file of ids or of text, or a fixed prompt of 12 tokens.

    Raises:
        UserError: when the file cannot be read, is empty or holds a token that the model does not know.
    """
    if file is None:
        return [(1 + 37 * i) % vocab_size for i in range(12)]
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("check-input", f"cannot be read: {error}", where=str(file)) from error
    words = text.replace(",", " ").split()
    if not words:
        raise UserError("check-input", "the file holds no token", where=str(file))
    if all(word.isdecimal() for word in words):
        tokens = [int(word) for word in words]
    else:
        from npuc.runtime.tokenizer import Tokenizer

        tokens = Tokenizer(root).encode(text)
    if max(tokens) >= vocab_size:
        raise UserError(
            "check-input", f"token {max(tokens)} is beyond the {vocab_size} of the model", where=str(file)
        )
    return tokens
