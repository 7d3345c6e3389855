"""Writes a checkpoint in AutoFP8's static layout from one in floats.

Every linear layer but those ignored gets `weight` in float8_e4m3fn, and `weight_scale` and `input_scale`, one
number each: the largest magnitude ÷ 448. Of inputs it is the largest that the layer sees on some documents,
in the model that will run: with rounded weights, and the layers before rounding their inputs, as AutoFP8
measures them, by the scale of the document at hand.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import torch
from npuc.ir.errors import UserError
from torch import Tensor, nn

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
TINY = torch.finfo(torch.float32).tiny
KEPT_FILES = ("tokenizer*", "generation_config.json", "special_tokens_map.json", "chat_template*", "vocab*")


@torch.no_grad()
def write_fp8(
    source: Path, output: Path, documents: Iterable[Sequence[int]], ignored: Sequence[str] = ("lm_head",)
) -> list[str]:
    """Quantizes the checkpoint of a directory into another one.

    Args:
        documents: tokens on which the largest inputs are measured.
        ignored: module paths, or patterns with ``*``, that stay as they are.

    Returns:
        The paths of the layers that were quantized.

    Raises:
        UserError: when the output is there already, or no layer is quantized.
    """
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    if output.exists():
        raise UserError("exists", "is there already", where=str(output), remedy="give another directory")
    load = cast("Any", AutoModelForCausalLM).from_pretrained
    model: Any = load(source, dtype=torch.float32, attn_implementation="eager").eval()
    layers = _chosen(model, ignored)
    if not layers:
        raise UserError("nothing-to-do", "every linear layer is ignored", where=str(source))
    tensors = _kept(model)
    for path, layer in layers.items():
        tensors |= _round_weight(path, layer)
    for path, largest in _largest_inputs(model, layers, documents).items():
        tensors[f"{path}.input_scale"] = _scale(largest)
    output.mkdir(parents=True)
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    left = [path for path, _ in _linear_layers(model) if path not in layers]
    method = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": left}
    text = json.dumps({**config, "quantization_config": method}, indent=2)
    (output / "config.json").write_text(text + "\n")
    for file in (file for pattern in KEPT_FILES for file in sorted(source.glob(pattern))):
        shutil.copyfile(file, output / file.name)
    return list(layers)


def _linear_layers(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]


def _chosen(model: nn.Module, ignored: Sequence[str]) -> dict[str, nn.Linear]:
    layers = _linear_layers(model)
    return {path: m for path, m in layers if not any(fnmatchcase(path, name) for name in ignored)}


def _kept(model: Any) -> dict[str, Tensor]:
    """The parameters of the model, tied ones once."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def _round_weight(path: str, layer: nn.Linear) -> dict[str, Tensor]:
    """A layer's stored weight and its scale; the layer goes on with what they stand for."""
    scale = _scale(layer.weight.abs().max())
    stored = _rounded(layer.weight, scale)
    # Not in place: a head may share the embedding's.
    layer.weight = nn.Parameter(stored.float() * scale, requires_grad=False)
    return {f"{path}.weight": stored, f"{path}.weight_scale": scale}


def _largest_inputs(
    model: Any, layers: dict[str, nn.Linear], documents: Iterable[Sequence[int]]
) -> dict[str, Tensor]:
    """The largest magnitude that enters each layer."""
    found = {path: torch.tensor(0.0) for path in layers}

    def watching(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            largest = args[0].abs().max()
            found[path] = torch.maximum(found[path], largest)
            return (_rounded(args[0], _scale(largest)).float() * _scale(largest),)

        return hook

    hooks = [layer.register_forward_pre_hook(watching(path)) for path, layer in layers.items()]
    for tokens in documents:
        model(torch.tensor([list(tokens)]), use_cache=False)
    for handle in hooks:
        handle.remove()
    return found


def _scale(largest: Tensor) -> Tensor:
    return torch.clamp(largest / LARGEST, min=TINY)


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    return (x / scale).clamp(-LARGEST, LARGEST).to(FLOAT8)
