"""Dumps of the IR before and after passes, as MLIR's pass manager prints them."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from npuc.ir.printing import TextForm, print_with_spans
from npuc.ir.provenance import matches_path, matches_symbol
from npuc.passes.instrumentation import Instrument
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass

Fragment = tuple[str, str]  # where it stands, and its text


@dataclass
class IRDumps(Instrument):
    """Prints the module around passes, on stderr or into a folder.

    Attributes:
        before: globs of the passes before which to print.
        after: globs of the passes after which to print.
        only_changed: print after a pass only if it changed something.
        after_failure: print after a pass that failed.
        folder: where to write a file per dump, instead of stderr.
        form: how to print.
        only: print only what this glob means: functions, programs or modules of the checkpoint.
        whole: print the whole module if there is something that `only` means.
    """

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    only_changed: bool = False
    after_failure: bool = False
    folder: Path | None = None
    form: TextForm = field(default_factory=TextForm)
    only: str = ""
    whole: bool = False
    number: int = 0
    previous: str = field(default="", repr=False)

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        if self.only_changed and _named(step, self.after):
            self.previous = self.text(module)
        if _named(step, self.before):
            self._write("Before", step, self.text(module))

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        if _named(step, self.after):
            text = self.text(module)
            if not (self.only_changed and text == self.previous):
                self._write("After", step, text)
        self.number += 1

    def after_failed(self, step: ModulePass, module: ModuleOp, error: Exception) -> None:
        if self.after_failure or _named(step, self.after):
            self._write("After", step, self.text(module), failed=True)

    def text(self, module: ModuleOp) -> str:
        """What is printed of a module; empty where the filter means nothing in it."""
        if not self.only:
            names, text, _ = print_with_spans(module, self.form)
            return _with_aliases(names, text)
        names, text, spans = print_with_spans(module, self.form, lambda op: _meant(op, self.only))
        if self.whole:
            return _with_aliases(names, text) if spans else ""
        return _with_aliases(names, "\n\n".join(_grouped(_fragments(text, spans))))

    def _write(self, when: str, step: ModulePass, text: str, failed: bool = False) -> None:
        if not text:
            return
        title = f"IR Dump {when} {type(step).__name__}{' Failed' if failed else ''} ({step.name})"
        about = f" ('{self.only}')" if self.only else ""
        dump = f"// -----// {title}{about} //----- //\n{text}\n"
        if self.folder is None:
            print(dump, file=sys.stderr)
            return
        folder = self.folder / "builtin_module_no-symbol-name"
        folder.mkdir(parents=True, exist_ok=True)
        stage = "" if when == "After" else ".before"
        (folder / f"{self.number}_{step.name}{stage}.mlir").write_text(dump, encoding="utf-8")


def _named(step: ModulePass, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(step.name, pattern) for pattern in patterns)


def _meant(op: Operation, pattern: str) -> bool:
    symbol, module = (op.get_attr_or_prop(name) for name in ("sym_name", "module"))
    if isinstance(module, StringAttr) and matches_path(pattern, module.data):
        return True
    return isinstance(symbol, StringAttr) and matches_symbol(pattern, symbol.data)


def _fragments(text: str, spans: list[tuple[Operation, int, int]]) -> Iterator[Fragment]:
    """The outermost of the selected operations, in order of the text."""
    end = 0
    for op, start, stop in sorted(spans, key=lambda span: (span[1], -span[2])):
        if start >= end:
            line = text.rfind("\n", 0, start) + 1
            yield _place(op), textwrap.dedent(text[line:stop])
            end = stop


def _place(op: Operation) -> str:
    """The symbols around an operation, outermost first: ``@decode_1x16 @layer_kind0``."""
    names: list[str] = []
    parent = op.parent_op()
    while parent is not None:
        symbol = parent.get_attr_or_prop("sym_name")
        names += [f"@{symbol.data}"] if isinstance(symbol, StringAttr) else []
        parent = parent.parent_op()
    return " ".join(reversed(names))


def _grouped(fragments: Iterator[Fragment]) -> Iterator[str]:
    """Fragments that stand in one place follow a comment that says where."""
    groups: dict[str, list[str]] = {}
    for place, text in fragments:
        groups.setdefault(place, []).append(text)
    for place, texts in groups.items():
        yield "\n".join([*([f"// in {place}"] if place else []), *texts])


def _with_aliases(names: dict[str, str], text: str) -> str:
    used = set(re.findall(r"![\w.$-]+", text))
    return "".join([*(f"{name} = {kind}\n" for name, kind in names.items() if name in used), text])
