"""What a search has found, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from npuc.backends.assembler import format_instruction
from npuc.ir.errors import UserError
from npuc.ir.printing import ELIDED, print_with_spans
from npuc.passes.bisection.commands import Run, WrongCommand
from npuc.passes.bisection.states import Failure, State
from npuc.passes.bisection.stored import Stored
from npuc.passes.bisection.suspects import Suspect
from npuc.passes.checking import Figures, figures_data
from npuc.passes.evaluation import Call
from npuc.runtime.simulator.hazards import Hazard
from npuc.runtime.simulator.program import Item, LoadedProgram
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

NEIGHBOURS, WIDTH = 2, 150


@dataclass(frozen=True)
class Finding:
    """The step at fault, and what in it.

    Attributes:
        kind: ``values`` differ, a ``hazard``, or a ``failure`` of the step.
        phase, step: where: the step is a pass, or ``encode``.
        op: the operation to blame, "" if unknown; from commands on the one that the command was made from.
        module: the checkpoint module it came from; of layers that share their code, the first to differ.
        value: the name of its result or of the buffer it writes.
        program, entry: which run shows it.
        command_offset: of the command in the program's text, where it is a command.
        explanation: a sentence.
        error: how wrong the first wrong value is; None where values are right.
        logits: how wrong the outputs are.
        before, after: lines of the IR or program around it, the one meant marked ``→``.
        side: of two artifacts or compiles that are compared, the one that the step belongs to.
    """

    kind: str
    phase: str
    step: str
    op: str = ""
    module: str = ""
    value: str = ""
    program: str = ""
    entry: str = ""
    command_offset: int | None = None
    explanation: str = ""
    error: Figures | None = None
    logits: Figures | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    side: str = ""

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "kind": self.kind,
            "phase": self.phase,
            "pass": self.step,
            "op": self.op,
            "module": self.module,
            "value": self.value,
            "program": self.program,
            "entry": self.entry,
            "command_offset": self.command_offset,
            "explanation": self.explanation,
            "error": figures_data(self.error) if self.error else None,
            "logits": figures_data(self.logits) if self.logits else None,
            "before": list(self.before),
            "after": list(self.after),
            "side": self.side,
        }

    @property
    def neighbours(self) -> list[str]:
        """The lines around the fault, before and after the step, with headings."""
        titles = (f"before {self.step}", f"after {self.step}")
        if self.command_offset is not None:
            titles = ("compiled", "commands")
        shown = zip(titles, (self.before, self.after), strict=True)
        return [line for name, lines in shown if lines for line in (f"{name}:", *lines)]


def at_failure(failure: Failure, last: State) -> Finding:
    """A pass that fails."""
    message = failure.error.message
    op = operation_in(message)
    module = re.search(r"\((\w+(?:\.[\w{}]+)+)\)", message)
    return Finding(
        "failure",
        failure.phase,
        failure.step,
        op=op,
        module=module[1] if module else "",
        explanation=f"{failure.step} fails: {message}",
        before=around(last.module, first_of(last.module, op, module[1] if module else "")),
    )


def at_operation(
    before: State,
    after: State,
    modules: tuple[ModuleOp, ModuleOp],
    call: Call,
    entry: str,
    suspect: Suspect | None,
    logits: Figures,
    error: UserError | None,
) -> Finding:
    """A pass that changes a value, or leaves a module that cannot be run."""
    name, place = call.bucket.name, (after.phase, after.name)
    if suspect is None:
        reason = f"leaves what cannot be run: {error.message}" if error else "changes the logits"
        words = f"{after.name} {reason}{'' if error else ', but no value that has a counterpart'}"
        op, where = (operation_in(error.message), error.where) if error else ("", "")
        return Finding(
            "values",
            *place,
            op=op,
            module=where,
            program=name,
            entry=entry,
            explanation=words,
            logits=logits,
            before=around(modules[0], first_of(modules[0], op, where)),
            after=around(modules[1], first_of(modules[1], op, where)),
        )
    return Finding(
        "values",
        *place,
        op=suspect.place.operation,
        module=suspect.place.module,
        value=suspect.place.value,
        program=name,
        entry=entry,
        explanation=f"{suspect.place.operation} is wrong after {after.name}: {suspect.reason}",
        error=suspect.figures,
        logits=logits,
        before=around(modules[0], suspect.before),
        after=around(modules[1], suspect.after),
    )


def at_command(
    before: State,
    after: State,
    call: Call,
    entry: str,
    wrong: WrongCommand | None,
    logits: Figures,
    error: UserError | None = None,
) -> Finding:
    """A command that does not do what it was made for."""
    common = {"program": call.bucket.name, "entry": entry, "logits": logits}
    if wrong is None:
        reason = error.message if error else "no single command tells where"
        words = f"{after.name} changes the logits; {reason}"
        return Finding("values", after.phase, after.name, explanation=words, **common)  # type: ignore[arg-type]
    op, module = location_of(wrong.item)
    what = "is encoded wrongly" if after.encoded else f"is not what {before.name} left"
    result = f"{wrong.item.instruction.command} at {wrong.item.offset:#x} {what}"
    return Finding(
        "values",
        after.phase,
        after.name,
        op=op,
        module=module,
        command_offset=wrong.item.offset,
        explanation=f"{result}: {wrong.reason or 'its result differs'}",
        error=wrong.figures,
        after=around_command(wrong.program, wrong.item.offset),
        **common,  # type: ignore[arg-type]
    )


def at_stored(
    stored: Stored,
    call: Call,
    entry: str,
    wrong: WrongCommand,
    logits: Figures | None,
    compiled: LoadedProgram,
) -> Finding:
    """A command in an artifact's file that is not what the compile of its IR gives.

    Args:
        logits: how wrong the outputs are; None if nothing shows.
        compiled: the program as the compile gives it.
    """
    op, module = location_of(wrong.item)
    name, offset = call.bucket.name, wrong.item.offset
    what = wrong.reason or "its result is not what the compiled one has"
    words = f"{wrong.item.instruction.command} at {offset:#x} in the artifact's {name}: {what}"
    problem = stored.problem(name)
    return Finding(
        "values" if logits else "text",
        "emit",
        "artifact",
        op=op,
        module=module,
        program=name,
        entry=entry,
        command_offset=offset,
        explanation=f"{words}; {problem}" if problem else words,
        error=wrong.figures if logits else None,
        logits=logits,
        before=around_command(compiled, offset) if offset in compiled.index else (),
        after=around_command(wrong.program, offset) if wrong.program is not compiled else (),
    )


def at_weight(
    stored: Stored, call: Call, entry: str, weight: str, logits: Figures, error: UserError | None
) -> Finding:
    """An artifact whose commands are right, but not what they give: a weight, or what cannot be read."""
    name, mine = call.bucket.name, stored.artifact.manifest.npuc
    words = error.message if error else f"no command tells where; npuc {mine} made them"
    words = f"it holds other values of {weight} than the checkpoint" if weight else words
    return Finding(
        "values",
        "emit",
        "artifact",
        op="tile.packed" if weight else "",
        module=weight.removesuffix(".weight"),
        program=name,
        entry=entry,
        explanation=f"the artifact's {name} gives other logits than its IR: {words}",
        logits=logits,
    )


def at_hazard(state: State, run: Run, hazards: Sequence[Hazard], wrong: WrongCommand | None) -> Finding:
    """A program whose commands are not ordered as they must be."""
    first = next((hazard for hazard in hazards if len(hazard.commands) == 2), hazards[0])
    item = wrong.item if wrong else first.commands[-1] if first.commands else None
    op, module = location_of(item) if item else ("", "")
    reason = f"of {item.instruction.command} at {item.offset:#x} the {wrong.reason}" if wrong and item else ""
    lost = f"{state.name} loses synchronization: {reason}; " if wrong else ""
    more = f" (and {len(hazards) - 1} more)" if len(hazards) > 1 else ""
    return Finding(
        "hazard",
        state.phase,
        state.name,
        op=op,
        module=module,
        program=run.call.bucket.name,
        entry=run.entry,
        command_offset=item.offset if item else None,
        explanation=f"{lost}{first.kind}: {first.text}{more}",
        after=around_command(run.program, item.offset) if item else (),
    )


def location_of(item: Item) -> tuple[str, str]:
    """The operation and checkpoint module that a command came from."""
    op, _, module = item.instruction.location.partition(" ")
    return op, module


def around(module: ModuleOp, op: Operation | None) -> tuple[str, ...]:
    """The lines of a module around an operation, the operation's own marked."""
    if op is None:
        return ()
    _, text, spans = print_with_spans(module, ELIDED, lambda other: other is op)
    if not spans:
        return ()
    _, start, _ = spans[0]
    number, lines = text.count("\n", 0, start), text.split("\n")
    return marked(lines, number)


def around_command(program: LoadedProgram, offset: int) -> tuple[str, ...]:
    """The commands of a program around one, its own marked."""
    labels = {at: label for label, at in program.symbols.items()}
    lines = [
        f"{item.offset:#06x}  {format_instruction(program.machine, item.instruction, labels)}"
        for item in program.items
    ]
    return marked(lines, program.index[offset])


def marked(lines: Sequence[str], number: int) -> tuple[str, ...]:
    """A line with its neighbours, of one indentation, cut where they are long."""
    near = range(max(number - NEIGHBOURS, 0), min(number + NEIGHBOURS + 1, len(lines)))
    found = [(i, lines[i].strip()) for i in near]
    cut = [(i, line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…") for i, line in found]
    return tuple(f"{'→' if i == number else ' '} {line}" for i, line in cut)


def operation_in(message: str) -> str:
    """The first name of an operation in a text, "" if there is none."""
    found = re.search(r"\b(?:graph|tile|npu|nquant|dist|func)\.[a-z_]+", message)
    return found[0] if found else ""


def first_of(module: ModuleOp, name: str, path: str) -> Operation | None:
    """The first operation of a name and checkpoint module."""
    for op in module.walk():
        if op.name == name and (not path or str(op.attributes.get("module")).strip('"') == path):
            return op
    return None
