"""Finds the first step of a compile that changes what is computed, then the operation or command in it.

A state is good if its logits are those of the first state. Between the last good state and the first bad one
their values are compared one by one (traces), from commands on command by command. Synchronization does not
show in values: there a state is good if the program has no hazards with the waits and signals of that state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from npuc.ir.errors import UserError
from npuc.passes.bisection.commands import (
    Run,
    WrongCommand,
    first_different_command,
    first_unsynchronized,
    first_wrong_command,
    numbers_of_commands,
    with_synchronization,
    written_by,
)
from npuc.passes.bisection.findings import Finding, at_command, at_failure, at_hazard, at_operation
from npuc.passes.bisection.states import History, State
from npuc.passes.bisection.suspects import culprit
from npuc.passes.bisection.traces import Event, first_wrong, number_operations, trace
from npuc.passes.checking import Figures, compare
from npuc.passes.evaluation import ENTRIES, Call, Evaluator
from npuc.passes.pipeline import context
from npuc.passes.simulation import Chip, simulated
from npuc.runtime.simulator.hazards import Hazard
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp

BROKEN = Figures(math.inf, math.inf, 0.0)


def first_bad(count: int, is_bad: Callable[[int], bool]) -> int | None:
    """The first bad one of `count` states, if all that follow a bad one are bad; the first one is good."""
    if count < 2 or not is_bad(count - 1):
        return None
    good, bad = 0, count - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if is_bad(middle) else (middle, bad)
    return bad


@dataclass
class Judged:
    """What a state was found to compute: the figures of its worst output, or why it cannot be run."""

    output: str
    figures: Figures
    error: UserError | None = None


@dataclass
class Search:
    """A search in the states of one compile.

    Attributes:
        history: the states.
        evaluator: runs them.
        tolerance: the largest relative error of a good state.
        progress: told what is being run.
    """

    history: History
    evaluator: Evaluator
    tolerance: float
    progress: Callable[[str], None] = lambda text: None
    judged: dict[int, Judged] = field(default_factory=dict[int, Judged])

    @property
    def states(self) -> list[State]:
        """The states, the first of which is good."""
        return self.history.states

    def run(self) -> Finding | None:
        """What is wrong, if anything is."""
        bad = first_bad(len(self.states), self._is_bad)
        if bad is not None:
            return self._localized(bad)
        if self.history.failure is not None:
            return at_failure(self.history.failure, self.states[-1])
        return self._unsynchronized() if self.states[-1].encoded else None

    def judge(self, index: int) -> Judged:
        """How the outputs of a state compare with those expected."""
        if index not in self.judged:
            self.progress(self.states[index].name)
            try:
                found = self._outputs(self.states[index])
                self.judged[index] = worst_output(found, self._expected)
            except UserError as error:
                self.judged[index] = Judged("", BROKEN, error)
        return self.judged[index]

    def _is_bad(self, index: int) -> bool:
        return self.judge(index).figures.max_rel_error > self.tolerance

    @cached_property
    def _expected(self) -> Mapping[str, Tensor]:
        return self._outputs(self.states[0])

    def _outputs(self, state: State) -> dict[str, Tensor]:
        if state.phase in ("schedule", "emit") and _has_commands(state.module):
            return simulated(self.evaluator, state.module, encoded=state.encoded)
        return self.evaluator.outputs(state.module)

    # Within a step

    def _localized(self, bad: int) -> Finding:
        before, after, judged = self.states[bad - 1], self.states[bad], self.judge(bad)
        call, entry = self._run_of(judged.output)
        if after.encoded:
            wrong = self._encoded(before, after, call, entry)
            return at_command(before, after, call, entry, wrong, judged.figures, judged.error)
        numbered = before.module.clone()
        numbers = number_operations(numbered)
        made = numbered.clone()
        if after.step is None:  # it was not made from the one before: names alone say what belongs together
            made = after.module
        else:
            after.step.apply(context(), made)
        if _has_commands(made):
            wrong = self._lowered(numbered, made, call, entry)
            return at_command(
                before, State(after.phase, after.step, made), call, entry, wrong, judged.figures
            )
        first, second = (self._trace(module, call, entry) for module in (numbered, made))
        difference = first_wrong(first[0], second[0], self.tolerance) if first[0] and second[0] else None
        suspect = culprit(difference, first[0], second[0], numbers)
        error = judged.error or second[1]
        return at_operation(before, after, (numbered, made), call, entry, suspect, judged.figures, error)

    def _run_of(self, output: str) -> tuple[Call, str]:
        """The call and entry that an output is of; the first where there is none."""
        name, _, entry = output.rpartition(".")
        calls = [call for call in self.evaluator.calls if call.bucket.name == name]
        return (calls[0], entry) if calls else (self.evaluator.calls[0], ENTRIES[0])

    def _trace(self, module: ModuleOp, call: Call, entry: str) -> tuple[list[Event], UserError | None]:
        events: list[Event] = []
        try:
            trace(self.evaluator, module, call, entry, events)
        except UserError as error:
            return events, error
        return events, None

    def _lowered(self, module: ModuleOp, made: ModuleOp, call: Call, entry: str) -> WrongCommand | None:
        """The first command that does not write what the pass or copy wrote that it was made from."""
        name = call.bucket.name
        nested = [op for op in module.body.block.ops if isinstance(op, ModuleOp)]
        program = next(m for m in nested if m.sym_name is not None and m.sym_name.data == name)
        expected = written_by(Chip(self.evaluator, module), program, call, entry)
        run = self._run(made, call, entry, encoded=False)
        return first_wrong_command(expected, run, numbers_of_commands(made, name), self.tolerance)

    def _encoded(self, before: State, after: State, call: Call, entry: str) -> WrongCommand | None:
        """The first command whose encoded form does something else."""
        expected = self._run(before.module, call, entry, encoded=False)
        try:
            run = self._run(after.module, call, entry, encoded=True)
        except UserError as error:
            items = expected.program.items
            number = next((i for i, item in enumerate(items) if item.where == error.where), 0)
            return WrongCommand(expected.program, number, BROKEN, error.message)
        return first_different_command(expected, run)

    def _run(self, module: ModuleOp, call: Call, entry: str, *, encoded: bool) -> Run:
        chip = Chip(self.evaluator, module)
        return Run(chip, *chip.load(encoded)[call.bucket.name], call, entry)

    # Synchronization

    def _unsynchronized(self) -> Finding | None:
        """The first step that loses synchronization, if the last program has hazards."""
        for call in self.evaluator.calls:
            for entry in ENTRIES:
                self.progress(f"{call.bucket.name}, entry {entry}")
                run = self._run(self.states[-1].module, call, entry, encoded=True)
                hazards = run.hazards()
                if hazards:
                    return self._lost(run, hazards)
        return None

    def _lost(self, run: Run, hazards: Sequence[Hazard]) -> Finding:
        """Which of encoder, lowering and insertion has made the hazards."""
        call, entry = run.call, run.entry
        last = len(self.states) - 1
        commands = self._run(self.states[last - 1].module, call, entry, encoded=False)
        if not commands.hazards():
            wrong = first_unsynchronized(commands.program, run.program)
            return at_hazard(self.states[last], run, hazards, wrong)
        numbered = self.states[last - 2].module.clone()
        numbers = number_operations(numbered)
        step = self.states[last - 1].step
        assert step is not None
        step.apply(context(), numbered)
        chip = Chip(self.evaluator, numbered)
        intended = Run(chip, *with_synchronization(chip, numbered, call.bucket.name, numbers), call, entry)
        if not intended.hazards():
            wrong = first_unsynchronized(intended.program, commands.program)
            return at_hazard(self.states[last - 1], run, hazards, wrong)
        return at_hazard(self.states[last - 2], run, hazards, None)


def worst_output(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Judged:
    """The output that is furthest from what is expected."""
    figures = {name: compare(found[name], expected[name]) for name in found if name in expected}
    if not figures:
        return Judged("", Figures(0.0, 0.0, 1.0))
    name = max(figures, key=lambda key: figures[key].max_rel_error)
    return Judged(name, figures[name])


def _has_commands(module: ModuleOp) -> bool:
    return any(op.name == "npu.program" for op in module.walk())
