"""MLIR's --verify-diagnostics: comments say which errors, warnings and notes a file gives, and where.

// expected-error @+1 {{contracting dimensions differ}}
// expected-error-re @below {{lhs has {{[0-9]+}}, rhs has 9}}
// expected-warning @unknown {{…}}

The text in braces is part of the message. The place is a line relative to the comment's, `above`, `below`, or
`unknown` for what has no place; without one it is the comment's own line.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import NamedTuple

from npuc.ir.diagnostics import sentence
from npuc.ir.errors import UserError
from xdsl.dialects.builtin import FileLineColLoc, ModuleOp
from xdsl.ir import Operation
from xdsl.utils.exceptions import DiagnosticException, ParseError, VerifyException

_COMMENT = re.compile(
    r"expected-(error|warning|note|remark)(-re)? *(?:@([+-]\d+|above|below|unknown))? *\{\{(.*)\}\}\s*$"
)


class Diagnostic(NamedTuple):
    """What is told of a line; None where it has no place."""

    kind: str
    line: int | None
    message: str


class Expectation(NamedTuple):
    """What a comment expects: a pattern that the message has somewhere."""

    kind: str
    line: int | None
    text: str
    pattern: re.Pattern[str]


def expectations(text: str) -> list[Expectation]:
    """The comments of a file or piece; lines count from 1."""
    found: list[Expectation] = []
    for number, line in enumerate(text.splitlines(), 1):
        comment = _COMMENT.search(line)
        if comment is None:
            continue
        kind, is_pattern, place, message = comment.groups()
        pattern = _pattern(message) if is_pattern else re.escape(message)
        found.append(Expectation(kind, _line(place, number), message, re.compile(pattern)))
    return found


def _line(place: str | None, number: int) -> int | None:
    if place == "unknown":
        return None
    return number + int({None: "0", "above": "-1", "below": "1"}.get(place, place or "0"))


def _pattern(message: str) -> str:
    """A message in which ``{{…}}`` are regular expressions."""
    parts = re.split(r"\{\{(.*?)\}\}", message)
    return "".join(part if i % 2 else re.escape(part) for i, part in enumerate(parts))


def problems(expected: list[Expectation], found: list[Diagnostic]) -> list[str]:
    """What was expected and not found, and what was found and not expected; empty if all is well."""
    left = list(found)
    texts: list[str] = []
    for wish in expected:
        fitting = [
            d for d in left if (d.kind, d.line) == (wish.kind, wish.line) and wish.pattern.search(d.message)
        ]
        if fitting:
            left.remove(fitting[0])
        else:
            texts.append(f'{_where(wish.line)}expected {wish.kind} "{wish.text}" was not produced')
    return texts + [f"{_where(d.line)}unexpected {d.kind}: {d.message}" for d in left]


def _where(line: int | None) -> str:
    return "" if line is None else f"line {line}: "


def diagnostics(
    parse: Callable[[], ModuleOp], run: Callable[[ModuleOp], None]
) -> tuple[ModuleOp | None, list[Diagnostic]]:
    """Parses, verifies and runs passes; the module if all went well, and what was told.

    All operations that do not verify are told, each once.
    """
    found: list[Diagnostic] = []
    module: ModuleOp | None = None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            module = parse()
            found += _faults(module)
            if not found:
                run(module)
        except ParseError as error:
            found.append(Diagnostic("error", error.span.get_location().line, sentence(error.msg)))
        except VerifyException as error:
            found += (_faults(module) if module else []) or [Diagnostic("error", None, str(error))]
        except DiagnosticException as error:
            found.append(Diagnostic("error", None, str(error)))
        except UserError as error:
            found.append(Diagnostic("error", None, error.message))
            found += [Diagnostic("note", None, error.remedy)] if error.remedy else []
    failed = bool(found)
    found += [Diagnostic("warning", None, str(warning.message)) for warning in told]
    return None if failed else module, found


def _faults(module: ModuleOp) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    for op in module.walk():
        try:
            op.verify(verify_nested_ops=False)
        except VerifyException as error:
            found.append(Diagnostic("error", _line_of(op), str(error)))
    return found


def _line_of(op: Operation) -> int | None:
    return op.location.line.data if isinstance(op.location, FileLineColLoc) else None
