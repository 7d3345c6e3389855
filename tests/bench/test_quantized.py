"""How close quantized artifacts are to transformers on the values that they stand for, and how small.

Run with --benchmark-enable; ``extra_info`` has the figures: the mean cosine of the logits, the largest error,
both perplexities, bytes of the weights. Where inputs are rounded to 8 bits, ``floor`` is the mean cosine of
transformers with itself, multiplying in float32 and in float64: closer no computation can be asked to come.
``rounding`` is that of transformers with and without rounding inputs: what one of these roundings can change.
``settled`` is the cosine with a reference that rounds as the artifact does wherever that is a right rounding
of its own value (tests/e2e/roundings.py), and that is held to what is promised of weights rounded alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import npuc
import pytest
import torch
from npuc.frontends.safetensors import read_file
from npuc.passes.buckets import parse_bucket
from npuc.runtime.artifact import Artifact
from npuc.runtime.comparison import Comparison
from npuc.runtime.quantized_reference import load_dequantized
from npuc.runtime.reference import Reference
from npuc.runtime.tokenizer import Tokenizer
from npuc.runtime.verify import read_documents, verify
from npuc.tools.fp8_checkpoint import write_fp8

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from roundings import compare_settled

CONTEXT = 128
MODELS = ("stories260K", "stories3M", "tiny-qwen3")
BUCKETS = [parse_bucket("prefill", "1x64"), parse_bucket("decode", f"1x{CONTEXT}")]
DOCUMENTS = 7
CALIBRATION = 64  # contexts
COSINE = 0.9999
FP32_ERROR = 1e-4
ANY_ROUNDING = 0.999  # the mean cosine, whichever way values near a tie are rounded
BITS = {"F32": 32, "BF16": 16, "I8": 8, "F8_E4M3": 8}


@pytest.fixture(autouse=True)
def _measuring(request: Any) -> None:  # pyright: ignore[reportUnusedFunction]
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("measures; give --benchmark-enable")


def matrix_bits(artifact: Path) -> set[int]:
    """Bits of a value in the matrices of the layers."""
    tensors = read_file(artifact / "weights" / "rank0.safetensors")
    return {BITS[t.dtype] for name, t in tensors.items() if "proj" in name and len(t.shape) == 6}


def measured(benchmark: Any, model: Path, text: Path, artifact: Path, **options: Any) -> dict[str, Any]:
    """Compiles and verifies a model; the time is that of the comparison."""
    compiled = npuc.compile(model, artifact, target="rngd", buckets=BUCKETS, **options)
    arguments = (artifact, model, text)
    found = benchmark.pedantic(verify, arguments, {"max_documents": DOCUMENTS}, rounds=1, iterations=1)
    shown = ("cosine", "min_cosine", "max_rel_error", "perplexity", "reference_perplexity", "positions")
    benchmark.extra_info.update({key: found[key] for key in shown}, weight_bytes=compiled["weight_bytes"])
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_w8a16(benchmark: Any, shared: Path, tmp_path: Path, name: str, dtype: str) -> None:
    model, text = shared / "models" / name, shared / "text" / "tinystories_valid.txt"
    found = measured(benchmark, model, text, tmp_path / "out", dtype=dtype, quantize="w8a16")
    assert found["cosine"] >= COSINE
    assert matrix_bits(tmp_path / "out") == {8}


def documents(model: Path, text: Path) -> list[list[int]]:
    """The tokens of the documents that `measured` compares."""
    encode = Tokenizer(model).encode
    return [encode(document)[:CONTEXT] for document in read_documents(text)[:DOCUMENTS]]


def floor(model: Path, text: Path, artifact: Path) -> Comparison:
    """The reference beside itself in float64."""
    recipe = Artifact(artifact).manifest.recipe
    narrow, wide = (Reference(model, dtype, recipe) for dtype in (torch.float32, torch.float64))
    found = Comparison()
    for tokens in documents(model, text):
        found.add(narrow.logits(tokens), wide.logits(tokens))
    return found


@torch.no_grad()
def rounding_alone(model: Path, text: Path) -> Comparison:
    """The reference beside itself without rounding inputs."""
    rounding, plain = load_dequantized(model), load_dequantized(model, rounding=lambda path, x: x)
    found = Comparison()
    for tokens in documents(model, text):
        inputs = torch.tensor([tokens])
        found.add(rounding(inputs).logits[0], plain(inputs).logits[0])
    return found


def check_fp8(benchmark: Any, model: Path, text: Path, artifact: Path) -> None:
    """All roundings are right, and with them settled the logits are as close as any float32 ones."""
    found = measured(benchmark, model, text, artifact)
    settled, roundings = compare_settled(artifact, model, documents(model, text))
    benchmark.extra_info |= {
        "floor": floor(model, text, artifact).figures()["cosine"],
        "rounding": rounding_alone(model, text).figures()["cosine"],
        "settled": settled.figures()["cosine"],
        "settled_error": settled.max_rel_error,
        "roundings": roundings.roundings,
        "open": roundings.open,
        "different": roundings.different,
    }
    assert found["cosine"] >= ANY_ROUNDING
    assert roundings.wrong == 0
    assert settled.figures()["cosine"] >= COSINE
    assert settled.max_rel_error <= FP32_ERROR
    assert matrix_bits(artifact) == {8}


@pytest.mark.parametrize("name", MODELS)
def test_fp8(benchmark: Any, shared: Path, tmp_path: Path, name: str) -> None:
    """AutoFP8's layout, written by ourselves, calibrated on parts of another text."""
    source, text = shared / "models" / name, shared / "text"
    begin, *tokens = Tokenizer(source).encode((text / "tinystories_197k.txt").read_text())
    parts = [tokens[(CONTEXT - 1) * i :][: CONTEXT - 1] for i in range(CALIBRATION)]
    write_fp8(source, tmp_path / "fp8", [[begin, *part] for part in parts])
    check_fp8(benchmark, tmp_path / "fp8", text / "tinystories_valid.txt", tmp_path / "out")


def test_compressed_tensors_fp8(benchmark: Any, shared: Path, tmp_path: Path) -> None:
    model = shared / "checkpoints" / "stories3M-ct-fp8-static"
    check_fp8(benchmark, model, shared / "text" / "tinystories_valid.txt", tmp_path / "out")
