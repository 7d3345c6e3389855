"""Imported models compute what transformers computes: prefill, chunked extension and decode with a cache."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
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


@pytest.mark.parametrize("family", FAMILIES)
def test_random_models(family: str, tmp_path: Path) -> None:
    save_random(*FAMILIES[family], tmp_path)
    check(tmp_path)
