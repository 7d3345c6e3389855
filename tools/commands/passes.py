"""List the passes; a name shows a pass with its options.

In a pipeline options stand in braces: irc opt FILE.mlir -p 'specialize{buckets="prefill_1x128"}'
"""

from __future__ import annotations

import argparse
import inspect
from typing import TYPE_CHECKING

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, table

if TYPE_CHECKING:
    from xdsl.passes import ModulePass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc passes`."""
    parser.add_argument("name", nargs="?", help="describe this pass only")


def execute(arguments: argparse.Namespace) -> Outcome:
    """List the passes, or describe one."""
    from npuc.ir.universe import NPUC_UNIVERSE

    known = NPUC_UNIVERSE.all_passes
    if arguments.name is None:
        listed = [load() for load in known.values()]
        return Outcome({"passes": [_data(p) for p in listed]}, table([[p.name, _summary(p)] for p in listed]))
    if arguments.name not in known:
        raise UserError(
            "unknown-pass", f"no pass {arguments.name!r}", remedy=f"the passes are {', '.join(known)}"
        )
    found = known[arguments.name]()
    return Outcome({"passes": [_data(found)]}, _describe(found))


def _summary(found: type[ModulePass]) -> str:
    return (inspect.getdoc(found) or "").partition("\n")[0]


def _options(found: type[ModulePass]) -> list[dict[str, str | None]]:
    """Name, type and default of each option; no default means that it is required."""
    from xdsl.passes import get_pass_option_infos

    infos = get_pass_option_infos(found)
    return [
        {"name": i.name.replace("_", "-"), "type": i.expected_type, "default": i.default_value} for i in infos
    ]


def _data(found: type[ModulePass]) -> dict[str, object]:
    description = inspect.getdoc(found) or ""
    return {
        "name": found.name,
        "summary": _summary(found),
        "description": description,
        "options": _options(found),
    }


def _describe(found: type[ModulePass]) -> str:
    lines = [found.name, "", inspect.getdoc(found) or ""]
    rows = [
        [f"  {o['name']}", o["type"] or "", "required" if o["default"] is None else f"default {o['default']}"]
        for o in _options(found)
    ]
    return "\n".join([*lines, "", "Options:", table(rows)] if rows else lines)
