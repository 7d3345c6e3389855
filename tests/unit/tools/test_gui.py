"""`irc gui`: xDSL's terminal interface with our dialects and passes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from npuc.tools import irc
from npuc.tools.commands.gui import application

IR = """func.func @f(%a : tensor<2x8xf32>, %b : tensor<2x8xf32>) -> tensor<2x8xf32> {
  %c = graph.silu %a : tensor<2x8xf32>
  %d = graph.mul %c, %b : tensor<2x8xf32>
  func.return %d : tensor<2x8xf32>
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.mlir"
    path.write_text(IR)
    return path


@pytest.mark.filterwarnings("ignore")  # of the interface itself
def test_passes_run_in_the_interface(file: Path) -> None:
    pytest.importorskip("textual", reason="the extra gui is not installed")

    async def shown(pipeline: str) -> tuple[str, set[str]]:
        interface = application(file, pipeline)
        async with interface.run_test() as pilot:
            await pilot.pause()
            return interface.output_text_area.text, {name for name, _ in interface.all_passes}

    text, names = asyncio.run(shown("raise-gated"))
    assert "graph.gated silu" in text
    assert "graph.mul" not in text
    assert {"raise-gated", "lower-to-tile", "canonicalize"} <= names
    assert "graph.mul" in asyncio.run(shown(""))[0]


def test_what_is_missing_is_said(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as context:
        context.delitem(sys.modules, "xdsl.interactive.app", raising=False)
        context.setitem(sys.modules, "textual", None)
        context.setitem(sys.modules, "pyclip", None)
        assert irc.main(["gui", str(file)]) == 1
    assert capsys.readouterr().err.endswith("which is not installed (pip install 'npuc[gui]')\n")


def test_it_needs_a_terminal_and_known_passes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("textual", reason="the extra gui is not installed")
    assert irc.main(["gui", str(file)]) == 1
    assert "needs a terminal" in capsys.readouterr().err
    assert irc.main(["gui", str(file), "-p", "nonesuch"]) == 1
    assert "nonesuch" in capsys.readouterr().err
    assert irc.main(["gui", "nofile.mlir"]) == 1
    assert "nofile.mlir" in capsys.readouterr().err
