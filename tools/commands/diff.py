"""Compare two IR files, two programs or two artifacts by their structure.

IR: operations added (+), removed (-) and changed (~) in types, attributes or operands, by function; names of
values do not count. Programs: commands and their fields, with bytes and cycles. Artifacts: every program, and
whatever else the manifests say.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, table
from npuc.tools.paths import existing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc diff`."""
    parser.add_argument("before", metavar="A", type=existing, help=".mlir, .elf or artifact")
    parser.add_argument("after", metavar="B", type=existing, help="another of the same kind")
    parser.add_argument("--stat", action="store_true", help="print numbers only")
    parser.add_argument("--exit-code", action="store_true", help="exit 1 if they differ")


def execute(arguments: argparse.Namespace) -> Outcome:
    """Compare."""
    kinds = [_kind(path) for path in (arguments.before, arguments.after)]
    if kinds[0] != kinds[1]:
        raise UserError("diff", f"{kinds[0]} and {kinds[1]} cannot be compared", where=str(arguments.after))
    found = {"IR": _ir, "program": _programs, "artifact": _artifacts}[kinds[0]](
        arguments.before, arguments.after
    )
    passed = found["same"] or not arguments.exit_code
    return Outcome(found, _text(found, arguments.stat), passed)


def _kind(path: Path) -> str:
    if path.is_dir():
        return "artifact"
    return "program" if path.suffix == ".elf" else "IR"


def _ir(before: Path, after: Path) -> dict[str, Any]:
    from npuc.tools.structural_diff import diff_ir

    return diff_ir(before, after)


def _programs(before: Path, after: Path) -> dict[str, Any]:
    from npuc.backends.elf import read_program
    from npuc.runtime.artifact import machine_of_program
    from npuc.tools.structural_diff import diff_programs

    loaded = [
        (program, machine_of_program(path, program.target))
        for path in (before, after)
        for program in [read_program(path)]
    ]
    found = diff_programs(after.name, loaded[0], loaded[1])
    return {"kind": "program", "same": not found["edits"], "sections": [found]}


def _artifacts(before: Path, after: Path) -> dict[str, Any]:
    from npuc.runtime.artifact import Artifact
    from npuc.runtime.json_schema import encode
    from npuc.tools.sequence_diff import changed

    old, new = (Artifact(path) for path in (before, after))
    sections: list[dict[str, Any]] = []
    for name in dict.fromkeys(p.name for artifact in (old, new) for p in artifact.manifest.programs):
        sections.append(_program_section(name, old, new))
    plain = [
        {
            key: str(value)
            for key, value in encode(artifact.manifest).items()
            if key not in ("sha256", "files")
        }
        for artifact in (old, new)
    ]
    files = [{entry.path: entry.sha256[:16] for entry in a.manifest.files} for a in (old, new)]
    manifest = {name: list(pair) for name, pair in changed(*plain).items()}
    different = {name: list(pair) for name, pair in changed(*files).items()}
    same = not (manifest or different)
    kept = [section for section in sections if section["edits"]]
    return {"kind": "artifact", "same": same, "sections": kept, "manifest": manifest, "files": different}


def _program_section(name: str, old: Any, new: Any) -> dict[str, Any]:
    """The differences of a program that one or both artifacts have; timed whole, if both have it."""
    from npuc.backends.elf import Program, parse_program
    from npuc.tools.commands.profile import time_program
    from npuc.tools.structural_diff import diff_programs

    loaded: list[tuple[Program, Any]] = []
    cycles: list[int] = []
    for artifact in (old, new):
        program = next((p for p in artifact.manifest.programs if p.name == name), None)
        if program is None:
            loaded.append((Program(artifact.manifest.target, b""), artifact.machine))
            cycles.append(0)
        else:
            data = artifact.read_file(program.file)
            loaded.append((parse_program(data, str(artifact.path / program.file)), artifact.machine))
            cycles.append(time_program(artifact, program, artifact.machine).cycles)
    return {**diff_programs(name, loaded[0], loaded[1]), "timed_cycles": cycles}


def _text(found: dict[str, Any], stat: bool) -> str:
    from npuc.tools.sequence_diff import edit_text

    if found["same"]:
        return "no difference"
    lines: list[str] = []
    for section in found["sections"]:
        lines += ["", f"{section['name']}: {_counts(section['edits'])}"]
        numbers = [k for k in ("commands", "bytes", "cycles", "timed_cycles", "dram_bytes") if k in section]
        if numbers:
            lines.append(table([[f"  {k}", *(f"{n:,}" for n in section[k])] for k in numbers], right=(1, 2)))
        if not stat:
            lines += [f"  {line}" for edit in section["edits"] for line in edit_text(edit)]
    for title in ("manifest", "files"):
        changes = found.get(title, {})
        if changes:
            lines += ["", f"{title}: {len(changes)} differ"]
            lines += (
                [] if stat else [f"  {name}: {_short(a)} → {_short(b)}" for name, (a, b) in changes.items()]
            )
    return "\n".join(lines[1:])


def _counts(edits: list[dict[str, Any]]) -> str:
    words = [edit["edit"] for edit in edits]
    return ", ".join(f"{words.count(w)} {w}" for w in ("added", "removed", "changed") if w in words)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
