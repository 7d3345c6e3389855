"""What compiling costs with the size and depth of a model: run with --benchmark-enable.

`test_large_checkpoint` compiles a checkpoint of the shape of Llama 3.2 1B in a process of its own: look at
``peak_rss_bytes`` and ``emit_seconds`` of its extra information, and at the plain copy of the checkpoint
beside it. It needs about 8 GB of disk. `test_depth` compares 64 layers with 4, and 60 of Gemma 3 (five local
layers, then a global one) with 12: ``seconds_without_weights``, and the processor's time with them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pytest
from npuc.passes.buckets import parse_bucket
from npuc.passes.compile import compile as compile_to
from npuc.runtime.weight_packing import ModuleWeights
from npuc.tools.random_checkpoint import write_random_checkpoint

LARGE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048,
    "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3",
    },
    "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 128000, "eos_token_id": 128001,
    "dtype": "bfloat16",
}  # fmt: skip
SMALL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
    "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 4096,
    "max_position_embeddings": 512, "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 1,
    "eos_token_id": 2, "dtype": "bfloat16",
}  # fmt: skip
DEPTHS = {
    "llama": (4, 64, SMALL),
    "gemma3": (12, 60, SMALL | {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "head_dim": 64,
        "sliding_window": 32, "hidden_activation": "gelu_pytorch_tanh",
    }),
}  # fmt: skip
BUCKETS = ["--prefill-buckets=1x16", "--decode-buckets=1x64"]
CHUNK = 16 << 20


@pytest.fixture(autouse=True, scope="module")
def _measures(request: pytest.FixtureRequest) -> None:  # pyright: ignore[reportUnusedFunction]
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("measures; give --benchmark-enable")


def checkpoint(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    write_random_checkpoint(folder / "config.json", folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("large"), LARGE)


def test_large_checkpoint(benchmark: Any, large: Path, tmp_path: Path) -> None:
    benchmark.group = "large"
    command = [sys.executable, "-m", "npuc.tools.irc", "compile", str(large), "--target=rngd", *BUCKETS]
    command += ["--dtype=bfloat16", "--json", "-o", str(tmp_path / "artifact")]

    def run() -> dict[str, Any]:
        return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=600).stdout)

    found = benchmark.pedantic(run, rounds=1)
    seconds = {phase["name"]: phase["seconds"] for phase in found["phases"]}
    benchmark.extra_info["peak_rss_bytes"] = found["peak_rss_bytes"]
    benchmark.extra_info["emit_seconds"] = seconds["emit"]
    assert found["weight_bytes"] > 2.4e9


def test_plain_copy(benchmark: Any, large: Path, tmp_path: Path) -> None:
    benchmark.group = "large"

    def run() -> None:
        with (tmp_path / "copy").open("wb", buffering=0) as out:
            for path in sorted(large.glob("*.safetensors")):
                with path.open("rb", buffering=0) as file:
                    while piece := file.read(CHUNK):
                        out.write(piece)
            os.fsync(out.fileno())

    benchmark.pedantic(run, rounds=1)


@pytest.mark.parametrize("family", DEPTHS)
@pytest.mark.parametrize("deep", [False, True])
def test_depth(
    benchmark: Any, family: str, deep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, config = DEPTHS[family][deep], DEPTHS[family][2]
    source = checkpoint(tmp_path, config | {"num_hidden_layers": layers})
    buckets = [parse_bucket("prefill", "1x16"), parse_bucket("decode", "1x64")]
    writing, computing = list[float](), list[float]()
    write = ModuleWeights.write

    def timed(weights: ModuleWeights, writer: Any) -> None:
        start = perf_counter()
        write(weights, writer)
        writing.append(perf_counter() - start)

    monkeypatch.setattr(ModuleWeights, "write", timed)

    def run() -> dict[str, Any]:
        start = process_time()
        found = compile_to(source, tmp_path / "artifact", target="rngd", dtype="bfloat16", buckets=buckets)
        computing.append(process_time() - start)
        return found

    found = benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    benchmark.group = f"depth of {family}"
    benchmark.extra_info["layers"] = layers
    benchmark.extra_info["program_bytes"] = found["program_bytes"]
    benchmark.extra_info["processor_seconds"] = min(computing)
    benchmark.extra_info["seconds_without_weights"] = min(
        total - part for total, part in zip(benchmark.stats.stats.data, writing[1:], strict=True)
    )
