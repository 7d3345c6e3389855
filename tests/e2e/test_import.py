"""Imported models compute what transformers computes: prefill, chunked extension and decode with a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from families import FAMILIES, save_random
from npuc.frontends.transformers_export import import_model
from npuc.frontends.weights import WeightReader
from npuc.ir import graph
from npuc.ir.interpret import Caches, Runtime, interpret
from xdsl.ir import Operation

SHARED = Path(__file__).parents[3] / "shared" / "models"
CAUSAL = ["stories260K", "stories3M", "tiny-qwen3", "tiny-gemma3", "micro_lm_pro", "gpt_nano_sort"]
TOLERANCE = 1e-4  # of the largest logit


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


class Imported:
    """An imported model and its reference."""

    def __init__(self, folder: Path, rows: int = 2) -> None:
        self.module = import_model(folder)
        self.weights = WeightReader(folder, keep=True)
        self.reference = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        config = self.reference.config.get_text_config()
        self.length = min(40, config.max_position_embeddings - 1)
        generator = torch.Generator().manual_seed(1)
        self.tokens = torch.randint(0, config.vocab_size, (rows, self.length), generator=generator)
        with torch.no_grad():
            self.logits = self.reference(self.tokens, use_cache=False).logits

    def step(self, caches: Caches, start: int, count: int, padding: int, ctx: int) -> torch.Tensor:
        """Logits of ``count`` tokens from ``start``, followed by padding that is not valid."""
        rows = self.tokens.shape[0]
        tokens = torch.full((rows, count + padding), 1, dtype=torch.int32)
        tokens[:, :count] = self.tokens[:, start : start + count]
        positions = torch.arange(start, start + count + padding, dtype=torch.int32).repeat(rows, 1)
        runtime = Runtime(list(reversed(range(rows))), [start] * rows, [count] * rows, ctx)
        (logits,) = interpret(self.module, [tokens, positions], self.weights, caches, runtime)
        return logits[:, :count]

    def prefill(self) -> torch.Tensor:
        caches = Caches.allocate(self.module, 2, self.length)
        return self.step(caches, 0, self.length, 0, self.length)

    @property
    def pieces(self) -> list[tuple[int, int, int, int]]:
        """A prefill with padding, an extension with padding, then one token at a time."""
        first = self.length // 3
        pieces = [(0, first, 2, first + 2), (first, first, 1, self.length)]
        return pieces + [(i, 1, 0, self.length + 2) for i in range(2 * first, self.length)]

    def chunked(self) -> torch.Tensor:
        caches = Caches.allocate(self.module, 3, self.length + 2)
        return torch.cat([self.step(caches, *piece) for piece in self.pieces], 1)

    def chunked_reference(self) -> torch.Tensor:
        """What transformers computes piece by piece, where that differs from one prefill (longrope)."""
        cache, parts = transformers.DynamicCache(config=self.reference.config), []
        for start, count, _, _ in self.pieces:
            tokens = self.tokens[:, start : start + count]
            with torch.no_grad():
                parts.append(self.reference(tokens, past_key_values=cache, use_cache=True).logits)
        return torch.cat(parts, 1)


def check(folder: Path) -> Imported:
    imported = Imported(folder)
    assert relative_error(imported.prefill(), imported.logits) <= TOLERANCE
    assert relative_error(imported.chunked(), imported.chunked_reference()) <= TOLERANCE
    return imported


@pytest.mark.parametrize("name", CAUSAL)
def test_trained_models(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not there")
    check(SHARED / name)


def test_intermediates_of_an_independent_implementation() -> None:
    """Every tensor that another implementation of this GPT-2 computed on three inputs."""
    folder, golden = SHARED / "gpt_nano_sort", SHARED.parent / "golden" / "gpt_nano_sort_partials.safetensors"
    if not golden.exists():
        pytest.skip(f"{golden} is not there")
    expected = safetensors.torch.load_file(golden)
    module = import_model(folder)
    seen: list[torch.Tensor] = []
    tokens = expected["idx"].to(torch.int32)
    rows, length = tokens.shape
    positions = torch.arange(length, dtype=torch.int32).repeat(rows, 1)
    runtime = Runtime(range(rows), [0] * rows, [length] * rows, length)
    caches = Caches.allocate(module, rows, length)
    interpret(
        module, [tokens, positions], WeightReader(folder), caches, runtime,
        observe=lambda op, layer, results: seen.extend(results),
    )  # fmt: skip

    def found(want: torch.Tensor) -> bool:
        same_size = [x.float() for x in seen if x.numel() == want.numel()]
        return any(
            float((x.reshape(want.shape) - want).abs().max()) <= 1e-4 * float(want.abs().max())
            for x in same_size
        )

    inside_attention = {"att", "attSm"}  # graph.attention has no such results
    outside_model = {"idx", "probs"}
    missing = [n for n, x in expected.items() if n not in inside_attention | outside_model and not found(x)]
    assert missing == []


def test_an_image_encoder() -> None:
    """A ViT without cache or mask: hidden states before the last norm, and the digits of its head."""
    folder, golden = SHARED / "vit_mnist", SHARED.parent / "golden" / "vit_mnist_first16.safetensors"
    if not golden.exists():
        pytest.skip(f"{golden} is not there")
    expected = safetensors.torch.load_file(golden)
    module = import_model(folder)
    hidden: list[torch.Tensor] = []

    def observe(op: Operation, layer: int | None, results: Sequence[torch.Tensor]) -> None:
        if isinstance(op, graph.LayersOp):
            hidden.extend(results)

    interpret(module, [expected["pixel_values"]], WeightReader(folder), observe=observe)
    assert relative_error(hidden[-1], expected["last_hidden_pre_norm"]) <= TOLERANCE
    head = safetensors.torch.load_file(folder / "head.safetensors")
    inner = torch.nn.functional.linear(hidden[-1][:, 0], head["fc1.weight"], head["fc1.bias"])
    logits = torch.nn.functional.linear(torch.nn.functional.gelu(inner), head["fc2.weight"], head["fc2.bias"])
    assert relative_error(logits, expected["logits"]) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_random_models(family: str, tmp_path: Path) -> None:
    save_random(*FAMILIES[family], tmp_path)
    check(tmp_path)
