"""From a checkpoint module to its commands, and from a command to the module and operation it came from.

WHAT is a module path or glob (model.layers.3.mlp, 'model.layers.*.q_proj'; the number of a layer means all
layers of its kind, which share their code), or PROGRAM@OFFSET (decode_1x128@0x1c0). Cycles are those of the
timing model: what one run costs on an idle machine, and how long all runs in a call of the program's entry
`last` keep the queue busy.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, size, table
from npuc.tools.paths import existing

if TYPE_CHECKING:
    from npuc.runtime.artifact import Artifact
    from npuc.tools.located_commands import LocatedCommand

_PLACE = re.compile(r"([\w.-]+)@(0x[0-9a-fA-F]+|\d+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc explain`."""
    parser.add_argument("artifact", metavar="ARTIFACT", type=existing)
    parser.add_argument("what", metavar="WHAT", help="module path, glob, or PROGRAM@OFFSET")
    parser.add_argument("--program", metavar="NAME", help="this program only, e.g. decode_1x256")


def execute(arguments: argparse.Namespace) -> Outcome:
    """Explain."""
    from npuc.runtime.artifact import Artifact

    artifact = Artifact(arguments.artifact)
    place = _PLACE.fullmatch(arguments.what)
    if place is not None:
        return _command(artifact, place[1], int(place[2], 0))
    if "@" in arguments.what:
        remedy = "write it like decode_1x128@0x1c0"
        raise UserError("no-command", "expected PROGRAM@OFFSET", where=arguments.what, remedy=remedy)
    return _module(artifact, arguments.what, arguments.program)


def commands_of_program(artifact: Artifact, name: str) -> list[LocatedCommand]:
    """The commands of an artifact's program, timed.

    Raises:
        UserError: when there is no such program.
    """
    from npuc.backends.elf import parse_program
    from npuc.tools.commands.profile import time_program
    from npuc.tools.located_commands import located_commands

    program = artifact.manifest.program(name)
    elf = parse_program(artifact.read_file(program.file), str(artifact.path / program.file))
    timeline = time_program(artifact, program, artifact.machine)
    return list(located_commands(name, elf, artifact.machine, timeline))


def _module(artifact: Artifact, pattern: str, only: str | None) -> Outcome:
    from npuc.ir.provenance import matches_path

    names = [program.name for program in artifact.manifest.programs] if only is None else [only]
    commands = [command for name in names for command in commands_of_program(artifact, name)]
    found = [command for command in commands if command.module and matches_path(pattern, command.module)]
    if not found:
        modules = sorted({command.module for command in commands if command.module})
        raise UserError(
            "no-module",
            f"no command comes from {pattern}",
            where=str(artifact.path),
            remedy=f"modules are {', '.join(modules[:12])}{', …' if len(modules) > 12 else ''}",
        )
    totals = {
        name: {
            "commands": len(mine),
            "total_cycles": sum(c.total_cycles for c in mine),
            "dram_bytes": sum(c.dram_bytes * c.runs for c in mine),
        }
        for name in names
        if (mine := [c for c in found if c.program == name])
    }
    data = {"pattern": pattern, "programs": totals, "commands": [c.data() for c in found]}
    return Outcome(data, _module_text(found, totals))


def _module_text(found: list[LocatedCommand], totals: dict[str, dict[str, int]]) -> str:
    header = ["program", "offset", "command", "operation", "module", "runs", "cycles", "total", "moved"]
    rows = [
        [
            c.program,
            f"{c.offset:#x}",
            f"{c.instruction.queue} {c.instruction.command}",
            c.operation,
            c.module,
            str(c.runs),
            f"{c.cycles:,}",
            f"{c.total_cycles:,}",
            size(c.dram_bytes * c.runs),
        ]
        for c in found
    ]
    sums = [
        f"{name}: {t['commands']} commands, busy {t['total_cycles']:,} cycles, "
        f"{size(t['dram_bytes'])} from and to main memory"
        for name, t in totals.items()
    ]
    return "\n".join([table(rows, header, right=(1, 5, 6, 7, 8)), "", *sums])


def _command(artifact: Artifact, name: str, offset: int) -> Outcome:
    commands = commands_of_program(artifact, name)
    at = next((i for i, command in enumerate(commands) if command.offset == offset), None)
    if at is None:
        before = [command.offset for command in commands if command.offset < offset]
        raise UserError(
            "no-command",
            f"no command begins at {offset:#x}",
            where=name,
            remedy=f"the one before it begins at {before[-1]:#x}" if before else "offsets are not negative",
        )
    command = commands[at]
    near = commands[max(at - 2, 0) : at + 3]
    data: dict[str, Any] = {**command.data(), "neighbours": [c.text for c in near]}
    return Outcome(data, _command_text(command, near))


def _command_text(command: LocatedCommand, near: list[LocatedCommand]) -> str:
    stages = ", ".join(f"{stage} {cycles:,}" for stage, cycles in command.stages.items())
    rows = [
        ["module", command.module or "-"],
        ["operation", command.operation or "added by the compiler"],
        ["queue", command.instruction.queue],
        ["bytes", str(command.length)],
        ["cost", f"{command.cycles:,} cycles" + (f": {stages}" if stages else "")],
        ["runs", f"{command.runs}, busy {command.total_cycles:,} cycles"],
        ["moved", f"{size(command.dram_bytes)} a run from and to main memory"],
        *([f"  {name}", str(value)] for name, value in command.data()["fields"].items()),
    ]
    around = [f"{'→' if c is command else ' '} {c.offset:#x}  {c.text}" for c in near]
    return "\n".join([f"{command.program}@{command.offset:#x}", "", table(rows), "", *around])
