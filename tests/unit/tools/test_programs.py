"""Every subcommand that takes a model, an artifact or a program, on the demonstration model."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from npuc.ir.legality import PHASES
from npuc.runtime.manifest import read_manifest, write_manifest
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


@pytest.fixture(scope="session")
def partitioned(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ir") / "partition.mlir"
    words = ["compile", demo_model, "-t", "rngd", "--prefill-buckets", "1x8", "--compile-to", "partition"]
    assert irc.main([str(word) for word in [*words, "-o", path]]) == 0
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
    ("words", "message"),
    [
        (
            ["--dtype", "bfloat16"],
            "--dtype bfloat16 comes too late: the IR computes in float32",
        ),
        (
            ["--decode-buckets", "1x8"],
            "--decode-buckets 1x8 comes too late: the IR has the programs prefill_1x8",
        ),
        (
            ["--quantize", "w8a16"],
            "--quantize w8a16 comes too late: the IR is past the phase quantize",
        ),
        (
            ["--tensor-parallel", "2"],
            "--tensor-parallel 2 comes too late: the IR is for one rank",
        ),
    ],
)
def test_what_the_ir_has_settled_is_not_asked_for_again(
    partitioned: Path, demo_model: Path, capsys: Capture, words: list[str], message: str
) -> None:
    words = [*words, "--compile-from", str(partitioned), "--compile-to", "layout"]
    error = run(capsys, "compile", demo_model, "-t", "rngd", *words, status=1)["error"]
    assert error["message"] == message
    assert error["where"] == str(partitioned)


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
        (["objdump", "/nonesuch.elf"], 1, "no such file or directory"),
        (["objdump", "MODEL"], 1, "there is no artifact: artifact.json is missing"),
        (
            ["asm", "MODEL/model.safetensors", "-t", "rngd", "-o", "OUT"],
            1,
            "is not UTF-8 text: byte 0xc0 in line 1",
        ),
    ],
)
def test_refusals(
    words: list[str], status: int, message: str, demo_model: Path, tmp_path: Path, capsys: Capture
) -> None:
    filled = [w.replace("MODEL", str(demo_model)).replace("OUT", str(tmp_path / "out")) for w in words]
    assert run(capsys, *filled, status=status)["error"]["message"] == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
def test_a_damaged_file_beside_the_weights(
    name: str, demo_model: Path, tmp_path: Path, capsys: Capture
) -> None:
    """It is refused before the compile, and not only when text is generated."""
    damaged = tmp_path / "model" / name
    shutil.copytree(demo_model, damaged.parent)
    damaged.write_bytes(damaged.read_bytes()[:40])
    error = run(capsys, "compile", damaged.parent, "-t", "rngd", "-o", tmp_path / "out", status=1)["error"]
    assert error["where"] == str(damaged)
    assert error["message"].startswith("not valid JSON: ")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


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


def test_run_writes_what_transformers_writes(artifact: Path, demo_model: Path, capsys: Capture) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_model)
    model = AutoModelForCausalLM.from_pretrained(demo_model)
    tokens = tokenizer("The function", return_tensors="pt")
    expected = model.generate(**tokens, max_new_tokens=8, do_sample=False)[0, tokens["input_ids"].shape[1] :]
    found = run(capsys, "run", artifact, "--prompt", "The function", "--max-tokens", "8")
    assert found["token_ids"] == expected.tolist()
    assert found["prompt_tokens"] == tokens["input_ids"].shape[1]
    assert found["finish_reason"] == "length"
    assert found["simulated_seconds"] > 0
    text = tokenizer.decode(expected)
    assert (found["prompt"], found["text"]) == ("The function", text)
    assert irc.main(["run", str(artifact), "--prompt", "The function", "--max-tokens", "8"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"The function{text}\n"
    assert "8 new, length" in captured.err


def test_run_takes_several_prompts_and_token_ids(artifact: Path, capsys: Capture) -> None:
    flags = ["--max-tokens", "3"]
    both = run(capsys, "run", artifact, "--prompt", "The function", "--prompt", "If the", *flags)
    assert [o["prompt"] for o in both["outputs"]] == ["The function", "If the"]
    ids = run(capsys, "run", artifact, "--prompt-ids", "0,300,301", *flags)
    assert ids["prompt_tokens"] == 3
    two = run(capsys, "run", artifact, "--prompt-ids", "0,300,301", "--prompt-ids", "5", *flags)
    assert [o["prompt_tokens"] for o in two["outputs"]] == [3, 1]
    assert two["outputs"][0]["token_ids"] == ids["token_ids"]
    # Without a limit as many tokens as there is room for, at most.
    longest = run(capsys, "run", artifact, "--prompt-ids", "0,300,301", "--ignore-eos")
    assert len(longest["token_ids"]) == 32 - 3 + 1
    error = run(capsys, "run", artifact, "--prompt", "a " * 17, status=1)["error"]
    assert error["kind"] == "prompt-too-long"


def test_run_returns_logits(artifact: Path, demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    file = tmp_path / "logits.safetensors"
    words = ["--prompt-ids", "0,300,301", "--prompt-ids", "7", "--max-tokens", "2", "--return-logits", file]
    found = run(capsys, "run", artifact, *words)["outputs"]
    model = AutoModelForCausalLM.from_pretrained(demo_model)
    for i, prompt in enumerate(([0, 300, 301], [7])):
        tokens = torch.tensor([[*prompt, found[i]["token_ids"][0]]])
        expected = model(tokens).logits[0, -2:].detach()
        torch.testing.assert_close(load_file(file)[f"logits.{i}"], expected, rtol=1e-4, atol=1e-4)
    missing = tmp_path / "none" / "logits.safetensors"
    error = run(capsys, "run", artifact, *words[:-1], missing, status=1)["error"]
    assert str(missing) in str(error)


def test_run_shows_tokens_where_there_is_no_text(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    """The artifact of a model without tokenizer takes and gives token ids."""
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    for file in (copy / "model").glob("tokenizer*"):
        file.unlink()
    manifest = copy / "artifact.json"
    old = read_manifest(manifest.read_bytes(), str(manifest))
    files = tuple(entry for entry in old.files if "tokenizer" not in entry.path)
    manifest.write_bytes(write_manifest(replace(old, files=files)))
    words = [str(copy), "--prompt-ids", "0,300,301", "--max-tokens", "3"]
    found = run(capsys, "run", *words)
    assert irc.main(["run", *words]) == 0
    assert capsys.readouterr().out == " ".join(map(str, found["token_ids"])) + "\n"
    assert run(capsys, "run", copy, "--prompt", "hello", status=1)["error"]["kind"] == "no-tokenizer"


def test_verify(artifact: Path, demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "The function returns a list of the names.<|endoftext|>If the value is not given, it is None."
    )
    found = run(capsys, "verify", artifact, "--against", demo_model, "--text", text)
    assert found["passed"]
    assert found["max_rel_error"] <= found["limit"] == 1e-4
    assert found["top1_agreement"] == 1.0
    assert found["perplexity"] == pytest.approx(found["reference_perplexity"], rel=1e-5)
    assert {p["name"] for p in found["programs"]} == {"prefill_1x16", "decode_1x32"}
    strict = ["--documents", "1", "--max-rel-error", "1e-12"]
    failed = run(capsys, "verify", artifact, "--against", demo_model, "--text", text, *strict, status=1)
    assert not failed["passed"]


def test_profile(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    programs = {p["name"]: p for p in run(capsys, "profile", artifact, "--why")["programs"]}
    assert programs.keys() == {"prefill_1x16", "decode_1x32"}
    for program in programs.values():
        assert program["roofline_cycles"] <= program["cycles"]
        assert program["least_dram_bytes"] <= program["dram_bytes"]
        assert all(0 <= share <= 1 for share in program["utilization"].values())
        why = program["why"]
        assert sum(part["cycles"] for part in why["critical_path"]) == program["cycles"]
        assert why["bound"]["queue"] in program["utilization"]
        assert why["idle"]["share"] == pytest.approx(1 - program["utilization"][why["bound"]["queue"]])
    # 4 layers of 2·128·128 + 2·128·64 + 3·128·344 weights, the tied head, and attention over 32 positions.
    assert programs["decode_1x32"]["macs"] == 4 * 181248 + 1024 * 128 + 4 * 4 * 32 * 64
    trace = tmp_path / "trace.json"
    run(capsys, "profile", artifact, "--program", "decode_1x32", "--trace", trace)
    events = json.loads(trace.read_text())["traceEvents"]
    assert max(e["ts"] + e["dur"] for e in events if e["ph"] == "X") == pytest.approx(
        programs["decode_1x32"]["seconds"] * 1e6, rel=0.01
    )
    error = run(capsys, "profile", artifact, "--trace", trace, status=1)["error"]
    assert error["remedy"] == "--program: prefill_1x16, decode_1x32"


def test_sim_finds_no_hazard(artifact: Path, capsys: Capture) -> None:
    found = run(capsys, "sim", artifact, "--sanitize", "--program", "decode_1x32")
    assert found["passed"]
    (program,) = found["programs"]
    assert program["commands"] > 100
    assert program["hazards"] == []


def test_sim_reports_removed_waits(artifact: Path, tmp_path: Path, capsys: Capture) -> None:
    """A program whose waits are taken out by hand races, and the report names the module."""
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    dumped = run(capsys, "objdump", copy, "--program", "decode_1x32")
    file = Path(dumped["file"])
    text = tmp_path / "program.s"
    text.write_text(re.sub(r" wait=\S+", "", dumped["text"]))
    run(capsys, "asm", text, "--like", file, "-o", file)
    flags = ["--sanitize", "--program", "decode_1x32"]
    assert run(capsys, "sim", copy, *flags, status=1)["error"]["kind"] == "damaged-artifact"
    found = run(capsys, "sim", artifact, *flags, "--elf", file, status=1)
    assert not found["passed"]
    races = [h["text"] for h in found["programs"][0]["hazards"] if h["kind"] == "race"]
    assert any("model.layers" in text for text in races)
    error = run(capsys, "sim", artifact, "--elf", file, status=1)["error"]
    assert error["where"] == "--elf"
