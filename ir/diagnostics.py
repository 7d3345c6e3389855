"""xDSL's exceptions as errors for users: a sentence, where it is, and the neighbouring operations."""

from __future__ import annotations

import re

from npuc.ir.errors import UserError
from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
    UnregisteredConstructException,
)

NEIGHBOURS = 5  # lines shown on either side of the operation at fault

_MARK = re.compile(r"^\s*\^+-*$")
_MODULE = re.compile(r'module = "([^"]+)"')


def user_error(error: BaseException) -> UserError | None:
    """The error to show for one of xDSL's, or None where it is something else.

    Its notes, if any, are lines of context: the source line, or the neighbouring operations.
    """
    if isinstance(error, ParseError):
        return _parse_error(error)
    if isinstance(error, ArgSpecParseError):
        first, _, context = str(error).partition("\n")
        return _with_context(UserError("pipeline", first.rstrip(":").lower()), context)
    if isinstance(error, DiagnosticException):
        return _diagnostic(error)
    if isinstance(error, UnregisteredConstructException):
        return UserError("ir", str(error), remedy="irc dialects lists what is known")
    return None


def pipeline_error(error: BaseException) -> UserError:
    """The error to show for a pipeline string that xDSL refuses."""
    found = user_error(error)
    return found or UserError("pipeline", sentence(str(error)), remedy="irc passes lists the passes")


def sentence(text: str) -> str:
    """One line that starts in lower case."""
    line = " ".join(text.split())
    return line[:1].lower() + line[1:]


def _with_context(error: UserError, context: str) -> UserError:
    if context.strip():
        error.add_note(context.strip("\n"))
    return error


def _parse_error(error: ParseError) -> UserError:
    place = error.span.get_location()
    context = error.span.print_with_context().partition("\n")[2]
    return _with_context(UserError("parse", sentence(error.msg), where=str(place).strip()), context)


def _diagnostic(error: DiagnosticException) -> UserError:
    """A failed verification or pass; xDSL attaches the whole module, we keep what matters."""
    printed = "\n".join(getattr(error, "__notes__", []))
    lines = printed.splitlines()
    marks = [i for i, line in enumerate(lines) if _MARK.match(line)]
    if not marks:
        return UserError("ir", str(error))
    at = marks[0] - 1
    module = _MODULE.search(lines[at])
    excerpt = "\n".join(lines[max(at - NEIGHBOURS, 0) : at + 4 + NEIGHBOURS])
    return _with_context(UserError("ir", str(error), where=module[1] if module else ""), excerpt)
