"""Greedy decoding on the simulator beside transformers' `generate`: run with --benchmark-enable.

The two of a group run on the same machine with one thread each, in turns: before each round of one there is
a round of the other, which is not timed. The figure is seconds for TOKENS tokens, its minimum the one that
other processes disturb least; `extra_info` holds the smallest CPU time, which they disturb less.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import torch
from npuc.passes.buckets import parse_bucket
from npuc.passes.compile import compile as compile_to
from npuc.runtime.llm import LLM
from npuc.runtime.sampling import SamplingParams
from npuc.tools.random_checkpoint import write_random_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

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

    @cached_property
    def model(self) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=self.dtype)

    def simulated(self) -> list[int]:
        """The tokens that the simulator generates."""
        params = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True)
        return self.llm.generate([PROMPT], params)[0].token_ids

    def reference(self) -> list[int]:
        """The tokens that transformers generates."""
        prompt = torch.tensor([PROMPT])
        options = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}
        found = self.model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        return found[0, len(PROMPT) :].tolist()


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
    measure(benchmark, case.simulated, case.reference, case.checkpoint.name)


def test_transformers(benchmark: Any, case: Case) -> None:
    measure(benchmark, case.reference, case.simulated, case.checkpoint.name)


def measure(benchmark: Any, own: Callable[[], list[int]], other: Callable[[], list[int]], group: str) -> None:
    """Time rounds of one, each behind a round of the other."""
    seconds: list[float] = []

    def timed() -> list[int]:
        start = process_time()
        found = own()
        seconds.append(process_time() - start)
        return found

    def between() -> None:
        other()

    benchmark.group = group
    found = benchmark.pedantic(timed, setup=between, rounds=8, warmup_rounds=1)
    benchmark.extra_info["cpu_seconds"] = min(seconds)
    assert len(found) == TOKENS
