"""Imported models compute what transformers computes; families of random models are in test_families.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from imported import TOLERANCE, check_import, relative_error
from npuc.frontends.transformers_export import import_model
from npuc.frontends.weight_reader import WeightReader
from npuc.ir import graph
from npuc.ir.interpret import Caches, Runtime, interpret
from npuc.tools import irc
from xdsl.ir import Operation

SHARED = Path(__file__).parents[3] / "shared" / "models"
CAUSAL = ["stories260K", "stories3M", "tiny-qwen3", "tiny-gemma3", "micro_lm_pro", "gpt_nano_sort"]


@pytest.mark.parametrize("name", CAUSAL)
def test_trained_models(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not there")
    check_import(import_model(SHARED / name), SHARED / name)


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


def test_other_models_stop_before_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of images is imported and optimized; there are no buckets to compile it for."""
    options = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(**options, image_size=8, patch_size=4, num_channels=1)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "model")
    words = ["compile", str(tmp_path / "model"), "-t", "rngd"]
    capsys.readouterr()
    assert irc.main([*words, "--compile-to", "quantize"]) == 0
    assert "graph.attention" in capsys.readouterr().out
    assert irc.main([*words, "-o", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "a vit model has no context length" in line
    assert not (tmp_path / "out").exists()
