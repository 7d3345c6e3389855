"""The environment variables that npuc reads: declared here once, read only through here.

| variable | meaning |
|---|---|
| `IRC_TRACEBACK` | `1`: print the Python traceback of every error that the driver reports |
| `IRC_DEBUG` | a level: what `opt` and `compile` tell of passes, see below |
| `IRC_PROGRESS` | `0`: no progress bars even on a terminal |
| `NO_COLOR` | set to anything: no colours (https://no-color.org) |

Each level of `IRC_DEBUG` has all before it: 1 times, 2 operations added and removed, 3 the IR after each pass
that changed it, 4 the IR before and after each pass.
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

    @property
    def level(self) -> int:
        """Its number; a value that is none counts as 1, like any other that turns it on."""
        text = os.environ.get(self.name, "")
        return int(text) if text.isdecimal() else int(self.value)


TRACEBACK = Variable("IRC_TRACEBACK", False, "1: print the Python traceback of every error")
PROGRESS = Variable("IRC_PROGRESS", True, "0: no progress bars even on a terminal")
DEBUG = Variable("IRC_DEBUG", False, "1 to 4: what opt and compile tell of each pass, on stderr")
NO_COLOR = Variable("NO_COLOR", False, "set to anything: no colours")

VARIABLES = (TRACEBACK, DEBUG, PROGRESS, NO_COLOR)
