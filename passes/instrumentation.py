"""Running passes, and what may watch them: verification, times, statistics.

Dumps (`ir_dumps`), reproducers (`reproducer`) and numerical checks (`checking`) are instruments too.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

RULE = "===" + "-" * 73 + "==="


class Instrument:
    """Watches passes; each method does nothing unless a subclass says what."""

    def before_pipeline(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        """Called with the passes that are about to run."""

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        """Called before each pass."""

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        """Called after each pass that succeeded. Raising an error makes it a pass that failed."""

    def after_failed(self, step: ModulePass, module: ModuleOp, error: Exception) -> None:
        """Called after a pass that failed; the module is as it left it."""

    def after_phase(self, phase: str, module: ModuleOp) -> None:
        """Called when a phase of a compile is complete and legal."""

    def finish(self) -> None:
        """Called once at the end, also after a failure."""


def run_pipeline(
    ctx: Context, module: ModuleOp, passes: Sequence[ModulePass], instruments: Sequence[Instrument] = ()
) -> None:
    """Runs passes; instruments are told in order before a pass and in reverse after it."""
    for instrument in instruments:
        instrument.before_pipeline(passes, module)
    for step in passes:
        for instrument in instruments:
            instrument.before_pass(step, module)
        try:
            step.apply(ctx, module)
            for instrument in reversed(instruments):
                instrument.after_pass(step, module)
        except Exception as error:
            for instrument in reversed(instruments):
                instrument.after_failed(step, module, error)
            raise


class Verification(Instrument):
    """Verifies the module after each pass."""

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        module.verify()


class PipelineDump(Instrument):
    """Prints the passes of each pipeline, as it can be given to `irc opt`, on stderr."""

    def before_pipeline(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        print(f"Pass Manager with {len(passes)} passes:\n{pipeline_text(passes)}\n", file=sys.stderr)


def pipeline_text(passes: Sequence[ModulePass]) -> str:
    """The pipeline in MLIR's spelling, ``builtin.module(…)``."""
    return f"builtin.module({','.join(str(step.pipeline_pass_spec()) for step in passes)})"


def parse_pipeline_text(text: str) -> str:
    """The passes within ``builtin.module(…)``, or the text itself where it is not so spelt."""
    text, head = text.strip(), "builtin.module("
    return text[len(head) : -1] if text.startswith(head) and text.endswith(")") else text


@dataclass
class Timing(Instrument):
    """Measures each pass; reports on stderr if asked to, longest first.

    Attributes:
        report: whether to print a report at the end.
        seconds: (pass, seconds), in the order in which they ran.
    """

    report: bool = False
    seconds: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    started: float = 0.0

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        self.started = perf_counter()

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        self.seconds.append((step.name, perf_counter() - self.started))

    def after_failed(self, step: ModulePass, module: ModuleOp, error: Exception) -> None:
        self.seconds.append((step.name, perf_counter() - self.started))

    def finish(self) -> None:
        if self.report:
            print(self.text(), file=sys.stderr)

    def text(self) -> str:
        """The report."""
        total = sum(seconds for _, seconds in self.seconds)
        spent: dict[str, float] = {}
        for name, seconds in self.seconds:
            spent[name] = spent.get(name, 0.0) + seconds
        rows = [*sorted(spent.items(), key=lambda pair: -pair[1]), ("Total", total)]
        return "\n".join(
            [
                *_title("Execution time report"),
                f"  Total Execution Time: {total:.4f} seconds\n",
                "  ----Wall Time----  ----Name----",
                *(f"  {s:8.4f} ({100 * s / (total or 1):5.1f}%)  {name}" for name, s in rows),
            ]
        )


@dataclass
class Statistics(Instrument):
    """Counts the operations that each pass adds and removes; reports on stderr at the end."""

    before: Counter[str] = field(default_factory=Counter[str])
    lines: list[str] = field(default_factory=list[str])

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        self.before = Counter(op.name for op in module.walk())

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        after = Counter(op.name for op in module.walk())
        self.lines += [step.name, f"  (S) {self.before.total():6} operations before"]
        self.lines.append(f"  (S) {after.total():6} operations after")
        for word, counts in (("removed", self.before - after), ("added", after - self.before)):
            self.lines += [f"  (S) {count:6} {name} {word}" for name, count in counts.most_common()]

    def finish(self) -> None:
        print("\n".join([*_title("Pass statistics report"), *self.lines]), file=sys.stderr)


def _title(text: str) -> list[str]:
    return [RULE, f"... {text} ...".center(len(RULE)).rstrip(), RULE]
