"""Models on several cores: run with --benchmark-enable.

What is measured is how long the timing model takes; what it finds is in each benchmark's `extra_info`:
simulated cycles of a prefill and a decode step, and tokens per second. No weights are needed. Of trained
models the errors are those of `irc verify`, which are held to what one core is held to.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import npuc
import pytest
from npuc.passes.buckets import parse_bucket
from npuc.runtime.artifact import Artifact
from npuc.runtime.verify import verify
from npuc.tools.commands.profile import time_ranks
from npuc.tools.roofline import model_sizes, roofline_cycles, work_of

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 2048, "rope_theta": 500000.0,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "dtype": "bfloat16",
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "1B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "head_dim": 128,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
TRAINED = ("stories260K", "stories3M", "tiny-qwen3", "tiny-gemma3")
SEVERAL_CHIPS = tuple(product(("stories260K", "tiny-qwen3"), (16, 24, 32)))
FP32_ERROR = 1e-4
DOCUMENTS = 2


@pytest.fixture(autouse=True)
def _measuring(request: Any) -> None:  # pyright: ignore[reportUnusedFunction]
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("measures; give --benchmark-enable")


@pytest.mark.parametrize(("name", "ranks"), [*product(TRAINED, (2, 4, 8)), *SEVERAL_CHIPS])
def test_trained_models(benchmark: Any, shared: Path, tmp_path: Path, name: str, ranks: int) -> None:
    model, text = shared / "models" / name, shared / "text" / "tinystories_valid.txt"
    buckets = [parse_bucket("prefill", "1x64"), parse_bucket("decode", "1x128")]
    npuc.compile(model, tmp_path / "out", target="rngd", buckets=buckets, tensor_parallel=ranks)
    arguments = (tmp_path / "out", model, text)
    found = benchmark.pedantic(verify, arguments, {"max_documents": DOCUMENTS}, rounds=1)
    benchmark.extra_info |= {key: found[key] for key in ("max_rel_error", "positions", "cosine")}
    assert found["max_rel_error"] <= FP32_ERROR


@pytest.mark.parametrize(
    ("shape", "ranks"), [*product(["1B"], (1, 2, 4, 8)), *product(["8B"], (8, 16, 24, 32))]
)
def test_llama(benchmark: Any, shape: str, ranks: int, tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(LLAMA | SHAPES[shape]))
    buckets = [parse_bucket("prefill", "1x128"), parse_bucket("decode", "1x1024")]
    options: dict[str, Any] = {"dtype": "bfloat16", "weights": False, "tensor_parallel": ranks}
    npuc.compile(model, out, target="rngd", buckets=buckets, **options)
    artifact = Artifact(out)
    machine, (prefill, decode) = artifact.machine, artifact.manifest.programs
    found = benchmark.pedantic(time_ranks, (artifact, decode, machine), rounds=1)
    assert len(found) == ranks
    work = work_of(decode, model_sizes(artifact.model_path, artifact.manifest), artifact.manifest)
    chips = artifact.manifest.parallel.chips
    benchmark.extra_info |= {
        "decode_cycles": found[0].cycles,
        "decode_tokens_per_second": 1 / found[0].seconds,
        "of_roofline": found[0].cycles / roofline_cycles(work, machine, ranks),
        "link_bytes_of_a_chip": sum(timeline.link_bytes for timeline in found) // chips,
        "prefill_cycles": time_ranks(artifact, prefill, machine)[0].cycles,
    }
