"""A compiled artifact through the driver: same bytes, no need of its checkpoint, damage, and misuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, save_random
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from npuc.tools import irc

Capture = pytest.CaptureFixture[str]
BUCKETS = ["--prefill-buckets", "1x4", "--extend-buckets", "1x4x12", "--decode-buckets", "2x16"]
PROMPT = [5, 80, 7, 22, 130]
RUN = ["--prompt-ids", ",".join(map(str, PROMPT)), "--max-tokens", "4", "--ignore-eos", "--json"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_random(*FAMILIES["gemma2"], folder)
    return folder


@pytest.fixture(scope="module")
def artifact(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("compiled") / "out"
    assert irc.main(["compile", str(model), "-t", "rngd", *BUCKETS, "-o", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def expected(model: Path) -> list[int]:
    """What transformers generates."""
    reference = transformers.AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager")
    options = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 0}
    return reference.generate(torch.tensor([PROMPT]), **options)[0, len(PROMPT) :].tolist()


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in files_of(path)}


def refused_or_unharmed(artifact: Path, expected: list[int], capsys: Capture) -> None:
    """Running a damaged artifact gives one error, or the right tokens."""
    capsys.readouterr()
    status = irc.main(["run", str(artifact), *RUN])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    if status == 0:
        assert found["token_ids"] == expected
    else:
        assert status == 1
        assert found["error"]["kind"] != "internal"
        assert "\n" not in found["error"]["message"]


def test_another_process_makes_the_same_bytes(model: Path, artifact: Path, tmp_path: Path) -> None:
    """Another order of hashes, another place of the checkpoint and of the output."""
    copy, output = shutil.copytree(model, tmp_path / "elsewhere" / "model"), tmp_path / "again"
    code = "import sys; from npuc.tools.irc import main; sys.exit(main(sys.argv[1:]))"
    words = ["compile", str(copy), "-t", "rngd", *BUCKETS, "-o", str(output)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, *words], check=True, env=environment, capture_output=True)
    assert contents(output) == contents(artifact)


def test_a_copy_runs_without_the_checkpoint(
    model: Path, artifact: Path, expected: list[int], tmp_path: Path, capsys: Capture
) -> None:
    copy, away = shutil.copytree(artifact, tmp_path / "copy"), model.with_name("away")
    model.rename(away)
    try:
        assert irc.main(["run", str(copy), *RUN]) == 0
    finally:
        away.rename(model)
    assert json.loads(capsys.readouterr().out)["token_ids"] == expected


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bits_are_refused_or_harmless(
    artifact: Path, expected: list[int], capsys: Capture, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(files_of(artifact)), "file")
    original = path.read_bytes()
    damaged = bytearray(original)
    damaged[data.draw(st.integers(0, len(original) - 1), "position")] ^= data.draw(
        st.integers(1, 255), "bits"
    )
    path.write_bytes(damaged)
    try:
        refused_or_unharmed(artifact, expected, capsys)
    finally:
        path.write_bytes(original)


def test_truncated_and_missing_files(
    artifact: Path, expected: list[int], tmp_path: Path, capsys: Capture
) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    for path in files_of(copy):
        original = path.read_bytes()
        for length in (0, len(original) // 2, len(original) - 1):
            path.write_bytes(original[:length])
            refused_or_unharmed(copy, expected, capsys)
            assert irc.main(["verify", str(copy), "--against", str(artifact)]) == 1
        path.unlink()
        refused_or_unharmed(copy, expected, capsys)
        path.write_bytes(original)
    refused_or_unharmed(copy, expected, capsys)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["compile", "MODEL", "-t", "rngd", "-o", "MODEL"], "exists"),
        (
            ["compile", "MODEL", "-t", "rngd", "--extend-buckets", "1x8x65", "-o", "NEW"],
            "bucket 1x8x65 attends to 65 positions, the model's context is 64",
        ),
        (["run", "ARTIFACT", "--prompt-ids", "5,131"], "131"),
        (["run", "ARTIFACT", "--prompt-ids", "5,-1"], "-1"),
        (["run", "ARTIFACT", "--prompt-ids", ",".join("5" * 13)], "the prompt has 13 tokens"),
        (["run", "ARTIFACT", "--prompt-ids", "5,6", "--max-tokens", "16"], "need 17 positions"),
        (["run", "ARTIFACT", "--prompt", "text"], "tokenizer"),
        (["run", "MODEL", "--prompt-ids", "5"], "artifact.json is missing"),
        (["sim", "ARTIFACT", "--program", "decode_1x4"], "decode_1x4"),
        (["verify", "ARTIFACT", "--against", "NEW"], "NEW: "),
    ],
)
def test_misuse_is_one_line(
    words: list[str], line: str, model: Path, artifact: Path, tmp_path: Path, capsys: Capture
) -> None:
    places = {"MODEL": str(model), "ARTIFACT": str(artifact), "NEW": str(tmp_path / "new")}
    before = contents(model)
    assert irc.main([places.get(word, word) for word in words]) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("irc: error: ")
    assert line.replace("NEW", places["NEW"]) in message
    assert contents(model) == before
    assert list(tmp_path.iterdir()) == []
