"""The commands of docs/debugging.md run, in order, in one folder, and print what the page shows."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from npuc.tools import irc

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "debugging.md"


def examples(text: str) -> list[tuple[str, list[str]]]:
    """Each command line of a page and the output below it."""
    found: list[tuple[str, list[str]]] = []
    inside = False
    for line in text.splitlines():
        command = re.fullmatch(r" {4}\$ (.*)", line)
        if command:
            found.append((command[1], []))
        elif inside and line.startswith("    "):
            found[-1][1].append(line[4:])
        inside = bool(command) or (inside and line.startswith("    "))
    return found


def shows(expected: list[str], printed: str) -> bool:
    """Whether the output is what is expected: `…` is any text, as a line of its own any lines."""
    parts = [r"(.*\n)*" if line == "…" else f"{_pattern(line)}\n" for line in expected]
    return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in _lines(printed))) is not None


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split("…"))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_what_shows_means() -> None:
    assert examples("a\n    $ irc x\n    1\n    …\n\n    2\n") == [("irc x", ["1", "…"])]
    assert shows(["a … c", "…", "d"], "a b c\n\nx\ny\nd\n")
    assert not shows(["a"], "b\n")
    assert not shows(["a"], "a\nb\n")


def with_fault(words: list[str]) -> int:
    """What `python tests/faults/irc.py` does."""
    path = REPOSITORY / "tests" / "faults" / "irc.py"
    spec = importlib.util.spec_from_file_location("faulty_irc", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(words)


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(REPOSITORY / "demo")
    commands = examples(PAGE.read_text(encoding="utf-8"))
    assert len(commands) >= 12
    for command, expected in commands:
        words = shlex.split(command)
        with monkeypatch.context() as context:
            while "=" in words[0]:
                context.setenv(*words.pop(0).split("=", 1))
            main = with_fault if words[:2] == ["python", "tests/faults/irc.py"] else irc.main
            assert main is with_fault or words[0] == "irc"
            status = main(words[2 if main is with_fault else 1 :])
        captured = capsys.readouterr()
        printed = captured.err + captured.out
        fails = any(re.match(r"irc: error: …|fault in |\w+: difference in ", line) for line in expected)
        assert status == int(fails), f"{command}: {printed}"
        assert shows(expected, printed), f"{command} printed\n{printed}"


def test_every_flag_of_the_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    flags = set(re.findall(r"--[a-z][\w-]+", PAGE.read_text(encoding="utf-8")))
    known: set[str] = set()
    commands = (
        "opt",
        "compile",
        "explain",
        "diff",
        "report",
        "bisect",
        "bisect precision",
        "verify",
        "reduce",
        "sim",
    )
    for name in commands:
        with pytest.raises(SystemExit):
            irc.main([*name.split(), "--help"])
        known |= set(re.findall(r"--[a-z][\w-]+", capsys.readouterr().out))
    assert flags <= known
