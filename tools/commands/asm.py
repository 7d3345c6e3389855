"""Assemble a program from text as irc objdump prints it; labels become symbols.

With --like the constants and the description that the runtime needs are taken from an existing program, so
that a program taken apart by irc objdump can be changed and run again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from npuc.ir.files import read_text
from npuc.tools.command import Outcome, size
from npuc.tools.paths import existing, writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc asm`."""
    parser.add_argument("path", metavar="FILE", type=existing, help="assembly text")
    parser.add_argument("-o", "--output", type=writable, required=True, help="the ELF file to write")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-t", "--target", help="the NPU: see irc targets; or a .npu file")
    source.add_argument(
        "--like", metavar="PROGRAM", type=existing, help="take all but the text from this program"
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
    source = read_text(arguments.path)
    assembled = assemble_program(machine, source, str(arguments.path))
    # Locations are offsets into the text: they hold only where no command changed its length.
    lines = original.lines if len(assembled.text) == len(original.text) else []
    program = replace(original, text=assembled.text, symbols=assembled.symbols, lines=lines)
    write_program(program, arguments.output)
    found = {"file": str(arguments.output), "text_bytes": len(program.text), "symbols": program.symbols}
    return Outcome(
        found, f"{arguments.output}: {size(len(program.text))}, symbols {', '.join(program.symbols)}"
    )
