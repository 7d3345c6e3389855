"""Small artifacts for the tests: real manifests, weights and model files, and programs that nothing runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import torch
from npuc.runtime.artifact import program_file, rank_file
from npuc.runtime.artifact_writer import ArtifactWriter
from npuc.runtime.llm import LLM
from npuc.runtime.manifest import (
    Cache,
    IoTensor,
    Manifest,
    Program,
    RankWeights,
    Region,
    Source,
    WeightPlacement,
)
from npuc.runtime.weights import TensorPlan

Bucket = tuple[str, int, int, int]
"""Kind, batch, new tokens, attention length."""

PLAN = (TensorPlan("layers#0", "f32", (2, 8, 8)), TensorPlan("head#0", "bf16", (5,)))
MEMORY = {
    "weights": Region(0, 4096),
    "cache": Region(4096, 4096),
    "io": Region(8192, 1 << 24),
    "scratch": Region(1 << 30, 64),
}


def program(bucket: Bucket, vocab_size: int) -> Program:
    """The manifest entry of a bucket's program."""
    kind, batch, new_tokens, length = bucket
    sizes = {"prefill": f"{batch}x{length}", "decode": f"{batch}x{length}"}
    name = f"{kind}_{sizes.get(kind, f'{batch}x{new_tokens}x{length}')}"
    io = {
        "tokens": IoTensor(8192, (batch, new_tokens), "i32"),
        "logits_last": IoTensor(65536, (batch, vocab_size), "f32"),
        "logits_all": IoTensor(131072, (batch * new_tokens, vocab_size), "f32"),
    }
    return Program(name, kind, batch, length, new_tokens, program_file(name), ("last", "all"), io)


def manifest(buckets: Iterable[Bucket], vocab_size: int, slots: int, header_sha256: str) -> Manifest:
    """A consistent manifest for PLAN and the buckets."""
    programs = tuple(program(bucket, vocab_size) for bucket in buckets)
    placements = (WeightPlacement("layers#0", 0, count=2, stride=1024), WeightPlacement("head#0", 2048))
    return Manifest(
        npuc="0.1.0",
        target="toy",
        dtype="f32",
        source=Source("model", "LlamaForCausalLM", "0" * 64, ()),
        recipe=None,
        vocab_size=vocab_size,
        max_context=max((p.length for p in programs), default=1),
        slots=slots,
        buckets={},
        memory=MEMORY,
        programs=programs,
        caches=(Cache("cache0", (0, 1), 2, 4, 4, "f32", 4096, 4096),),
        weights=(RankWeights(0, rank_file(0), header_sha256, placements),),
    )


def weight_values() -> dict[str, torch.Tensor]:
    """The tensors of PLAN."""
    return {
        "layers#0": torch.arange(128.0).reshape(2, 8, 8),
        "head#0": torch.tensor([1.0, -2.0, 3.5, 0.0, 1e30]).bfloat16(),
    }


def write_artifact(
    path: Path, model: Path | None, buckets: Iterable[Bucket], *, vocab_size: int = 32, slots: int = 4
) -> Path:
    """Writes an artifact with the model files of ``model`` and a program of arbitrary bytes per bucket."""
    buckets = list(buckets)
    with ArtifactWriter(path) as writer:
        weights = writer.weights(PLAN)
        for name, tensor in weight_values().items():
            weights.write(name, tensor.split(1))
        result = manifest(buckets, vocab_size, slots, weights.close())
        for entry in result.programs:
            writer.add_program(entry.name, f"program {entry.name}".encode())
        if model is not None:
            writer.copy_model_files(model)
        writer.finish(result)
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 32 tokens with 64 positions, without tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.5,
        eos_token_id=2,
    )
    path = tmp_path_factory.mktemp("model") / "tiny-llama"
    LlamaForCausalLM(config).save_pretrained(path)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3]}))
    return path


@pytest.fixture
def small_artifact(tmp_path: Path, tiny_model: Path) -> Path:
    """An artifact with one prefill and one decode bucket."""
    return write_artifact(tmp_path / "out", tiny_model, [("prefill", 1, 8, 8), ("decode", 1, 1, 16)])


@pytest.fixture
def artifact_factory(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """Writes artifacts of given buckets, by default around the tiny model."""

    def make(*buckets: Bucket, model: Path = tiny_model, vocab_size: int = 32, slots: int = 4) -> Path:
        return write_artifact(tmp_path / "made", model, buckets, vocab_size=vocab_size, slots=slots)

    return make


class FakeDevice:
    """A device that runs transformers' own model over the tokens in each cache slot, checking every call.

    Attributes:
        calls: (program name, entry, valid row counts) of each run.
    """

    def __init__(self, model: Path, programs: Sequence[Program], vocab_size: int, slots: int = 4) -> None:
        from transformers import AutoModelForCausalLM

        self.programs = tuple(programs)
        self.slots = slots
        self.vocab_size = vocab_size
        self.calls: list[tuple[str, str, tuple[int, ...]]] = []
        self._model = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self._cache: list[list[int]] = [[] for _ in range(slots)]

    def forward(
        self,
        program: Program,
        tokens: torch.Tensor,
        slots: Sequence[int],
        positions: Sequence[int],
        valid: Sequence[int],
        entry: str = "last",
    ) -> torch.Tensor:
        assert program in self.programs
        assert tokens.shape == (program.batch, program.new_tokens)
        assert tokens.dtype == torch.int32
        assert len(slots) == len(positions) == len(valid) == program.batch
        active = [slot for slot, count in zip(slots, valid, strict=True) if count]
        assert len(set(active)) == len(active) > 0
        self.calls.append((program.name, entry, tuple(valid)))
        logits = torch.full((program.batch, program.new_tokens, self.vocab_size), torch.nan)
        for row, (slot, position, count) in enumerate(zip(slots, positions, valid, strict=True)):
            assert 0 <= slot < self.slots
            if count:
                assert count <= program.new_tokens
                assert position + count <= program.length
                assert position == 0 or program.kind != "prefill"
                assert position <= len(self._cache[slot]), "the cache has a gap"
                self._cache[slot][position:] = tokens[row, :count].tolist()
                logits[row, :count] = self._logits(self._cache[slot])[position:]
        if entry == "all":
            return logits
        last = torch.tensor([max(count - 1, 0) for count in valid])
        return logits[torch.arange(program.batch), last]

    @torch.no_grad()
    def _logits(self, tokens: list[int]) -> torch.Tensor:
        return self._model(torch.tensor([tokens])).logits[0]

    def seconds(self, program: Program, entry: str = "last") -> float:
        return 1.0 if program.kind == "decode" else 10.0


@pytest.fixture
def fake_llm(artifact_factory: Callable[..., Path], tiny_model: Path) -> Callable[..., LLM]:
    """Makes an LLM of given buckets on the fake device (``llm.device``)."""

    def make(*buckets: Bucket, model: Path = tiny_model, vocab_size: int = 32, slots: int = 4) -> LLM:
        path = artifact_factory(*buckets, model=model, vocab_size=vocab_size, slots=slots)
        programs = [program(bucket, vocab_size) for bucket in buckets]
        return LLM(path, device=FakeDevice(model, programs, vocab_size, slots))

    return make
