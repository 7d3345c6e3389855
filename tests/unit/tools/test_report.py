"""`irc report`: the facts that it gathers, its other formats, its errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from npuc.runtime.artifact import Artifact
from npuc.tools import irc
from npuc.tools.report import programs
from npuc.tools.report.drift import errors_by_layer
from npuc.tools.report.facts import report_data
from npuc.tools.report.graph_view import Node, rows_of
from npuc.tools.report.memory_map import Buffer, Span, lives
from npuc.tools.report.stages import absorbed

MODULE = re.compile(r'module = "([^"]+)"')
FLAGS = ["-t", "rngd", "--prefill-buckets", "2x8", "--decode-buckets", "1x16"]


@pytest.fixture(scope="module")
def artifact(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "out"
    assert irc.main(["compile", str(demo_model), "-o", str(out), *FLAGS]) == 0
    return out


@pytest.fixture(scope="module")
def facts(artifact: Path) -> dict[str, Any]:
    return report_data(Artifact(artifact))


def text_of(facts: dict[str, Any], stage: int) -> list[str]:
    return [facts["lines"][line] for line in facts["stages"][stage]["lines"]]


def test_stages_are_those_of_the_pipeline_and_give_the_same_programs(facts: dict[str, Any]) -> None:
    names = [stage["name"] for stage in facts["stages"]]
    assert names[0] == "import"
    assert names[1:] == re.findall(r"[a-z-]+(?=[,{]|$)", re.sub(r"\{[^}]*\}", "", facts["about"]["pipeline"]))
    assert facts["about"]["same"]
    assert any("graph.rms_norm" in line for line in text_of(facts, names.index("raise-rms-norm")))


def test_every_command_of_a_module_comes_from_an_operation_of_it(facts: dict[str, Any]) -> None:
    start = text_of(facts, 0)
    lines = {origin: start[row] for row, origin in facts["stages"][0]["origins"]}
    for program in facts["programs"]:
        located = [(command[4], command[9]) for command in program["commands"] if command[4]]
        assert len(located) > 60
        for module, origin in located:
            assert MODULE.search(lines[origin])[1] == module  # pyright: ignore[reportOptionalSubscript]


def test_buffers_never_share_bytes_while_they_live(facts: dict[str, Any]) -> None:
    for program in facts["programs"]:
        living = [(life, program["buffers"][life[0]]) for life in program["lives"]]
        assert len(living) > 100
        for i, ((_, address, start, end), (_, memory, size, *_)) in enumerate(living):
            assert address + size <= facts["machine"]["memories"][memory]["bytes"]
            for (_, other, begin, stop), (_, where, length, *_) in living[:i]:
                apart = other + length <= address or address + size <= other
                assert where != memory or apart or stop <= start or end <= begin


def test_the_page_says_how_much_it_leaves_out(
    facts: dict[str, Any], artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "MAX_EVENTS", 50)
    cut = report_data(Artifact(artifact))["programs"]
    for whole, part in zip(facts["programs"], cut, strict=True):
        assert (len(part["lives"]), whole["dropped_lives"]) == (50, 0)
        assert part["dropped_lives"] == len(whole["lives"]) - 50 > 0
        assert part["dropped"] == sum(max(0, len(runs) - 50) for runs in whole["queues"].values())


def test_lives_follow_the_runs_of_the_block() -> None:
    buffer = Buffer("x", "dm", 100, 8, 2, 64, 4, 4, "", 0, [0, 1])
    spans = {0: [Span(10 * i, 10 * i + 1) for i in range(4)], 1: [Span(5 * i, 5 * i + 9) for i in range(8)]}
    assert [life[1:] for life in lives(7, buffer, spans)] == [
        (100, 0, 14), (164, 10, 24), (100, 20, 34), (164, 30, 44),
    ]  # fmt: skip
    assert list(lives(7, buffer, {})) == []


def test_absorbed_operations_mean_the_one_that_used_them() -> None:
    users = {1: {2}, 2: {3, 4}, 3: set[int](), 4: {5}, 5: set[int](), 6: set[int]()}
    assert absorbed(users, {4, 5}) == {1: 4, 2: 4}


def test_weights_and_modules_add_up(facts: dict[str, Any], artifact: Path) -> None:
    weights = {weight["name"]: weight for weight in facts["weights"]}
    down = weights["model.layers.{}.mlp.down_proj.weight#0"]
    assert (down["shape"], down["layers"], down["stored"]) == ([128, 344], 4, ["F32"])
    assert down["bytes"] == 4 * 4 * 256 * 512  # layers, bytes an element, padded shape
    for program in facts["programs"]:
        moved = sum(module["bytes"] for module in program["modules"])
        assert moved <= program["dram_bytes"]
        (found,) = (m for m in program["modules"] if m["module"] == "model.layers.{}.mlp.down_proj")
        assert found["macs"] >= 4 * program["batch"] * program["new_tokens"] * 128 * 344


def test_page_is_one_file(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "page.html"
    assert irc.main(["report", str(artifact), "-o", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(target), "format": "html", "bytes": target.stat().st_size,
    }  # fmt: skip
    page = target.read_text(encoding="utf-8")
    assert not re.search(r"<link|\bsrc=|@import|url\(", page)
    assert "@DATA@" not in page


def test_model_explorer_graphs_are_whole(artifact: Path, tmp_path: Path) -> None:
    target = tmp_path / "graphs.json"
    assert irc.main(["report", str(artifact), "--format", "model-explorer", "-o", str(target)]) == 0
    collections = json.loads(target.read_text())
    assert [c["label"].split()[-1] for c in collections][:2] == ["import", "optimize"]
    for collection in collections:
        names = {graph["id"] for graph in collection["subgraphs"]}
        for graph in collection["subgraphs"]:
            ids = [node["id"] for node in graph["nodes"]]
            assert len(set(ids)) == len(ids)
            for node in graph["nodes"]:
                assert {edge["sourceNodeId"] for edge in node["incomingEdges"]} <= set(ids)
                assert set(node["subgraphIds"]) <= names
    layer = {(node["namespace"], node["label"]) for node in collections[0]["subgraphs"][0]["nodes"]}
    assert ("model/layers/{}/mlp/down_proj", "linear") in layer


def test_chrome_trace_has_a_process_per_program(artifact: Path, tmp_path: Path) -> None:
    target = tmp_path / "trace.json"
    assert irc.main(["report", str(artifact), "--format", "chrome-trace", "-o", str(target)]) == 0
    events = json.loads(target.read_text())["traceEvents"]
    named = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert named == {"prefill_2x8", "decode_1x16"}


def test_artifact_without_ir_is_refused(
    demo_model: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, start = tmp_path / "out", artifact / "debug" / "import.mlir"
    words = ["compile", str(demo_model), "-o", str(out), *FLAGS, "--no-debug", "--compile-from", str(start)]
    assert irc.main(words) == 0
    assert not (out / "debug").exists()
    assert irc.main(["report", str(out)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("(compile it without --no-debug)")


def test_drift_is_that_of_the_passes(demo_model: Path, artifact: Path, tmp_path: Path) -> None:
    out, start = tmp_path / "out", artifact / "debug" / "import.mlir"
    flags = ["-t", "rngd", "--decode-buckets", "1x4", "--quantize", "w8a16"]
    words = ["compile", str(demo_model), "-o", str(out), *flags, "--compile-from", str(start)]
    assert irc.main(words) == 0
    drift = report_data(Artifact(out), str(demo_model))["drift"]
    figures = {found["name"]: found.get("max_rel_error") for found in drift["passes"]}
    assert figures["raise-rms-norm"] < 1e-6
    assert 1e-3 < figures["quantize-weights"] < 0.1
    assert figures["lower-to-npu"] == pytest.approx(figures["quantize-weights"], rel=0.05)
    layers = {layer["module"]: dict(zip(drift["phases"], layer["errors"])) for layer in drift["layers"]}
    assert {f"model.layers.{i}" for i in range(4)} <= set(layers)
    for i in range(4):
        assert layers[f"model.layers.{i}"]["optimize"] < 1e-6
        assert layers[f"model.layers.{i}"]["quantize"] > 1e-4
    assert layers["model.embed_tokens"]["quantize"] == 0


def test_drift_needs_the_same_model(artifact: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shared / "models" / "stories260K"
    assert irc.main(["report", str(artifact), "--against", str(other)]) == 1
    assert "is not that of model, which was compiled" in capsys.readouterr().err


def test_layers_compare_what_both_sides_have() -> None:
    a, b, c = torch.ones(3), torch.tensor([1.0, 1.0, 1.5]), torch.zeros(2)
    expected = {("m.layers.0.mlp", 0, 1, 0): [a], ("m.norm", None, 2, 0): [a], ("m.head", None, 3, 0): [c]}
    found = {("m.layers.0.mlp", 0, 1, 0): [b], ("m.norm", None, 2, 0): [a], ("m.head", None, 3, 0): [a]}
    assert errors_by_layer(found, expected) == {"m.layers.0": 0.5, "m.norm": 0.0}


def test_rows_of_a_drawing() -> None:
    def node(*inputs: int, operation: str = "graph.add") -> Node:
        return Node("", operation, "", "", 0, list(inputs))

    nodes = [node(operation="argument"), node(0), node(), node(2), node(1), node(4, 3), node()]
    assert rows_of(nodes) == [0, 1, 1, 2, 2, 3, 0]
