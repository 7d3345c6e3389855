"""The numerical check of passes: every module computes what the one before it did."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from npuc.ir.errors import UserError
from npuc.ir.files import read_text
from npuc.ir.legality import PHASES
from npuc.ir.npu import ProgramOp
from npuc.ir.printing import print_ir
from npuc.passes.bisection.traces import Event, number_operations, pairs, trace
from npuc.passes.checking import Figures, compare_outputs, layer_of, worst
from npuc.passes.evaluation import ENTRIES, Evaluator
from npuc.passes.instrumentation import Instrument, parse_pipeline_text, pipeline_text
from npuc.passes.pipeline import context, phase_of
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

if TYPE_CHECKING:
    from npuc.passes.bisection.findings import Finding

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
    """A step that was checked.

    Attributes:
        name: the pass or phase.
        figures: of the logits.
        layers: of all values in each layer that can be compared, by its module path.
    """

    name: str
    figures: Figures
    layers: Mapping[str, Figures]


@dataclass
class _Before:
    """The module before the steps that are checked together.

    Attributes:
        module: numbered, not to be changed.
        outputs: what the compile's own module gave.
        events: the values of each call.
    """

    module: ModuleOp
    outputs: Mapping[str, Tensor]
    events: list[list[Event]]


@dataclass
class PassCheck(Instrument):
    """Compares what the module computes before and after each pass (or phase); tells on stderr.

    Values in between are compared on a copy with numbered operations, to which the passes are applied too.

    Raises:
        UserError: ``numerical-drift``, from the first step whose error is above the tolerance.
    """

    evaluator: Evaluator
    options: CheckOptions
    checked: list[Checked] = field(default_factory=list[Checked])
    before: _Before | None = None
    steps: list[ModulePass] = field(default_factory=list[ModulePass])

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        if self.before is None:
            copy = module.clone()
            self.before = _Before(copy, self.evaluator.outputs(module), self._events(copy))
        self.steps.append(step)

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        if self.options.each == "every":
            self._check(step.name, module)

    def after_phase(self, phase: str, module: ModuleOp) -> None:
        if self.options.each == "phases" and self.steps:
            self._check(phase, module)

    def _check(self, name: str, module: ModuleOp) -> None:
        before = self.before
        assert before is not None
        outputs = self.evaluator.outputs(module)
        figures = compare_outputs(outputs, before.outputs)
        rounds = any(getattr(step, "rounds_values", False) for step in self.steps)
        tolerance = inf if rounds else tolerance_of(self.options, module)
        if figures.max_rel_error > tolerance:
            print(line(name, figures), file=sys.stderr)
            raise self._drift(name, module, figures, tolerance)
        after = self._after(before, outputs)
        self.checked.append(Checked(name, figures, _layers(before, after)))
        print(line(name, figures), file=sys.stderr)
        self.before, self.steps = after, []

    def _after(self, before: _Before, outputs: Mapping[str, Tensor]) -> _Before:
        number_operations(before.module)
        copy = before.module.clone()
        for step in self.steps:
            step.apply(context(), copy)
        return _Before(copy, outputs, self._events(copy))

    def _events(self, module: ModuleOp) -> list[list[Event]]:
        """The values of each call; commands have none."""
        found: list[list[Event]] = [[] for _ in self.evaluator.calls]
        if not any(isinstance(op, ProgramOp) for op in module.walk()):
            for call, events in zip(self.evaluator.calls, found, strict=True):
                trace(self.evaluator, module, call, ENTRIES[0], events)
        return found

    def _drift(self, name: str, module: ModuleOp, figures: Figures, tolerance: float) -> UserError:
        assert self.before is not None
        folder = write_reproducer(
            self.options.folder / f"check.{name}", self.before.module, module, self.steps
        )
        finding = self._finding(self.before.module, tolerance)
        message = f"{name} changes the logits by {figures.max_rel_error:.3g} of the largest"
        message += f", more than {tolerance:g}"
        if finding is not None:
            message += f"; {finding.explanation}"
            print("\n".join(finding.neighbours), file=sys.stderr)
            (folder / "finding.json").write_text(json.dumps(finding.data(), indent=1) + "\n")
        return UserError(
            "numerical-drift",
            message,
            where=(finding and finding.module) or f"pass {name}",
            remedy=f"the IR before and after it is in {folder}",
        )

    def _finding(self, before: ModuleOp, tolerance: float) -> Finding | None:
        """The pass, operation or command at fault, by a search in the steps."""
        from npuc.passes.bisection.search import Search
        from npuc.passes.bisection.states import History, State

        phase = PHASES[PHASES.index(phase_of(before)) + 1]
        states = [State(phase, None, before)]
        for step in self.steps:
            module = states[-1].module.clone()
            step.apply(context(), module)
            states.append(State(phase, step, module))
        return Search(History(states), self.evaluator, tolerance).run()


def _layers(before: _Before, after: _Before) -> dict[str, Figures]:
    """The worst figures of the values in each layer, in order."""
    found: dict[str, list[Figures]] = defaultdict(list)
    for events in zip(before.events, after.events, strict=True):
        for pair in pairs(*events):
            found[layer_of(pair.before.place.module)].append(pair.figures)
    return {name: worst(figures) for name, figures in found.items()}


def line(name: str, figures: Figures) -> str:
    """What is told of a step."""
    exact = sum(figures.ulps[:2]) / max(sum(figures.ulps), 1)
    ratio = "exact" if figures.snr_db is None else f"{figures.snr_db:.1f} dB"
    return (
        f"check: {name:<16} max error {figures.max_abs_error:<9.3g} relative {figures.max_rel_error:<9.3g} "
        f"cosine {figures.cosine:.8f}  snr {ratio:<8} within 1 ulp {exact:.1%}"
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
    text = read_text(file, "check-input").strip()
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
