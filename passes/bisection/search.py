"""Finds the first step of a compile that changes what is computed, then the operation or command in it.

A state is good if its logits are those of the first state; after a pass that is meant to round values, of
the state that it left, which is compared with a reference of its own. Between the last good state and the
first bad one their values are compared one by one (traces), from commands on command by command.
Synchronization does not show in values: there a state is good if the program has no hazards with the waits
and signals of that state. Of an artifact, the last state is what its files hold (stored).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from npuc.ir.errors import UserError
from npuc.passes.bisection.commands import (
    SAME,
    Run,
    WrongCommand,
    first_changed,
    first_different_command,
    first_unsynchronized,
    first_wrong_command,
    numbers_of_commands,
    with_synchronization,
    written_by,
)
from npuc.passes.bisection.findings import (
    Finding,
    at_command,
    at_failure,
    at_hazard,
    at_operation,
    at_stored,
    at_weight,
)
from npuc.passes.bisection.states import History, State
from npuc.passes.bisection.stored import StoredChip, wrong_weight
from npuc.passes.bisection.suspects import culprit
from npuc.passes.bisection.traces import Event, first_unlike, first_wrong, number_operations, trace
from npuc.passes.checking import Figures, compare
from npuc.passes.emit import emit_programs
from npuc.passes.evaluation import ENTRIES, Call, Evaluator
from npuc.passes.pipeline import context
from npuc.passes.simulation import Chip, executed
from npuc.passes.specialized import buckets_of
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
        rounded: what is wrong with a state that a pass has left that rounds values, if that can be told.
    """

    history: History
    evaluator: Evaluator
    tolerance: float
    progress: Callable[[str], None] = lambda text: None
    rounded: Callable[[State], Finding | None] = lambda state: None
    judged: dict[int, Judged] = field(default_factory=dict[int, Judged])
    computed: dict[int, Mapping[str, Tensor]] = field(default_factory=dict[int, Mapping[str, Tensor]])

    @property
    def states(self) -> list[State]:
        """The states, the first of which is good."""
        return self.history.states

    def run(self) -> Finding | None:
        """What is wrong, if anything is."""
        return self.wrong_values() or self.beside_values()

    def beside_values(self) -> Finding | None:
        """What is wrong although values are right: a pass fails, there is a hazard, a file was changed."""
        if self.history.failure is not None:
            return at_failure(self.history.failure, self.states[-1])
        return (self._unsynchronized() if self.states[-1].encoded else None) or self._changed_text()

    def wrong_values(self) -> Finding | None:
        """The first step that changes the logits, and what in it does."""
        count = self.compiled
        starts = [0, *(i for i in range(1, count) if self.states[i].rounds)]
        for start, end in zip(starts, [*starts[1:], count], strict=True):
            found = self.rounded(self.states[start]) if start else None
            bad = first_bad(end - start, lambda number, start=start: self.is_bad(start + number))
            if found is not None or bad is not None:
                return found or self.localized(start + (bad or 0))
        return next((self.localized(i) for i in range(count, len(self.states)) if self.is_bad(i)), None)

    @property
    def compiled(self) -> int:
        """How many states come from a compile; one of an artifact's files may be right where they are not."""
        return sum(state.stored is None for state in self.states)

    def judge(self, index: int) -> Judged:
        """How the outputs of a state compare with those expected."""
        if index not in self.judged:
            self.progress(self.states[index].name)
            try:
                found = self.outputs(index)
                self.judged[index] = worst_output(found, self.expected(index))
            except UserError as error:
                self.judged[index] = Judged("", BROKEN, error)
        return self.judged[index]

    def is_bad(self, index: int) -> bool:
        """Whether the outputs of a state are not those expected."""
        return self.judge(index).figures.max_rel_error > self.tolerance

    def expected(self, index: int) -> Mapping[str, Tensor]:
        """The outputs that a state should have: those of the state before it whose values are final."""
        base = next((i for i in range(index, 0, -1) if self.states[i].rounds), 0)
        return self.outputs(base)

    def outputs(self, index: int) -> Mapping[str, Tensor]:
        """The logits of a state, by call and entry."""
        if index not in self.computed:
            self.computed[index] = outputs_of(self.states[index], self.evaluator)
        return self.computed[index]

    # Within a step

    def localized(self, bad: int) -> Finding:
        """What a step that makes a good state a bad one does wrong."""
        before, after, judged = self.states[bad - 1], self.states[bad], self.judge(bad)
        call, entry = self._run_of(judged.output)
        if after.stored is not None:
            return self._stored(before, after, judged)
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
        find = first_unlike if after.step is None else first_wrong
        difference = find(first[0], second[0], self.tolerance) if first[0] and second[0] else None
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
        nested = buckets_of(module)
        program = next(m for m in nested if m.sym_name is not None and m.sym_name.data == name)
        expected = written_by(Chip(self.evaluator, module), program, call, entry)
        run = self._run(State("schedule", None, made), call, entry)
        if run.chip.ranks > 1:
            return None
        return first_wrong_command(expected, run, numbers_of_commands(made, name), self.tolerance)

    def _encoded(self, before: State, after: State, call: Call, entry: str) -> WrongCommand | None:
        """The first command whose encoded form, or that in a file, does something else."""
        expected = self._run(before, call, entry)
        try:
            run = self._run(after, call, entry)
        except UserError as error:
            items = expected.program.items
            number = next((i for i, item in enumerate(items) if item.where == error.where), None)
            if number is None:
                number = first_changed(expected.program, self._text(before, call), self._text(after, call))
            return WrongCommand(expected.program, number or 0, BROKEN, error.message)
        return None if run.chip.ranks > 1 else first_different_command(expected, run)

    def _stored(self, before: State, after: State, judged: Judged) -> Finding:
        """What an artifact's files have otherwise than the compile of its IR gives."""
        assert after.stored is not None
        call, entry = self._run_of(judged.output)
        changed = [c for c in self.evaluator.calls if self._text(before, c) != self._text(after, c)]
        for call, entry in ((call, entry) for call in changed for entry in ENTRIES):
            wrong = self._encoded(before, after, call, entry)
            if wrong is not None:
                compiled = self._run(before, call, entry).program
                return at_stored(after.stored, call, entry, wrong, judged.figures, compiled)
        name = wrong_weight(self.evaluator, before.module, after.stored)
        return at_weight(after.stored, call, entry, name, judged.figures, judged.error)

    def _changed_text(self) -> Finding | None:
        """A program whose file is not what was compiled, although nothing shows it."""
        before, after = self.states[-2:] if len(self.states) > 1 else (self.states[0],) * 2
        if after.stored is None:
            return None
        for call in self.evaluator.calls:
            texts = self._text(before, call), self._text(after, call)
            if texts[0] != texts[1]:
                run = self._run(before, call, ENTRIES[0])
                reason = "it is encoded otherwise, but neither values nor hazards show it"
                wrong = WrongCommand(run.program, first_changed(run.program, *texts) or 0, SAME, reason)
                return at_stored(after.stored, call, ENTRIES[0], wrong, None, run.program)
        return None

    def _text(self, state: State, call: Call) -> bytes:
        """The encoded program of a call."""
        if state.stored is not None:
            return state.stored.program(call.bucket.name).text
        emitted = emit_programs(state.module, self.evaluator.target)
        return next(e.program.text for e in emitted if e.name == call.bucket.name)

    def _run(self, state: State, call: Call, entry: str) -> Run:
        chip = chip_of(state, self.evaluator)
        return Run(chip, *chip.load(state.encoded)[call.bucket.name], call, entry)

    # Synchronization

    def _unsynchronized(self) -> Finding | None:
        """The first step that loses synchronization, if the last program has hazards."""
        for call in self.evaluator.calls:
            for entry in ENTRIES:
                self.progress(f"{call.bucket.name}, entry {entry}")
                run = self._run(self.states[-1], call, entry)
                hazards = run.hazards()
                if hazards:
                    return self._lost(run, hazards)
        return None

    def _lost(self, run: Run, hazards: Sequence[Hazard]) -> Finding:
        """Which of file, encoder, lowering and insertion has made the hazards."""
        call, entry, found = run.call, run.entry, run
        last = len(self.states) - 1
        while self.states[last].encoded:
            right = self._run(self.states[last - 1], call, entry)
            if not right.hazards():
                wrong = first_unsynchronized(right.program, found.program)
                return at_hazard(self.states[last], run, hazards, wrong)
            last, found = last - 1, right
        numbered = self.states[last - 1].module.clone()
        numbers = number_operations(numbered)
        step = self.states[last].step
        assert step is not None
        step.apply(context(), numbered)
        chip = Chip(self.evaluator, numbered)
        intended = Run(chip, *with_synchronization(chip, numbered, call.bucket.name, numbers), call, entry)
        if not intended.hazards():
            wrong = first_unsynchronized(intended.program, found.program)
            return at_hazard(self.states[last], run, hazards, wrong)
        return at_hazard(self.states[last - 1], run, hazards, None)


def chip_of(state: State, evaluator: Evaluator) -> Chip:
    """A chip that holds what the programs of a state need."""
    if state.stored is not None:
        return StoredChip(evaluator, state.module, state.stored)
    return Chip(evaluator, state.module)


def outputs_of(state: State, evaluator: Evaluator) -> dict[str, Tensor]:
    """What a state computes."""
    if state.phase in ("schedule", "emit") and _has_commands(state.module):
        return executed(chip_of(state, evaluator), evaluator.calls, encoded=state.encoded)
    return evaluator.outputs(state.module)


def worst_output(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Judged:
    """The output that is furthest from what is expected."""
    figures = {name: compare(found[name], expected[name]) for name in found if name in expected}
    if not figures:
        return Judged("", Figures(0.0, 0.0, 1.0))
    name = max(figures, key=lambda key: figures[key].max_rel_error)
    return Judged(name, figures[name])


def _has_commands(module: ModuleOp) -> bool:
    return any(op.name == "npu.program" for op in module.walk())
