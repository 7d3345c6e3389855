"""The ISA manual is generated, and the committed page is current."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from npuc.backends.isa_manual import isa_manual, main
from npuc.backends.machine import Machine

TOY = Path(__file__).parents[2] / "toy" / "toy.npu"
MANUAL = Path(__file__).parents[3] / "docs" / "isa" / "rngd.md"


def test_committed_manual_is_current(rngd: Machine, golden: Callable[[Path, str], None]) -> None:
    golden(MANUAL, isa_manual(rngd))


def test_manual_names_everything(machine: Machine) -> None:
    text = isa_manual(machine)
    for name in (*machine.memories, *machine.queues, *machine.params, *machine.element_types):
        assert f"`{name}`" in text
    for command in machine.commands.values():
        assert f"### {command.name}\n" in text
        for limit in command.limits:
            assert limit.reason in text
        for field in command.fields.values():
            assert f"| {field.offset:,} |" in text
            assert f"`{field.name}`" in text


def test_tables_are_rectangular(machine: Machine) -> None:
    for block in isa_manual(machine).split("\n\n"):
        rows = [line.replace("\\|", "").count("|") for line in block.split("\n") if line.startswith("|")]
        assert len(set(rows)) <= 1, block


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["isa_manual", str(TOY)])
    assert main() == 0
    assert "# ISA of toy" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["isa_manual", "nothing"])
    assert main() == 1
    assert "unknown target 'nothing'" in capsys.readouterr().err
