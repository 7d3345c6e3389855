"""The one error that users see."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can cause and mend: a wrong file, flag, prompt or IR text.

    The driver prints it as one line, ``irc: error: WHERE: MESSAGE (REMEDY)``, and exits 1.

    Args:
        kind: a short stable identifier for programs, e.g. ``"truncated-file"``.
        message: one lower-case sentence that names the thing and both values.
        where: the file, field, op or module path concerned.
        remedy: what to do about it.
    """

    def __init__(self, kind: str, message: str, *, where: str = "", remedy: str = "") -> None:
        self.kind = kind
        self.message = message
        self.where = where
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.remedy})" if self.remedy else text
