"""Faults that fuzzing found: reduced, and kept as files that a test replays.

A kept file says in its first lines what was wrong and what is done to the module::

    // A sentence about the fault.
    // how: rngd prefill_1x3,decode_1x5
    // refused: words of the error          (a pass must refuse the module so; absent: it must pass)
    // xfail: why                           (the fault is not mended; the test fails when it is)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic

from cases import Case, signature
from differential import Fault, Refused, parse
from npuc.ir.printing import print_ir
from npuc.passes.reduction.reducer import Reducer
from xdsl.dialects.builtin import ModuleOp

FOLDER = Path(__file__).parent / "found"
LINE = re.compile(r"// (how|refused|xfail): (.*)")


@dataclass(frozen=True)
class Kept:
    """A kept file."""

    case: Case
    refused: str
    xfail: str

    @classmethod
    def read(cls, path: Path) -> Kept:
        text = path.read_text(encoding="utf-8")
        fields = dict(LINE.findall(text))
        return cls(Case(text, fields["how"]), fields.get("refused", ""), fields.get("xfail", ""))


def shows(case: Case, module: ModuleOp | None = None) -> str:
    """The signature of the fault that a case shows, "" if none."""
    try:
        case.check(module)
    except Fault as fault:
        return signature(fault)
    except Refused:
        pass
    except Exception as error:  # what reductions make may be nonsense in any way
        return f"harness: {type(error).__name__}"
    return ""


def reduced(case: Case, wanted: str, seconds: float) -> Case:
    """The case with the smallest module that shows the same, found within a time."""
    end = monotonic() + seconds

    def interesting(module: ModuleOp) -> bool:
        return monotonic() < end and shows(case, module) == wanted

    if not interesting(parse(case.text)):
        return case
    return Case(print_ir(Reducer(interesting).reduce(parse(case.text))), case.how)


def keep(case: Case, fault: str, folder: Path = FOLDER) -> Path:
    """Writes a case to a file named after what it shows and its content."""
    name = re.sub(r"[^a-z]+", "-", fault.lower())[:40].strip("-")
    path = folder / f"{name}-{sha256(case.text.encode()).hexdigest()[:6]}.mlir"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"// {fault}\n// how: {case.how}\n\n{case.text}", encoding="utf-8")
    return path
