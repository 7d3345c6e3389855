"""Writes a checkpoint in AutoFP8's static layout from one in floats.

Every linear layer but those ignored gets `weight` in float8_e4m3fn, and `weight_scale` and `input_scale`, one
number each: the largest magnitude ÷ 448. Of inputs it is the largest that the layer sees on some documents.
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
    inputs = _largest_inputs(model, layers, documents)
    tensors = _kept(model)
    for path, layer in layers.items():
        tensors |= _quantized(path, layer.weight, inputs[path])
    output.mkdir(parents=True)
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    method = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": list(ignored)}
    text = json.dumps({**config, "quantization_config": method}, indent=2)
    (output / "config.json").write_text(text + "\n")
    for file in (file for pattern in KEPT_FILES for file in sorted(source.glob(pattern))):
        shutil.copyfile(file, output / file.name)
    return list(layers)


def _chosen(model: nn.Module, ignored: Sequence[str]) -> dict[str, nn.Linear]:
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(fnmatchcase(path, name) for name in ignored)
    }


def _kept(model: Any) -> dict[str, Tensor]:
    """The parameters of the model, tied ones once."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def _largest_inputs(
    model: Any, layers: dict[str, nn.Linear], documents: Iterable[Sequence[int]]
) -> dict[str, Tensor]:
    """The largest magnitude that enters each layer."""
    found = {path: torch.tensor(0.0) for path in layers}

    def watching(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[path] = torch.maximum(found[path], args[0].abs().max())

        return hook

    hooks = [layer.register_forward_pre_hook(watching(path)) for path, layer in layers.items()]
    for tokens in documents:
        model(torch.tensor([list(tokens)]), use_cache=False)
    for handle in hooks:
        handle.remove()
    return found


def _quantized(path: str, weight: Tensor, largest_input: Tensor) -> dict[str, Tensor]:
    scale, input_scale = (torch.clamp(x / LARGEST, min=TINY) for x in (weight.abs().max(), largest_input))
    stored = (weight / scale).clamp(-LARGEST, LARGEST).to(FLOAT8)
    return {
        f"{path}.weight": stored,
        f"{path}.weight_scale": scale.reshape(()),
        f"{path}.input_scale": input_scale.reshape(()),
    }
