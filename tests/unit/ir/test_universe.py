"""Registration: every entry loads, and names follow from one another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from npuc.ir.universe import DIALECTS, NPUC_UNIVERSE, PASSES
from xdsl.universe import Universe

PASS_FOLDER = Path(__file__).resolve().parents[3] / "passes"


@pytest.mark.parametrize("name", DIALECTS)
def test_dialect_loads_under_its_name(name: str) -> None:
    assert NPUC_UNIVERSE.all_dialects[name]().name == name


@pytest.mark.parametrize("name", PASSES)
def test_pass_loads_under_its_name(name: str) -> None:
    loaded = NPUC_UNIVERSE.all_passes[name]()
    assert loaded.name == name
    assert loaded.__module__ == f"npuc.passes.{name.replace('-', '_')}"
    assert loaded.__doc__, f"{name} has no docstring, which `irc passes` prints"


def test_lists_are_sorted() -> None:
    assert list(DIALECTS) == sorted(DIALECTS)
    assert list(PASSES) == sorted(PASSES)


def test_every_pass_file_is_registered() -> None:
    defined = {
        path.stem.replace("_", "-")
        for path in PASS_FOLDER.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "ModulePass" for base in node.bases)
    }
    assert defined == set(PASSES)


def test_plain_xdsl_opt_sees_us() -> None:
    everything = Universe.get_multiverse()
    assert set(DIALECTS) <= everything.all_dialects.keys()
    assert set(PASSES) <= everything.all_passes.keys()
