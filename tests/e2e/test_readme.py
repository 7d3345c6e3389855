"""The commands of the README's tour run, in order, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from npuc.tools import irc

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def tour() -> list[str]:
    """The command lines between the tour's heading and the next."""
    section = README.partition("## A quick tour")[2].partition("\n## ")[0]
    return re.findall(r"^    (irc .*)$", section, re.MULTILINE)


def test_tour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(REPOSITORY / "demo")
    commands = tour()
    assert len(commands) >= 10
    for command in commands:
        words, _, file = command.partition(" > ")
        status = irc.main(shlex.split(words)[1:])
        captured = capsys.readouterr()
        assert status == 0, f"{command}: {captured.err}"
        if file:
            (tmp_path / file).write_text(captured.out, encoding="utf-8")


def test_linked_files_exist() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "docs/driver.md"):
        file = REPOSITORY / name
        for link in re.findall(r"\]\(([^)#]+)", file.read_text(encoding="utf-8")):
            assert link.startswith("http") or (file.parent / link).exists(), f"{name}: {link}"
