"""How long the driver takes to answer: run with --benchmark-enable. `irc --help` is to take 0.3 s at most."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize("words", [["--help"], ["compile", "--help"], ["targets"]], ids=" ".join)
def test_answers(benchmark: Any, words: list[str]) -> None:
    command = [sys.executable, "-m", "npuc.tools.irc", *words]
    done = benchmark(subprocess.run, command, capture_output=True, text=True, check=True)
    assert done.stdout
