"""Checks of imported modules against transformers: prefill, chunked extension and decode with a cache."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from npuc.frontends.weight_reader import WeightReader
from npuc.ir.interpret import Caches, Runtime, interpret
from xdsl.dialects.builtin import ModuleOp

TOLERANCE = 1e-4  # of the largest logit


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


class Imported:
    """An imported model and its reference."""

    def __init__(self, module: ModuleOp, folder: Path, rows: int = 2) -> None:
        self.module = module
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


def check_import(module: ModuleOp, folder: Path) -> None:
    """Compares what a module of phase `import` computes with transformers, in one piece and in several."""
    imported = Imported(module, folder)
    assert relative_error(imported.prefill(), imported.logits) <= TOLERANCE
    assert relative_error(imported.chunked(), imported.chunked_reference()) <= TOLERANCE
