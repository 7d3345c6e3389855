"""`irc bisect precision`: a compile that keeps its layers has the quality that was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from npuc.tools import irc
from tiny import tiny_model

SPOILT = ["model.layers.1.self_attn.v_proj", "model.layers.0.mlp.up_proj"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in which rounding spoils two layers: large weights that meet zeros make steps wide."""
    model = tiny_model()
    for layer in model.model.layers:
        layer.input_layernorm.weight.data[3] = layer.post_attention_layernorm.weight.data[3] = 0
    for path in SPOILT:
        model.get_submodule(path).weight.data[:, 3] = 20
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = irc.main([*map(str, words), "--json"])
    return status, json.loads(capsys.readouterr().out)


def searched(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, *words: object
) -> tuple[int, dict[str, Any]]:
    given = ("bisect", "precision", checkpoint, "-t", "rngd", "--quantize", "w8a16")
    return run(capsys, *given, "--documents", 4, "--tokens", 24, *words)


def test_the_layers_that_matter_are_kept(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = searched(capsys, checkpoint, "--quality", "cosine=0.999")
    assert status == 0
    assert (found["minimal"], found["smallest"]) == (True, True)
    assert found["modules"] == found["ignore"] == SPOILT
    assert found["before"]["cosine"] < 0.98 < 0.999 <= found["after"]["cosine"]
    assert found["evaluations"] <= 40
    assert f"--quantize-ignore {','.join(SPOILT)} -o out && irc verify out" in found["next"]
    base = ("compile", checkpoint, "-t", "rngd", "--quantize", "w8a16", "--prefill-buckets", "1x32")
    verify = ("--against", checkpoint, "--quality", "cosine=0.999")
    out, worse = tmp_path / "out", tmp_path / "worse"
    assert run(capsys, *base, "--quantize-ignore", ",".join(found["ignore"]), "-o", out)[0] == 0
    status, verified = run(capsys, "verify", out, *verify)
    assert (status, verified["passed"], verified["metric"]) == (0, True, "cosine")
    assert verified["cosine"] == pytest.approx(found["after"]["cosine"], abs=5e-4)
    assert run(capsys, "verify", out, "--against", checkpoint)[0] == 0
    imported = ("--compile-from", out / "debug" / "import.mlir")
    kinds = (path.replace("1", "{}").replace("0", "{}") for path in SPOILT[:1])
    assert run(capsys, *base, *imported, "--quantize-ignore", ",".join(kinds), "-o", worse)[0] == 0
    status, verified = run(capsys, "verify", worse, *verify)
    assert (status, verified["passed"]) == (1, False)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--quality", "cosine<=1", "--quantize", "w8a16"), 1, "'cosine<=1' is no quality"),
        (("--quality", "cosine=1"), 2, "--quantize is required"),
        (("--quality", "cosine=1", "--quantize", "w8a16", "--budget", "1"), 2, "--budget at least 2"),
        (("--quantize", "w8a16"), 2, "the following arguments are required: --quality"),
    ],
)
def test_what_is_refused(
    words: tuple[str, ...], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, data = run(capsys, "bisect", "precision", "model", "-t", "rngd", *words)
    assert found == status
    assert message in data["error"]["message"]
