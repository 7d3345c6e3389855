"""Disassemble a program: one command a line, with the checkpoint module that each came from.

PROGRAM is an ELF file, or an artifact with --program. The text assembles again with irc asm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, table
from npuc.tools.paths import existing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc objdump`."""
    parser.add_argument("path", metavar="PROGRAM", type=existing, help="an ELF file, or an artifact")
    parser.add_argument("--program", metavar="NAME", help="which program of the artifact, e.g. decode_1x256")
    parser.add_argument("-t", "--syms", action="store_true", help="print the symbol table instead")


def program_file(path: Path, name: str | None) -> Path:
    """The ELF file that is meant: `path` itself, or an artifact's program.

    Raises:
        UserError: when the artifact holds several and none is named, or not the one that is.
    """
    if not path.is_dir():
        return path
    from npuc.runtime.artifact import Artifact

    artifact = Artifact(path)
    names = [program.name for program in artifact.manifest.programs]
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        listed = ", ".join(names)
        raise UserError(
            "no-program", "the artifact has several programs", where=str(path), remedy=f"--program: {listed}"
        )
    return artifact.file_path(artifact.manifest.program(name).file)


def execute(arguments: argparse.Namespace) -> Outcome:
    """Disassemble."""
    from npuc.backends.assembler import disassemble
    from npuc.backends.elf import read_program
    from npuc.runtime.artifact import machine_of_program

    file = program_file(arguments.path, arguments.program)
    program = read_program(file)
    data: dict[str, object] = {"file": str(file), "target": program.target, "symbols": program.symbols}
    if arguments.syms:
        return Outcome(data, table([[f"{offset:08x}", name] for name, offset in program.symbols.items()]))
    text = disassemble(machine_of_program(file, program.target), program.text, program.symbols, program.lines)
    return Outcome({**data, "text": text}, text.rstrip("\n"))
