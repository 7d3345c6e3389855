"""Greedy decoding on the simulator beside transformers' `generate`: run with --benchmark-enable.

The two of a group run on the same machine one after the other, with one thread each; the figure is seconds
for TOKENS tokens, its minimum the one that other processes disturb least.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from npuc.passes.buckets import parse_bucket
from npuc.passes.compile import compile as compile_to
from npuc.runtime.llm import LLM
from npuc.runtime.sampling import SamplingParams
from npuc.tools.random_checkpoint import write_random_checkpoint

TOKENS = 32
PROMPT = [1, 5, 9, 11]
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 768,
    "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12,
    "vocab_size": 16000, "max_position_embeddings": 2048, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "dtype": "bfloat16",
}  # fmt: skip


@dataclass
class Case:
    """A checkpoint and what it was compiled to."""

    checkpoint: Path
    llm: LLM
    dtype: torch.dtype


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["stories3M-f32", "llama100M-bf16"])
def case(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    if not request.config.getoption("--benchmark-enable"):
        pytest.skip("measures; give --benchmark-enable")
    folder = tmp_path_factory.mktemp("generation")
    dtype = "bfloat16" if request.param.endswith("bf16") else "float32"
    if dtype == "float32":
        checkpoint = request.getfixturevalue("shared") / "models" / "stories3M"
    else:
        checkpoint = folder / "checkpoint"
        (folder / "config.json").write_text(json.dumps(CONFIG))
        write_random_checkpoint(folder / "config.json", checkpoint)
    buckets = [parse_bucket("prefill", "1x16"), parse_bucket("decode", "1x64")]
    compile_to(checkpoint, folder / "artifact", target="rngd", dtype=dtype, buckets=buckets)
    return Case(checkpoint, LLM(folder / "artifact"), torch.float32 if dtype == "float32" else torch.bfloat16)


def test_simulator(benchmark: Any, case: Case) -> None:
    benchmark.group = case.checkpoint.name
    params = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True)
    found = benchmark.pedantic(case.llm.generate, ([PROMPT], params), rounds=8, warmup_rounds=1)
    assert len(found[0].token_ids) == TOKENS


def test_transformers(benchmark: Any, case: Case) -> None:
    from transformers import AutoModelForCausalLM

    benchmark.group = case.checkpoint.name
    model: Any = AutoModelForCausalLM.from_pretrained(case.checkpoint, dtype=case.dtype)
    prompt = torch.tensor([PROMPT])
    options = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}

    def generate() -> torch.Tensor:
        return model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)

    found = benchmark.pedantic(generate, rounds=8, warmup_rounds=1)
    assert found.shape[1] == len(PROMPT) + TOKENS
