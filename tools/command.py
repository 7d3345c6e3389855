"""What a subcommand of `irc` is, and how its outcome reaches the user."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, runtime_checkable

from npuc.tools.environment import NO_COLOR, PROGRESS


@dataclass(frozen=True)
class Outcome:
    """What a subcommand found: an object for programs and the same as text for people.

    Attributes:
        data: the object that ``--json`` prints.
        text: what is printed otherwise; empty where the subcommand has already written its output.
        passed: False when the input was fine but a check failed (exit status 1).
    """

    data: Mapping[str, object] = field(default_factory=dict[str, object])
    text: str = ""
    passed: bool = True


class Command(Protocol):
    """The module of a subcommand."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the flags; imports nothing heavy."""
        ...

    def execute(self, arguments: argparse.Namespace) -> Outcome:
        """Do the work. Raises UserError for whatever the user caused."""
        ...


@runtime_checkable
class RawCommand(Protocol):
    """The module of a subcommand that parses its own arguments, because its engine does."""

    def execute_words(self, words: Sequence[str]) -> Outcome:
        """Do the work. Raises as `Command.execute`, and UsageError."""
        ...


class UsageError(Exception):
    """A command line that the parser refuses; exit status 2."""

    def __init__(self, message: str, usage: str, program: str) -> None:
        super().__init__(message)
        self.message = message
        self.usage = usage
        self.program = program


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, except that errors are raised and flags are never abbreviated."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(
            prog=program,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.short_usage(), self.prog)

    def short_usage(self) -> str:
        """A line with what is required; there are commands with forty flags."""
        words = [self.prog]
        for action in self._actions:
            name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
            if not action.option_strings:
                words.append(name if action.required else f"[{name}]")
            elif action.required:
                words.append(f"{action.option_strings[0]} {name}")
        return f"usage: {' '.join(words)} … | {self.prog} --help"


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag that every subcommand has."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, for programs")


def colored() -> bool:
    """Whether output may carry colours."""
    return sys.stdout.isatty() and not NO_COLOR.value


class Progress(Protocol):
    """Called with the name of the work and the share done, 0 to 1, or None where nobody knows."""

    def __call__(self, name: str, share: float | None) -> None: ...


def _silent(name: str, share: float | None) -> None:
    pass


@contextmanager
def engine_imports() -> Generator[None]:
    """What is imported inside stays until the process ends: garbage collections leave it out, now and later.

    torch and transformers bring half a million objects, over which Python's collector would go again and
    again: a second of the two to four that a small model takes to import and compile.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # once a process: what is frozen is never collected
            gc.freeze()
        gc.enable()


@contextmanager
def progress_bar(enabled: bool = True) -> Generator[Progress]:
    """A bar on stderr while the block runs, when that is a terminal; otherwise nothing."""
    if not (enabled and PROGRESS.value and sys.stderr.isatty()):
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def update(name: str, share: float | None) -> None:
            bar.update(task, description=name, completed=share or 0.0, total=None if share is None else 1.0)

        yield update


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = (), right: Sequence[int] = ()) -> str:
    """Columns two spaces apart, left-aligned except those listed in ``right``."""
    lines = [list(header), *(list(row) for row in rows)] if header else [list(row) for row in rows]
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts: list[str] = []
    for line in lines:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def size(count: int) -> str:
    """A number of bytes for people: ``3.27 MiB``."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{value:.2f} {units[0]}"


def duration(seconds: float) -> str:
    """A time for people: ``1.23 s``, ``4.56 ms``, ``7.89 µs``."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds * 1e9:.0f} ns" if seconds else "0 s"


def quiet_libraries() -> None:
    """Keep transformers' and the hub's own progress bars and advice off the screen."""
    import transformers.utils.logging as logging
    from huggingface_hub.utils import disable_progress_bars

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    disable_progress_bars()


def too_large(needed: int, available: int) -> str:
    """What to say of an artifact for timing only that has addresses beyond the machine's main memory."""
    return (
        f"Does not fit: {size(needed)} of main memory are needed, a chip has {size(available)}. "
        "Times are those of a chip that had them; nothing of this can run."
    )
