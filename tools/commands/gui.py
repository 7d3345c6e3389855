"""Try passes on an IR file in the terminal: xDSL's interactive interface with our dialects and passes.

On the left the IR, on the right what the chosen passes make of it; pick passes in the list, and see how many
operations of each kind they leave. Needs npuc's extra `gui`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome
from npuc.tools.paths import existing

GENERAL_PASSES = ("canonicalize", "cse", "dce")
"""Those of xDSL that are of use at every level."""
GENERAL_DIALECTS = ("builtin", "func", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc gui`."""
    parser.add_argument("file", metavar="FILE.mlir", type=existing, nargs="?", help="default: an example")
    parser.add_argument("-p", "--passes", metavar="PIPELINE", default="", help="passes to begin with")


def execute(arguments: argparse.Namespace) -> Outcome:
    """Open the interface until the user leaves it."""
    interface = application(arguments.file, arguments.passes)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("no-terminal", "the interface needs a terminal", remedy="irc opt runs passes without")
    interface.run()
    return Outcome()


def application(file: Path | None, pipeline: str) -> Any:
    """xDSL's application, ready to run.

    Raises:
        UserError: when the extra is not installed, or the file or the pipeline is at fault.
    """
    try:
        from xdsl.interactive.app import InputApp
    except ModuleNotFoundError as error:
        raise UserError(
            "no-extra",
            f"the terminal interface needs {error.name}, which is not installed",
            remedy="pip install 'npuc[gui]'",
        ) from error
    from npuc.ir.universe import NPUC_UNIVERSE
    from xdsl.dialects import get_all_dialects
    from xdsl.passes import PassPipeline
    from xdsl.transforms import get_all_passes

    dialects, passes = get_all_dialects(), get_all_passes()
    known = {**{name: passes[name] for name in GENERAL_PASSES}, **NPUC_UNIVERSE.all_passes}
    return InputApp(
        tuple({**{name: dialects[name] for name in GENERAL_DIALECTS}, **NPUC_UNIVERSE.all_dialects}.items()),
        tuple((name, load()) for name, load in sorted(known.items())),
        None if file is None else str(file),
        None if file is None else file.read_text(encoding="utf-8"),
        PassPipeline.parse_spec(known, pipeline).passes,
    )
