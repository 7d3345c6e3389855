"""List the dialects; a dialect's name lists its operations and attributes."""

from __future__ import annotations

import argparse
import inspect
import sys
from typing import TYPE_CHECKING, Any

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, table

if TYPE_CHECKING:
    from xdsl.ir import Dialect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc dialects`."""
    parser.add_argument("name", nargs="?", help="list this dialect's operations and attributes")


def execute(arguments: argparse.Namespace) -> Outcome:
    """List the dialects, or what one of them holds."""
    from npuc.ir.universe import NPUC_UNIVERSE

    known = NPUC_UNIVERSE.all_dialects
    if arguments.name is None:
        listed = [_data(load()) for load in known.values()]
        rows = [[d["name"], f"{len(d['operations'])} operations", d["summary"]] for d in listed]
        return Outcome({"dialects": listed}, table(rows))
    if arguments.name not in known:
        raise UserError(
            "unknown-dialect", f"no dialect {arguments.name!r}", remedy=f"the dialects are {', '.join(known)}"
        )
    found = _data(known[arguments.name]())
    rows = [[item["name"], item["summary"]] for item in (*found["operations"], *found["attributes"])]
    return Outcome({"dialects": [found]}, table(rows))


def _data(dialect: Dialect) -> dict[str, Any]:
    return {
        "name": dialect.name,
        "summary": _summary(sys.modules[f"npuc.ir.{dialect.name}"]),
        "operations": [{"name": op.name, "summary": _summary(op)} for op in dialect.operations],
        "attributes": [{"name": a.name, "summary": _summary(a)} for a in dialect.attributes],
    }


def _summary(documented: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]
