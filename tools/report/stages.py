"""The IR after every pass, with the place of each operation and where it came from.

An operation's origin is a line of the IR that the lowering started from: passes give what they make the
location of what they replace. Where a pass makes one operation of several, the others are absorbed: their
lines then mean the operation that used their results.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from npuc.ir.printing import ELIDED, print_with_spans
from npuc.passes.instrumentation import Instrument
from npuc.tools.report.graph_view import Graph, graphs_of
from xdsl.dialects.builtin import FileLineColLoc, ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.traits import IsTerminator

GRAPH_PHASES = ("import", "optimize", "quantize", "specialize", "partition", "layout")
LAST_OF_BUFFERS = "lower-to-npu"


@dataclass
class Stage:
    """The IR after a pass.

    Attributes:
        name: of the pass; of the phase for the IR at the start.
        phase: that it belongs to.
        seconds: that the pass took.
        lines: numbers of the text's lines in the table of all lines.
        origins: (line of the text, origin) of each operation that has one.
        operations: how many there are of each kind.
        absorbed: origins that ended in this pass → those that took them up.
    """

    name: str
    phase: str
    seconds: float
    lines: list[int]
    origins: list[tuple[int, int]]
    operations: Counter[str]
    absorbed: dict[int, int]


def origin_of(op: Operation) -> int:
    """The line that an operation came from, 0 if the compiler added it."""
    return op.location.line.data if isinstance(op.location, FileLineColLoc) else 0


@dataclass
class Recorder(Instrument):
    """Keeps every stage of a lowering.

    Attributes:
        lines: all different lines of text, by number.
        stages: in order.
        graphs: phase → its graphs, for phases that have them.
        scheduled: the buffers and commands as they were before they became an `npu` program.
    """

    lines: dict[str, int] = field(default_factory=dict[str, int])
    stages: list[Stage] = field(default_factory=list[Stage])
    graphs: dict[str, list[Graph]] = field(default_factory=dict[str, list[Graph]])
    scheduled: ModuleOp | None = None
    started: float = 0.0
    users: dict[int, set[int]] = field(default_factory=dict[int, set[int]])

    def begin(self, phase: str, module: ModuleOp) -> None:
        """Notes what the lowering starts from."""
        self._add(phase, module, 0.0, {})
        self.stages[0].phase = phase
        if phase in GRAPH_PHASES:
            self.graphs[phase] = graphs_of(module, origin_of)

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        self.users = _users(module)
        if step.name == LAST_OF_BUFFERS:
            self.scheduled = module.clone()
        self.started = perf_counter()

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        seconds = perf_counter() - self.started
        living = {origin_of(op) for op in module.walk()}
        self._add(step.name, module, seconds, absorbed(self.users, living))

    def after_phase(self, phase: str, module: ModuleOp) -> None:
        for stage in self.stages:
            stage.phase = stage.phase or phase
        if phase in GRAPH_PHASES:
            self.graphs[phase] = graphs_of(module, origin_of)

    def _add(self, name: str, module: ModuleOp, seconds: float, taken: dict[int, int]) -> None:
        text, origins = _located_text(module)
        lines = [self.lines.setdefault(line, len(self.lines)) for line in text.split("\n")]
        operations = Counter(op.name for op in module.walk())
        self.stages.append(Stage(name, "", seconds, lines, origins, operations, taken))

    def data(self) -> dict[str, Any]:
        """For the page."""
        return {
            "lines": list(self.lines),
            "stages": [
                {
                    "name": stage.name,
                    "phase": stage.phase,
                    "seconds": stage.seconds,
                    "lines": stage.lines,
                    "origins": stage.origins,
                    "operations": stage.operations.total(),
                    "changes": _changes(before.operations, stage.operations),
                    "absorbed": list(stage.absorbed.items()),
                }
                for before, stage in zip([self.stages[0], *self.stages], self.stages, strict=False)
            ],
        }


def _changes(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """How many more operations of each kind there are."""
    counts = {name: after[name] - before[name] for name in (*before, *after)}
    return {name: count for name, count in counts.items() if count}


def _located_text(module: ModuleOp) -> tuple[str, list[tuple[int, int]]]:
    """The text, without long constants and lists, and (line, origin) of operations that have an origin."""
    aliases, text, spans = print_with_spans(module, ELIDED, lambda op: origin_of(op) > 0)
    head = "".join(f"{name} = {kind}\n" for name, kind in aliases.items())
    starts = [0, *(i + 1 for i, character in enumerate(text) if character == "\n")]
    first = head.count("\n")
    origins = [(first + bisect_right(starts, start) - 1, origin_of(op)) for op, start, _ in spans]
    return head + text, sorted(origins)


def _users(module: ModuleOp) -> dict[int, set[int]]:
    """Origins of the operations that use the results of each origin's operations."""
    found: dict[int, set[int]] = {}
    for op in module.walk():
        users = found.setdefault(origin_of(op), set())
        for use in (use for result in op.results for use in result.uses):
            if not use.operation.has_trait(IsTerminator):
                users.add(origin_of(use.operation))
    return found


def absorbed(users: dict[int, set[int]], living: set[int]) -> dict[int, int]:
    """Origins that no operation has any more → the first living one among their users, and those' users."""
    found: dict[int, int] = {}
    for origin in users.keys() - living:
        seen, work = {origin}, [origin]
        while work:
            current = work.pop(0)
            if current in living and current:
                found[origin] = current
                break
            new = sorted(users.get(current, set()) - seen - {0})
            seen.update(new)
            work += new
    return found
