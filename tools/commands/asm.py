"""Assemble a program from text as irc objdump prints it; labels become symbols.

With --like the constants and the description that the runtime needs are taken from an existing program, so
that a program taken apart by irc objdump can be changed and run again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc asm`."""
    parser.add_argument("path", metavar="FILE", type=Path, help="assembly text")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the ELF file to write")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-t", "--target", help="the NPU: see irc targets; or a .npu file")
    source.add_argument(
        "--like", metavar="PROGRAM", type=Path, help="take all but the text from this program"
    )


def execute(arguments: argparse.Namespace) -> Outcome:
    """Assemble."""
    from npuc.backends.assembler import assemble_program
    from npuc.backends.elf import Program, read_program, write_program
    from npuc.passes.target_option import machine_of
    from npuc.runtime.artifact import machine_of_program

    if arguments.like:
        original = read_program(arguments.like)
        machine = machine_of_program(arguments.like, original.target)
    else:
        machine = machine_of(arguments.target)
        original = Program(machine.name, b"")
    try:
        source = arguments.path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError("assembly", f"not UTF-8 text: {error.reason}", where=str(arguments.path)) from error
    assembled = assemble_program(machine, source, str(arguments.path))
    # Locations are offsets into the text: they hold only where no command changed its length.
    lines = original.lines if len(assembled.text) == len(original.text) else []
    program = replace(original, text=assembled.text, symbols=assembled.symbols, lines=lines)
    write_program(program, arguments.output)
    found = {"file": str(arguments.output), "text_bytes": len(program.text), "symbols": program.symbols}
    return Outcome(
        found, f"{arguments.output}: {size(len(program.text))}, symbols {', '.join(program.symbols)}"
    )
