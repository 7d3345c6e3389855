"""Targets by name, third parties' included."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from npuc.backends import registry
from npuc.backends.machine import load_machine
from npuc.backends.registry import TARGETS, Target, load_target, target_names
from npuc.ir.errors import UserError

TOY = Path(__file__).parents[2] / "toy" / "toy.npu"


@pytest.mark.parametrize("name", TARGETS)
def test_every_registered_target_loads_and_has_its_name(name: str) -> None:
    target = load_target(name)
    assert target.name == target.machine.name == name
    assert load_target(name) is target, "targets are loaded once"


def test_unknown_target_lists_the_targets() -> None:
    with pytest.raises(UserError) as caught:
        load_target("abacus")
    assert caught.value.kind == "unknown-target"
    assert "rngd" in caught.value.remedy


def toy_target() -> Target:
    return Target("toy", load_machine(TOY), None)


def test_third_parties_register_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point(EntryPoint):
        def load(self) -> object:
            return toy_target

    point = Point("toy", "tests:toy_target", "npuc.targets")
    monkeypatch.setattr(registry, "entry_points", lambda group, name="toy": [point] if name == "toy" else [])
    assert target_names() == sorted({*TARGETS, "toy"})
    assert registry.load_target.__wrapped__("toy").machine.name == "toy"
