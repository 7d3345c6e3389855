"""`irc explain` and `irc diff`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from npuc.tools import irc
from npuc.tools.sequence_diff import Item, changed, match

Capture = pytest.CaptureFixture[str]

IR = """func.func @f(%a : tensor<2x8xf32>, %b : tensor<4x8xf32>) -> tensor<2x4xf32> {
  %c = graph.linear %a, %b : tensor<2x4xf32> {module = "model.layers.{}.mlp"}
  %d = graph.silu %c : tensor<2x4xf32> {module = "model.norm"}
  %e = graph.add %c, %d : tensor<2x4xf32>
  func.return %e : tensor<2x4xf32>
}
"""


def run(capsys: Capture, *words: str | Path, status: int = 0) -> dict[str, Any]:
    assert irc.main([*map(str, words), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def shown(capsys: Capture, *words: str | Path) -> str:
    assert irc.main([*map(str, words)]) == 0
    return capsys.readouterr().out


def build(model: Path, out: Path, *flags: str) -> Path:
    words = ["compile", str(model), "-t", "rngd", "-o", str(out), "--decode-buckets", "1x8", *flags]
    assert irc.main(words) == 0
    return out


@pytest.fixture(scope="module")
def artifact(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(demo_model, tmp_path_factory.mktemp("a") / "out")


@pytest.fixture(scope="module")
def larger(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(demo_model, tmp_path_factory.mktemp("b") / "out", "--prefill-buckets", "1x4")


def test_explain_a_module(artifact: Path, capsys: Capture) -> None:
    found = run(capsys, "explain", artifact, "model.layers.2.mlp")
    assert {c["module"] for c in found["commands"]} == {
        f"model.layers.{{}}.mlp{inner}" for inner in ("", ".gate_proj", ".up_proj", ".down_proj")
    }
    assert {c["operation"] for c in found["commands"]} == {"tile.pass", "tile.copy"}
    assert {c["runs"] for c in found["commands"]} == {4}, "the demonstration model has four layers"
    total = found["programs"]["decode_1x8"]
    assert total["total_cycles"] == sum(c["total_cycles"] for c in found["commands"])
    assert total["dram_bytes"] == sum(4 * c["dram_bytes"] for c in found["commands"])
    assert total["dram_bytes"] >= 4 * 3 * 344 * 128 * 4, "the weights, at least"
    gate = run(capsys, "explain", artifact, "model.layers.*.mlp.gate_proj", "--program", "decode_1x8")
    assert {c["module"] for c in gate["commands"]} == {"model.layers.{}.mlp.gate_proj"}
    text = shown(capsys, "explain", artifact, "lm_head")
    assert re.search(r"decode_1x8 +0x[0-9a-f]+ +dma dma +tile\.copy +lm_head", text)


def test_explain_a_command(artifact: Path, capsys: Capture) -> None:
    """What is told of a command is what the module's list and the disassembly say."""
    commands = run(capsys, "explain", artifact, "model.layers.0.self_attn.q_proj")["commands"]
    lines = [line.strip() for line in shown(capsys, "objdump", artifact).splitlines()]
    for command in commands:
        found = run(capsys, "explain", artifact, f"decode_1x8@{command['offset']:#x}")
        assert {key: found[key] for key in command} == command
        assert found["text"] in lines
        assert found["fields"]["size"]
        assert found["cycles"] >= max(found["stages"].values())
    text = shown(capsys, "explain", artifact, f"decode_1x8@{commands[-1]['offset']:#x}")
    assert f"→ {commands[-1]['offset']:#x}  {commands[-1]['text']}" in text.splitlines()
    assert re.search(r"^module +model\.layers\.\{\}\.self_attn\.q_proj$", text, re.MULTILINE)


def test_explain_refusals(artifact: Path, capsys: Capture) -> None:
    error = run(capsys, "explain", artifact, "decode_1x8@0x3", status=1)["error"]
    assert error["remedy"] == "the one before it begins at 0x0"
    error = run(capsys, "explain", artifact, "nonesuch", status=1)["error"]
    assert (error["kind"], "model.norm" in error["remedy"]) == ("no-module", False)
    assert run(capsys, "explain", artifact, "nonesuch@0", status=1)["error"]["kind"]
    error = run(capsys, "explain", artifact, "decode_1x8@zz", status=1)["error"]
    assert (error["where"], error["message"]) == ("decode_1x8@zz", "expected PROGRAM@OFFSET")


@pytest.mark.parametrize(
    ("old", "new", "edits"),
    [
        ("silu", "relu", [("removed", "graph.silu", {}), ("added", "graph.relu", {})]),
        ("%d", "%other", []),
        ('"model.norm"', '"m"', [("changed", "graph.silu", {"module": ['"model.norm"', '"m"']})]),
        (
            "graph.add %c, %d",
            "graph.add %d, %c",
            [("changed", "graph.add", {"operands": ["%c, %d", "%d, %c"]})],
        ),
        ("4x8xf32", "4x9xf32", None),
    ],
)
def test_diff_ir(
    old: str,
    new: str,
    edits: list[tuple[str, str, dict[str, list[str]]]] | None,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    files = tmp_path / "a.mlir", tmp_path / "b.mlir"
    files[0].write_text(IR)
    files[1].write_text(IR.replace(old, new))
    if edits is None:
        assert run(capsys, "diff", *files, status=1)["error"]["kind"] == "bad-ir"
        return
    found = run(capsys, "diff", *files, "--exit-code", status=1 if edits else 0)
    assert found["same"] == (not edits)
    listed = [(e["edit"], e["kind"], e["changes"]) for s in found["sections"] for e in s["edits"]]
    assert sorted(map(str, listed)) == sorted(map(str, edits))
    assert [s["name"] for s in found["sections"]] == (["@f"] if edits else [])
    text = shown(capsys, "diff", *files)
    assert (text == "no difference\n") == (not edits)


def test_diff_text(tmp_path: Path, capsys: Capture) -> None:
    files = tmp_path / "a.mlir", tmp_path / "b.mlir"
    files[0].write_text(IR)
    files[1].write_text(IR.replace("silu", "relu").replace("{}.mlp", "{}.moe"))
    assert shown(capsys, "diff", *files).splitlines() == [
        "@f: 1 added, 1 removed, 1 changed",
        "  ~ %c = graph.linear (model.layers.{}.moe)",
        '        module: "model.layers.{}.mlp" → "model.layers.{}.moe"',
        "  - %d = graph.silu (model.norm)",
        "  + %d = graph.relu (model.norm)",
    ]
    assert shown(capsys, "diff", *files, "--stat") == "@f: 1 added, 1 removed, 1 changed\n"


def test_diff_programs(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    program = artifact / "programs" / "decode_1x8.stage0.elf"
    text = tmp_path / "a.s"
    text.write_text(shown(capsys, "objdump", program).replace("halt", "barrier\nhalt", 1))
    edited = tmp_path / "b.elf"
    assert irc.main(["asm", str(text), "-t", "rngd", "-o", str(edited)]) == 0
    capsys.readouterr()
    same = run(capsys, "diff", program, program)
    assert (same["same"], same["sections"][0]["edits"]) == (True, [])
    found = run(capsys, "diff", program, edited)
    (section,) = found["sections"]
    added = [e for e in section["edits"] if e["edit"] == "added"]
    assert [e["kind"] for e in added] == ["control barrier"]
    assert section["commands"][1] == section["commands"][0] + 1
    assert section["bytes"][1] > section["bytes"][0]
    assert section["cycles"][1] == section["cycles"][0]


def test_diff_artifacts(artifact: Path, larger: Path, capsys: Capture) -> None:
    assert run(capsys, "diff", artifact, artifact, "--exit-code")["same"]
    found = run(capsys, "diff", artifact, larger)
    section = next(s for s in found["sections"] if s["name"] == "prefill_1x4")
    assert section["commands"][0] == section["timed_cycles"][0] == 0
    assert section["timed_cycles"][1] > 0
    assert {e["edit"] for e in section["edits"]} == {"added"}
    assert "buckets" in found["manifest"]
    assert "programs/prefill_1x4.stage0.elf" in found["files"]
    assert re.search(r"^prefill_1x4: \d+ added$", shown(capsys, "diff", artifact, larger), re.MULTILINE)


def test_diff_refusals(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "a.mlir"
    file.write_text(IR)
    message = run(capsys, "diff", artifact, file, status=1)["error"]["message"]
    assert message == "artifact and IR cannot be compared"
    assert run(capsys, "diff", file, tmp_path / "none", status=1)["error"]["kind"] == "missing-file"


def test_sequences_pair_what_is_of_one_kind() -> None:
    def items(*texts: str) -> list[Item]:
        return [Item(text[0], {"x": text[1:]}, text) for text in texts]

    edits, pairs = match(items("a1", "b1", "c1"), items("a1", "b2", "d1", "c1"))
    assert pairs == {0: 0, 1: 1, 2: 3}
    assert [(e.before, e.after, e.changes) for e in edits] == [(1, 1, {"x": ("1", "2")}), (None, 2, {})]
    assert changed({"a": "1", "b": "2"}, {"b": "2", "c": "3"}) == {"a": ("1", "-"), "c": ("-", "3")}
