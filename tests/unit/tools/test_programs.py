"""compile, inspect, objdump and asm on the demonstration model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from npuc.ir.legality import PHASES
from npuc.tools import irc
from npuc.tools.commands import compile as compile_command

Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *words: str | Path, status: int = 0) -> dict[str, Any]:
    """The object that a command prints with --json."""
    assert irc.main([*map(str, words), "--json"]) == status
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="session")
def artifact(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "out"
    words = [
        "compile",
        demo_model,
        "-t",
        "rngd",
        "-o",
        path,
        "--prefill-buckets",
        "1x16",
        "--decode-buckets",
        "1x32",
    ]
    assert irc.main([str(word) for word in words]) == 0
    return path


def test_phases_are_those_of_the_pipeline() -> None:
    assert compile_command.PHASES == PHASES


def test_compile_reports(demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ["--prefill-buckets", "1x8", "--decode-buckets", "1x8"]
    found = run(capsys, "compile", demo_model, "-t", "rngd", "-o", tmp_path / "out", *flags)
    assert [p["name"] for p in found["programs"]] == ["prefill_1x8", "decode_1x8"]
    assert [p["name"] for p in found["phases"]] == list(PHASES)
    assert found["weight_bytes"] == (tmp_path / "out/weights/rank0.safetensors").stat().st_size
    assert found["program_bytes"] == sum(p["bytes"] for p in found["programs"])
    assert found["artifact"] == str(tmp_path / "out")
    assert found["peak_rss_bytes"] > 1 << 20


def test_ir_is_edited_and_compiled_further(demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ["-t", "rngd", "--prefill-buckets", "1x8", "--decode-buckets", "1x8"]
    dumps = tmp_path / "dumps"
    straight = run(
        capsys, "compile", demo_model, *flags, "--compile-to", "tile", "--dump-compilation-phases-to", dumps
    )
    assert straight["phase"] == "tile"
    assert [path.name for path in sorted(dumps.iterdir())][:2] == ["1.import.mlir", "2.optimize.mlir"]
    resumed = run(
        capsys,
        "compile",
        demo_model,
        *flags,
        "--compile-to",
        "tile",
        "--compile-from",
        dumps / "4.specialize.mlir",
    )
    assert resumed["text"] == straight["text"]
    assert "partition" in [p["name"] for p in resumed["phases"]]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["compile", "MODEL"], 2, "the following arguments are required: -t/--target"),
        (["compile", "MODEL", "-t", "rngd"], 2, "the following arguments are required: -o/--output"),
        (
            ["compile", "MODEL", "-t", "rngd", "-o", "OUT", "--decode-buckets", "4"],
            2,
            "argument --decode-buckets: '4' is not a bucket BxL (write it like 4x1024)",
        ),
        (["compile", "MODEL", "-t", "nonesuch", "-o", "OUT"], 1, "unknown target 'nonesuch'"),
        (
            ["compile", "MODEL", "-t", "rngd", "-o", "OUT", "--decode-buckets", "1x257"],
            1,
            "bucket 1x257 attends to 257 positions, the model's context is 256",
        ),
        (["compile", "/nonesuch/model", "-t", "rngd", "-o", "OUT"], 1, "no such directory"),
        (["inspect", "/nonesuch"], 1, "no such file or directory"),
        (["inspect", "MODEL/config.json"], 1, "neither artifact nor checkpoint"),
        (["objdump", "/nonesuch.elf"], 1, "cannot read it: No such file or directory"),
        (["objdump", "MODEL"], 1, "there is no artifact: artifact.json is missing"),
        (
            ["asm", "MODEL/model.safetensors", "-t", "rngd", "-o", "OUT"],
            1,
            "not UTF-8 text: invalid start byte",
        ),
    ],
)
def test_refusals(
    words: list[str], status: int, message: str, demo_model: Path, tmp_path: Path, capsys: Capture
) -> None:
    filled = [w.replace("MODEL", str(demo_model)).replace("OUT", str(tmp_path / "out")) for w in words]
    assert run(capsys, *filled, status=status)["error"]["message"] == message
    assert not (tmp_path / "out").exists()


def test_inspect_artifact(artifact: Path, capsys: Capture) -> None:
    found = run(capsys, "inspect", artifact, "--check")
    assert found["target"] == "rngd"
    assert found["buckets"] == {"prefill": [[1, 16]], "decode": [[1, 32]]}
    assert found["source"]["architecture"] == "LlamaForCausalLM"
    assert {"recipe", "parallel"} <= found.keys()
    for entry in found["files"]:
        assert (artifact / entry["path"]).stat().st_size == entry["bytes"]
    assert irc.main(["inspect", str(artifact)]) == 0
    assert "decode_1x32" in capsys.readouterr().out


def test_inspect_checkpoint(demo_model: Path, capsys: Capture) -> None:
    found = run(capsys, "inspect", demo_model)
    assert (found["format"], found["architecture"]) == ("safetensors", "LlamaForCausalLM")
    tensors = {t["name"]: t for t in found["tensors"]}
    assert tensors["model.embed_tokens.weight"]["shape"] == [1024, 128]
    assert tensors["model.norm.weight"]["type"] == "F32"
    assert run(capsys, "inspect", demo_model / "model.safetensors")["tensors"] == found["tensors"]


def test_objdump_and_asm_are_inverse(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    found = run(capsys, "objdump", artifact, "--program", "decode_1x32")
    assert found["symbols"].keys() >= {"all", "last", "body"}
    text = tmp_path / "program.s"
    text.write_text(found["text"])
    again = run(capsys, "asm", text, "--like", found["file"], "-o", tmp_path / "again.elf")
    assert again["symbols"] == found["symbols"]
    assert (tmp_path / "again.elf").read_bytes() == Path(found["file"]).read_bytes()
    assert run(capsys, "inspect", tmp_path / "again.elf")["target"] == "rngd"
    error = run(capsys, "objdump", artifact, status=1)["error"]
    assert error["remedy"] == "--program: prefill_1x16, decode_1x32"
