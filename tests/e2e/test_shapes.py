"""Sizes at the edge: buckets of one token, one head, odd numbers of elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import npuc
import pytest
from families import FAMILIES, save_random
from npuc.passes.buckets import parse_bucket
from npuc.runtime.artifact import Artifact
from npuc.runtime.verify import verify
from sanitized import FirstRunsSanitized

TOY = str(Path(__file__).parents[1] / "toy" / "toy.npu")
SMALL = {"num_hidden_layers": 1, "vocab_size": 65, "intermediate_size": 33}
ONE_HEAD = {"hidden_size": 16, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16}
ODD = {"hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 6}
LIMITS = {"float32": 1e-4, "bfloat16": 5e-2}  # of the largest logit


@pytest.mark.parametrize(
    ("target", "dtype", "sizes", "buckets"),
    [
        ("rngd", "float32", ONE_HEAD, {"prefill": "2x1", "extend": "1x1x1", "decode": "3x17"}),
        (TOY, "bfloat16", ODD, {"prefill": "2x1", "extend": "1x3x50", "decode": "1x50"}),
    ],
    ids=["one token", "odd"],
)
def test_edges(
    target: str, dtype: str, sizes: dict[str, Any], buckets: dict[str, str], tmp_path: Path
) -> None:
    config, options = FAMILIES["mistral-sliding"]
    save_random(config, {**options, **SMALL, **sizes}, tmp_path / "model")
    chosen = [parse_bucket(kind, text) for kind, text in buckets.items()]
    npuc.compile(tmp_path / "model", tmp_path / "out", target=target, buckets=chosen, dtype=dtype)
    device = FirstRunsSanitized(Artifact(tmp_path / "out"))
    found = verify(tmp_path / "out", tmp_path / "model", max_documents=4, device=device)
    assert found["max_rel_error"] <= LIMITS[dtype]
    assert device.hazards == []
