"""A model of two layers, made in no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def tiny_llama(folder: Path) -> Path:
    """A Llama with random weights, as a checkpoint."""
    tiny_model().save_pretrained(folder)
    return folder


def tiny_model() -> Any:
    """The same in transformers."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=67, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, bos_token_id=0,
        eos_token_id=1, pad_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)
