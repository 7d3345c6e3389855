"""`irc compile --check`: right passes change nothing, a wrong one is found, with the operation at fault."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from npuc.ir import graph, tile
from npuc.passes.inline_calls import InlineCallsPass
from npuc.passes.raise_gated import RaiseGatedPass
from npuc.tools import irc
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

Capture = pytest.CaptureFixture[str]


def compile_(capsys: Capture, model: Path, *words: str | Path, status: int = 0) -> tuple[dict[str, Any], str]:
    flags = ["-t", "rngd", "--decode-buckets", "2x8", "--prefill-buckets", "1x4"]
    assert irc.main(["compile", str(model), *flags, *map(str, words), "--json"]) == status
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


@pytest.fixture(scope="module")
def tile_ir(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ir") / "tile.mlir"
    flags = ["-t", "rngd", "--prefill-buckets", "1x4", "--compile-to", "tile", "-o", str(file)]
    assert irc.main(["compile", str(demo_model), *flags]) == 0
    return file


def test_every_pass_keeps_the_values(demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    found, err = compile_(capsys, demo_model, "--check", "-o", tmp_path / "out")
    checked = {step["name"]: step for step in found["checks"]}
    assert {"raise-rms-norm", "specialize", "lower-to-tile", "insert-sync", "lower-to-npu"} <= checked.keys()
    assert re.findall(r"^check: (\S+) .* cosine 1\.0000", err, re.MULTILINE) == list(checked)
    assert all(step["max_rel_error"] < 1e-5 for step in checked.values())
    for name in ("raise-rope", "lower-to-tile"):
        layers = checked[name]["layers"]
        assert {f"model.layers.{i}" for i in range(4)} <= layers.keys()
        assert all(figures["max_rel_error"] < 1e-5 for figures in layers.values())
    lowered = checked["lower-to-tile"]
    assert lowered["snr_db"] > 100
    assert sum(lowered["ulps"].values()) > 1000


def test_tiles_of_rows_keep_the_values(
    demo_model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine with little memory: the ends of the layers and the logits, one row at a time."""
    monkeypatch.setattr("npuc.passes.live_bytes.SHARE", 0.0)
    dumps = tmp_path / "dumps"
    flags = [
        "-t",
        "rngd",
        "--prefill-buckets",
        "1x4",
        "--check=phases",
        "--dump-compilation-phases-to",
        dumps,
    ]
    words = ["compile", demo_model, *flags, "-o", tmp_path / "out", "--json"]
    assert irc.main([str(word) for word in words]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert all(step["max_rel_error"] < 1e-5 for step in checks)
    (dump,) = dumps.glob("*layout*")
    assert dump.read_text().count("graph.rows(") == 4  # keys, queries, end of layer, head


def test_phases(demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    prompt = tmp_path / "prompt.txt"
    for text in ("The function returns", "1, 2, 3"):
        prompt.write_text(text)
        flags = ["--check=phases", "--check-input", prompt, "--compile-to", "layout"]
        found, _ = compile_(capsys, demo_model, *flags)
        assert [step["name"] for step in found["checks"]] == ["optimize", "specialize", "layout"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "the file holds no token"), ("1 99999", "token 99999 is beyond the 1024 of the model")],
)
def test_bad_input(text: str, message: str, demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(text)
    flags = ["--check", "--check-input", prompt, "--compile-to", "optimize"]
    assert compile_(capsys, demo_model, *flags, status=1)[0]["error"]["message"] == message


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[Operation], None]) -> None:
    """Makes `raise-gated` change operations that it should leave alone."""
    right = RaiseGatedPass.apply

    def wrong(self: RaiseGatedPass, ctx: object, op: ModuleOp) -> None:
        right(self, ctx, op)
        for inner in op.walk():
            change(inner)

    monkeypatch.setattr(RaiseGatedPass, "apply", wrong)


def test_a_wrong_graph_pass_is_found(
    demo_model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(op: Operation) -> None:
        if isinstance(op, graph.GatedOp):
            op.operands = [op.operands[1], op.operands[0]]

    spoil(monkeypatch, swap)
    flags = ["--check", "--check-dir", tmp_path, "--compile-to", "optimize"]
    found, err = compile_(capsys, demo_model, *flags, status=1)
    error = found["error"]
    assert (error["kind"], error["where"]) == ("numerical-drift", "model.layers.0.mlp")
    assert error["message"].startswith("raise-gated changes the logits by ")
    assert "graph.gated is wrong after raise-gated" in error["message"]
    assert re.search(r"^before raise-gated:(?s:.*)graph.gated", err, re.MULTILINE)
    finding = json.loads((tmp_path / "check.raise-gated" / "finding.json").read_text())
    assert (finding["pass"], finding["op"]) == ("raise-gated", "graph.gated")
    assert re.findall(r"^check: (\S+)", err, re.MULTILINE)[-1] == "raise-gated"
    folder = tmp_path / "check.raise-gated"
    assert (folder / "pipeline.txt").read_text() == "raise-gated\n"
    assert "graph.gated" not in (folder / "before.mlir").read_text()
    assert "graph.gated" in (folder / "after.mlir").read_text()
    monkeypatch.undo()
    assert irc.main(["opt", str(folder / "before.mlir"), "-p", "raise-gated"]) == 0


def test_a_wrong_tile_pass_is_found(
    tile_ir: Path, demo_model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command of the MLP is dropped."""

    def wrong(self: InlineCallsPass, ctx: object, op: ModuleOp) -> None:
        passes = [inner for inner in op.walk() if isinstance(inner, tile.PassOp)]
        target = next(
            inner for inner in passes if "layers.{}.mlp.down_proj" in str(inner.attributes.get("module"))
        )
        target.detach()
        target.erase()

    monkeypatch.setattr(InlineCallsPass, "apply", wrong)
    common = ["-t", "rngd", "--prefill-buckets", "1x4", "--compile-from", tile_ir, "--compile-to", "schedule"]
    words = ["compile", demo_model, *common, "--check", "--check-dir", tmp_path, "--json"]
    assert irc.main([*map(str, words)]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "numerical-drift"
    assert error["message"].startswith("inline-calls changes the logits by ")
    assert error["where"].startswith("model.layers.{}")


def test_tolerance(
    demo_model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epsilon ten times too large is an error within one tolerance and beyond another."""

    def enlarge(op: Operation) -> None:
        if isinstance(op, graph.RmsNormOp):
            op.attributes["eps"] = type(op.eps)(10 * op.eps.value.data, op.eps.type)

    spoil(monkeypatch, enlarge)
    flags = ["--check", "--check-dir", tmp_path, "--compile-to", "optimize"]
    step = compile_(capsys, demo_model, *flags, "--check-tolerance", "1")[0]["checks"][-3]
    assert step["name"] == "raise-gated"
    assert step["max_rel_error"] > 0
    tight = str(step["max_rel_error"] / 2)
    error = compile_(capsys, demo_model, *flags, "--check-tolerance", tight, status=1)[0]["error"]
    assert error["kind"] == "numerical-drift"
    assert error["message"].endswith("graph.rms_norm is wrong after raise-gated: it was changed")
