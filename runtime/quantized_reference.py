"""What a quantized checkpoint means, in plain float32: the oracle of `irc verify`.

Written from the formats alone, apart from the frontends: the values of a weight are its stored values times
its scales, and an input is rounded where the checkpoint holds its scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WEIGHT, WEIGHT_SCALE, INPUT_SCALE = ".weight", ".weight_scale", ".input_scale"
SCALES = (WEIGHT_SCALE, INPUT_SCALE)


def is_quantized(model: Path | str) -> bool:
    """Whether a checkpoint's configuration declares a quantization."""
    from transformers import AutoConfig

    return getattr(AutoConfig.from_pretrained(model), "quantization_config", None) is not None


def load_dequantized(folder: Path) -> nn.Module:
    """A quantized checkpoint as a float32 model that rounds inputs of layers as the checkpoint says."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    stored = read_tensors(folder)
    values = {name: dequantized(stored, name) for name in stored if not name.endswith(SCALES)}
    with torch.device("meta"):
        kind: Any = type(AutoModelForCausalLM.from_config(config))
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    model: nn.Module = kind.from_pretrained(None, config=config, state_dict=values, **options).eval()
    for name, scale in stored.items():
        if name.endswith(INPUT_SCALE):
            module = model.get_submodule(name.removesuffix(INPUT_SCALE))
            module.register_forward_pre_hook(_rounding(scale.float()))
    return model


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a directory, as safetensors reads them."""
    from safetensors.torch import load_file

    return {
        name: value
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def dequantized(stored: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor in float32: times its scale, if the checkpoint holds one."""
    value = stored[name].float()
    scale = stored.get(name.removesuffix(WEIGHT) + WEIGHT_SCALE) if name.endswith(WEIGHT) else None
    return value if scale is None else value * scale.float()


def _rounding(scale: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A hook that rounds a layer's input to float8_e4m3fn, saturating."""
    top = torch.finfo(torch.float8_e4m3fn).max

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        stored = (inputs[0] / scale).clamp(-top, top).to(torch.float8_e4m3fn)
        return (stored.float() * scale, *inputs[1:])

    return hook
