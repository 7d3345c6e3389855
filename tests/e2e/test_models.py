"""Trained models on the simulator; `make numbers` measures all of them, on longer texts."""

from __future__ import annotations

from pathlib import Path

import npuc
import pytest
from greedy import beginnings, npu_tokens, reference_tokens
from npuc.passes.buckets import parse_bucket
from npuc.runtime.artifact import Artifact
from npuc.runtime.verify import verify
from sanitized import FirstRunsSanitized

BUCKETS = [
    parse_bucket(kind, sizes)
    for kind, sizes in (("prefill", "1x16"), ("extend", "2x16x64"), ("decode", "1x64"), ("decode", "2x64"))
]


@pytest.mark.parametrize("name", ["stories260K", "tiny-gemma3"])
def test_greedy_tokens_are_those_of_transformers(shared: Path, name: str, tmp_path: Path) -> None:
    """Four prompts share two slots and the batch of two."""
    folder = shared / "models" / name
    npuc.compile(folder, tmp_path / "out", target="rngd", buckets=BUCKETS)
    llm = npuc.LLM(tmp_path / "out")
    prompts = beginnings(shared / "text" / "tinystories_valid.txt", llm.tokenizer.encode, 4)
    assert npu_tokens(llm, prompts, 16) == reference_tokens(folder, prompts, 16)


def test_bf16(shared: Path, tmp_path: Path) -> None:
    folder, text = shared / "models" / "stories260K", shared / "text" / "tinystories_valid.txt"
    npuc.compile(folder, tmp_path / "out", target="rngd", buckets=BUCKETS, dtype="bfloat16")
    device = FirstRunsSanitized(Artifact(tmp_path / "out"))
    found = verify(tmp_path / "out", folder, text, device=device)
    assert found["dtype"] == "bf16"
    assert found["cosine"] >= 0.9998
    assert found["perplexity"] == pytest.approx(found["reference_perplexity"], rel=5e-3)
    assert device.hazards == []
