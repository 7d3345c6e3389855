"""Text for people: tables, sizes, durations, and when a progress bar is drawn."""

from __future__ import annotations

import gc
import os
import pty
import subprocess
import sys

import pytest
from npuc.tools.command import duration, engine_imports, size, table


def test_table_aligns() -> None:
    rows = [["prefill_1x32", "9", "x"], ["decode", "1,234", ""]]
    text = table(rows, ["program", "cycles", ""], right=(1,))
    assert text.splitlines() == [
        "program       cycles",
        "prefill_1x32       9  x",
        "decode         1,234",
    ]
    assert table([]) == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (3432904, "3.27 MiB"), (2**41, "2.00 TiB")],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (5e-9, "5 ns"), (1.5e-6, "1.50 µs"), (0.0123, "12.30 ms"), (61.0, "61.00 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("variable", "drawn"), [("1", True), ("0", False)])
def test_progress_bar_on_a_terminal(variable: str, drawn: bool) -> None:
    code = "from npuc.tools.command import progress_bar\nwith progress_bar() as bar: bar('tile', 0.5)"
    leader, follower = pty.openpty()
    environment = {**os.environ, "IRC_PROGRESS": variable, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stderr=follower, env=environment, check=True, timeout=60)
    os.close(follower)
    written = b""
    try:
        while part := os.read(leader, 4096):
            written += part
    except OSError:  # Linux's way of saying that the terminal is closed
        pass
    os.close(leader)
    assert (b"tile" in written) == drawn


def test_progress_bar_is_silent_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    from npuc.tools.command import progress_bar

    with progress_bar() as bar:
        bar("tile", 0.5)
    assert capsys.readouterr().err == ""


def test_imports_are_not_collected() -> None:
    assert gc.isenabled()
    with engine_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    frozen = gc.get_freeze_count()
    with engine_imports():
        _ = [[] for _ in range(1000)]
    assert gc.get_freeze_count() <= frozen
