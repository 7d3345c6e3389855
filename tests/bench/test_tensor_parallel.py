"""Models on several cores: run with --benchmark-enable.

What is measured is how long the timing model takes; what it finds is in each benchmark's `extra_info`:
simulated cycles of a prefill and a decode step, and tokens per second. No weights are needed. Of trained
models the errors are those of `irc verify`, which are held to what one core is held to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import npuc
import pytest
from npuc.passes.buckets import parse_bucket
from npuc.runtime.artifact import Artifact
from npuc.runtime.verify import verify
from npuc.tools.commands.profile import time_ranks

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048,
    "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 2048, "rope_theta": 500000.0,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": 1,
    "eos_token_id": 2, "dtype": "bfloat16",
}  # fmt: skip


TRAINED = ("stories260K", "stories3M", "tiny-qwen3", "tiny-gemma3")
FP32_ERROR = 1e-4
DOCUMENTS = 2


@pytest.fixture(autouse=True)
def _measuring(request: Any) -> None:  # pyright: ignore[reportUnusedFunction]
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("measures; give --benchmark-enable")


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("name", TRAINED)
def test_trained_models(benchmark: Any, shared: Path, tmp_path: Path, name: str, ranks: int) -> None:
    model, text = shared / "models" / name, shared / "text" / "tinystories_valid.txt"
    buckets = [parse_bucket("prefill", "1x64"), parse_bucket("decode", "1x128")]
    npuc.compile(model, tmp_path / "out", target="rngd", buckets=buckets, tensor_parallel=ranks)
    arguments = (tmp_path / "out", model, text)
    found = benchmark.pedantic(verify, arguments, {"max_documents": DOCUMENTS}, rounds=1)
    benchmark.extra_info |= {key: found[key] for key in ("max_rel_error", "positions", "cosine")}
    assert found["max_rel_error"] <= FP32_ERROR


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_llama_1b(benchmark: Any, ranks: int, tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    buckets = [parse_bucket("prefill", "1x128"), parse_bucket("decode", "1x1024")]
    options: dict[str, Any] = {"dtype": "bfloat16", "weights": False, "tensor_parallel": ranks}
    npuc.compile(model, out, target="rngd", buckets=buckets, **options)
    artifact = Artifact(out)
    prefill, decode = artifact.manifest.programs
    found = benchmark.pedantic(time_ranks, (artifact, decode, artifact.machine), rounds=1)
    assert len(found) == ranks
    benchmark.extra_info |= {
        "decode_cycles": found[0].cycles,
        "decode_tokens_per_second": 1 / found[0].seconds,
        "prefill_cycles": time_ranks(artifact, prefill, artifact.machine)[0].cycles,
    }
