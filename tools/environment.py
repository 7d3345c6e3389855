"""The environment variables that npuc reads: declared here once, read only through here.

| variable | meaning |
|---|---|
| `IRC_TRACEBACK` | `1`: print the Python traceback of every error that the driver reports |
| `IRC_PROGRESS` | `0`: no progress bars even on a terminal |
| `NO_COLOR` | set to anything: no colours (https://no-color.org) |
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One variable, its meaning when unset, and a line of help."""

    name: str
    default: bool
    help: str

    @property
    def value(self) -> bool:
        """Whether it is on: any value but the empty string and `0` turns it on."""
        text = os.environ.get(self.name)
        return self.default if text is None else text not in ("", "0")


TRACEBACK = Variable("IRC_TRACEBACK", False, "1: print the Python traceback of every error")
PROGRESS = Variable("IRC_PROGRESS", True, "0: no progress bars even on a terminal")
NO_COLOR = Variable("NO_COLOR", False, "set to anything: no colours")

VARIABLES = (TRACEBACK, PROGRESS, NO_COLOR)
