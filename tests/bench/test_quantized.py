"""How close quantized artifacts are to transformers on the values that they stand for, and how small.

Run with --benchmark-enable; ``extra_info`` has the figures: the mean cosine of the logits, the largest error,
both perplexities, bytes of the layers' matrices, and of the same in the type of the computation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import npuc
import pytest
from npuc.frontends.safetensors import read_file
from npuc.passes.buckets import parse_bucket
from npuc.runtime.tokenizer import Tokenizer
from npuc.runtime.verify import read_documents, verify
from npuc.tools.fp8_checkpoint import write_fp8

MODELS = ("stories260K", "stories3M", "tiny-qwen3")
BUCKETS = [parse_bucket("prefill", "1x64"), parse_bucket("decode", "1x128")]
DOCUMENTS = 2
CALIBRATION = 8
# stories3M in FP8 is that sensitive: see ROUNDED_INPUTS in tools/commands/verify.py.
FP8_COSINE = {"stories260K": 0.9999, "stories3M": 0.9995, "tiny-qwen3": 0.9999}
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
    assert found["cosine"] >= 0.9999
    assert matrix_bits(tmp_path / "out") == {8}


@pytest.mark.parametrize("name", MODELS)
def test_fp8(benchmark: Any, shared: Path, tmp_path: Path, name: str) -> None:
    """AutoFP8's layout, written by ourselves, calibrated on another text."""
    source, text = shared / "models" / name, shared / "text"
    encode = Tokenizer(source).encode
    documents = read_documents(text / "tinystories_197k.txt")[:CALIBRATION]
    write_fp8(source, tmp_path / "fp8", [encode(document)[:256] for document in documents])
    found = measured(benchmark, tmp_path / "fp8", text / "tinystories_valid.txt", tmp_path / "out")
    assert found["cosine"] >= FP8_COSINE[name]
    assert matrix_bits(tmp_path / "out") == {8}


def test_compressed_tensors_fp8(benchmark: Any, shared: Path, tmp_path: Path) -> None:
    model = shared / "checkpoints" / "stories3M-ct-fp8-static"
    found = measured(benchmark, model, shared / "text" / "tinystories_valid.txt", tmp_path / "out")
    assert found["cosine"] >= FP8_COSINE["stories3M"]
    assert matrix_bits(tmp_path / "out") == {8}
