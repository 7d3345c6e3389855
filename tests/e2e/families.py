"""Families of models with random weights, small and of every shape that the importer knows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import transformers

SMALL = {
    "vocab_size": 131, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None, "attention_dropout": 0.0,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama3-rope": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
            }
        },
    ),
    "yarn": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "mistral-sliding": ("MistralConfig", {"sliding_window": 7, "head_dim": 12}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2-sliding": (
        "Qwen2Config", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "gemma": ("GemmaConfig", {"head_dim": 8}),
    "gemma2": ("Gemma2Config", {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 9}),
    "gemma3": (
        "Gemma3TextConfig", {"head_dim": 8, "sliding_window": 6, "num_hidden_layers": 7},
    ),
    "phi3": ("Phi3Config", {}),
    "phi3-partial": (
        "Phi3Config", {"rope_parameters": {
            "rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}},
    ),
    "phi3-longrope": (
        "Phi3Config",
        {
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 100.0, "short_factor": [1.0, 1.1, 1.3, 1.7],
                "long_factor": [1.5, 2.0, 3.0, 4.0], "original_max_position_embeddings": 16, "factor": 4.0,
            },
        },
    ),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "gpt2-scaled": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64,
         "scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False},
    ),
    "olmo2": ("Olmo2Config", {}),
    "exaone4": (
        "Exaone4Config", {"sliding_window": 6, "sliding_window_pattern": 4, "head_dim": 8},
    ),
    "starcoder2": ("Starcoder2Config", {"sliding_window": 6, "use_bias": True}),
    "gpt-neox": ("GPTNeoXConfig", {"rotary_pct": 0.5}),
    "gpt-neox-sequential": ("GPTNeoXConfig", {"use_parallel_residual": False}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "mlp_only_layers": [0]},
    ),
    "deepseek-v3": (
        "DeepseekV3Config",
        {
            "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2,
            "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_shared_experts": 1,
            "q_lora_rank": 12, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
            "v_head_dim": 6, "num_key_value_heads": 4,
        },
    ),
    "opt": (
        "OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 32},
    ),
    "gpt-oss": (
        "GptOssConfig",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 6},
    ),
    "falcon": ("FalconConfig", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "codegen": ("CodeGenConfig", {"n_embd": 32, "n_head": 4, "n_layer": 2, "rotary_dim": 4, "n_ctx": 64}),
    "gptj": ("GPTJConfig", {"n_embd": 32, "n_head": 4, "n_layer": 2, "rotary_dim": 4, "n_positions": 64}),
    "phi": ("PhiConfig", {"partial_rotary_factor": 0.5}),
    "cohere": ("CohereConfig", {}),
    "granite": ("GraniteConfig", {"embedding_multiplier": 3.0, "residual_multiplier": 0.5}),
    "stablelm": ("StableLmConfig", {}),
    "smollm3": ("SmolLM3Config", {"no_rope_layer_interval": 2}),
}  # fmt: skip


def save_random(config_name: str, options: dict[str, Any], folder: Path) -> None:
    """Saves a model of random weights, biases and norm weights among them."""
    config_class = getattr(transformers, config_name)
    common = {k: v for k, v in SMALL.items() if config_name != "GPT2Config" or "size" not in k}
    if config_name == "GPT2Config":
        common = {"vocab_size": 131, "bos_token_id": 0, "eos_token_id": 1}
    config = config_class(**(common | copy.deepcopy(options)))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "embed" not in name and "wte" not in name and "wpe" not in name:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    model.save_pretrained(folder)
