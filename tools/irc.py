"""The driver `irc`: finds the subcommand, runs it, prints its outcome, and explains every error in a line.

Nothing heavy is imported here: a subcommand's flags live in its own module under `tools/commands`, and
that module imports its engine only when it executes.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple, cast

import npuc
from npuc.ir.errors import UserError
from npuc.tools.command import ArgumentParser, Command, Outcome, RawCommand, UsageError, add_json
from npuc.tools.environment import TRACEBACK, VARIABLES


class Entry(NamedTuple):
    """A subcommand: its module is ``npuc.tools.commands.NAME``."""

    name: str
    help: str


GROUPS: dict[str, tuple[Entry, ...]] = {
    "Compile and run": (
        Entry("compile", "checkpoint → artifact"),
        Entry("run", "generate text on the simulated NPU"),
        Entry("verify", "logits and perplexity of an artifact against transformers"),
        Entry("inspect", "what is in an artifact or a checkpoint"),
    ),
    "Programs": (
        Entry("objdump", "disassemble a program"),
        Entry("asm", "assemble a program"),
        Entry("sim", "execute programs once, with hazard checks"),
        Entry("explain", "from a checkpoint module to its commands, and back"),
        Entry("profile", "cycles, utilization and a trace, from the timing model"),
    ),
    "Compiler development": (
        Entry("opt", "run passes over an IR file"),
        Entry("report", "everything about an artifact, in one HTML file"),
        Entry("bisect", "the first pass, operation or command that changes what is computed"),
        Entry("reduce", "make a module on which a pipeline goes wrong small"),
        Entry("gui", "try passes on an IR file in the terminal"),
        Entry("diff", "compare two IR files, programs or artifacts"),
        Entry("passes", "list the passes"),
        Entry("dialects", "list the dialects and their operations"),
        Entry("targets", "list the NPUs"),
    ),
}

ENTRIES = {entry.name: entry for group in GROUPS.values() for entry in group}

USAGE = "usage: irc COMMAND … | irc COMMAND --help | irc --version"


def help_text() -> str:
    """What ``irc --help`` prints."""
    lines = [USAGE, "", "Compiles language models to NPU binaries and runs them on a simulator.", ""]
    for title, entries in GROUPS.items():
        lines += [f"{title}:", *(f"  {entry.name:<10}{entry.help}" for entry in entries), ""]
    lines += ["Environment:", *(f"  {v.name:<15}{v.help}" for v in VARIABLES), ""]
    lines.append("Exit status: 0 success, 1 the input or the check failed, 2 usage.")
    return "\n".join(lines)


def load(name: str) -> Command:
    """The module of a subcommand."""
    return cast(Command, importlib.import_module(f"npuc.tools.commands.{name}"))


def execute(arguments: Sequence[str]) -> Outcome:
    """Run one command line.

    Raises:
        UsageError: when it is not one that `irc` understands.
        UserError: when the subcommand refuses its input.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return Outcome(text=help_text())
    if arguments[0] in ("-V", "--version"):
        return Outcome(text=f"irc {npuc.__version__}")
    name = arguments[0]
    if name not in ENTRIES:
        import difflib

        close = difflib.get_close_matches(name, ENTRIES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(ENTRIES)}"
        raise UsageError(f"no subcommand {name!r}: {hint}", USAGE, "irc")
    command = load(name)
    if isinstance(command, RawCommand):
        return command.execute_words(arguments[1:])
    parser = ArgumentParser(f"irc {name}", (sys.modules[f"npuc.tools.commands.{name}"].__doc__ or "").strip())
    command.add_arguments(parser)
    add_json(parser)
    return command.execute(parser.parse_args(arguments[1:]))


def describe(error: BaseException) -> tuple[dict[str, str], int]:
    """The error as the object that ``--json`` prints, and the exit status."""
    if isinstance(error, UsageError):
        return {"kind": "usage", "message": error.message, "where": error.program, "remedy": error.usage}, 2
    if isinstance(error, UserError):
        remedy = error.remedy
        return {"kind": error.kind, "message": error.message, "where": error.where, "remedy": remedy}, 1
    if isinstance(error, OSError) and error.filename is not None:
        message = (error.strerror or type(error).__name__).lower()
        return {"kind": "file", "message": message, "where": str(error.filename), "remedy": ""}, 1
    if isinstance(error, KeyboardInterrupt):
        return {"kind": "interrupted", "message": "interrupted", "where": "", "remedy": ""}, 1
    message = " ".join(str(error).split())[:300]
    return {
        "kind": "internal",
        "message": f"internal error: {type(error).__name__}: {message}",
        "where": "",
        "remedy": f"this is a bug in npuc; {TRACEBACK.name}=1 shows where",
    }, 1


def translate(error: BaseException) -> BaseException:
    """xDSL's errors as ours; it is only asked where xDSL has been imported anyway."""
    if "xdsl" not in sys.modules:
        return error
    from npuc.ir.diagnostics import user_error

    return user_error(error) or error


def report(error: BaseException, as_json: bool) -> int:
    """Tell the user about an error; returns the exit status."""
    if TRACEBACK.value:
        traceback.print_exception(error)
    error = translate(error)
    found, status = describe(error)
    if as_json:
        print(json.dumps({"error": found}))
    elif isinstance(error, UsageError):
        print(f"{error.usage}\n{error.program}: error: {error.message}", file=sys.stderr)
    else:
        where = f"{found['where']}: " if found["where"] else ""
        remedy = f" ({found['remedy']})" if found["remedy"] else ""
        notes: list[str] = getattr(error, "__notes__", [])
        print("\n".join([f"irc: error: {where}{found['message']}{remedy}", *notes]), file=sys.stderr)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point: 0 success, 1 the input or the check failed, 2 usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    try:
        outcome = execute(words)
        if as_json:
            print(json.dumps(outcome.data, ensure_ascii=False))
        elif outcome.text:
            print(outcome.text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`irc … | head`): keep Python's own flush at exit from complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        return report(error, as_json)
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())
