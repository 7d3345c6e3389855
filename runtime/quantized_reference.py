"""What a quantized artifact stands for, in transformers: the oracle of `irc verify`.

Written from the formats alone, apart from the frontends and passes: the values of a weight are its stored
values times its scales; an input is rounded where the checkpoint holds its scale. Quantized layers multiply
in float32 (a model in float64: in that) and round the result once, whatever the type of the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from npuc.ir.errors import UserError
from torch import Tensor, nn
from torch.nn.functional import linear

WEIGHT, WEIGHT_SCALE, INPUT_SCALE = ".weight", ".weight_scale", ".input_scale"
SCALES = (WEIGHT_SCALE, INPUT_SCALE)
LARGEST = torch.finfo(torch.float8_e4m3fn).max

Rounding = Callable[[str, Tensor], Tensor]
"""What a layer, named by its path, makes of its input, divided by its scale: values that it can store."""


def nearest(path: str, x: Tensor) -> Tensor:
    """The nearest values of float8_e4m3fn, in the type of ``x``."""
    return x.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).to(x.dtype)


def load_quantized(model: Path | str, dtype: torch.dtype, recipe: Mapping[str, Any]) -> nn.Module:
    """The model that an artifact stands for whose manifest has this recipe, in the artifact's type.

    Raises:
        UserError: ``bad-reference`` when the checkpoint is not what was compiled.
    """
    from npuc.frontends.checkpoint import open_checkpoint

    folder = open_checkpoint(model).root
    if recipe["checkpoint"]:
        reference = load_dequantized(folder, dtype, stored_products=True)
    else:
        reference = _load(folder, dtype)
    rounded = [entry for entry in recipe["weights"] if entry["by"] == "compile"]
    exact = _load(folder, torch.float32) if rounded else reference
    for entry in rounded:
        pattern = entry["name"].removesuffix(f"{WEIGHT}_{recipe['scheme']}")
        _round_weights(reference, exact, pattern, entry["layers"], str(model))
    return reference


def load_dequantized(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    *,
    stored_products: bool = False,
    rounding: Rounding = nearest,
) -> nn.Module:
    """A quantized checkpoint as a model in floats that rounds inputs of layers as the checkpoint says.

    Args:
        stored_products: multiply stored values, whose products are exact, and scale the sums; else multiply
            dequantized values, as transformers does, which rounds each of them first.
        rounding: of inputs.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    files = sorted(folder.glob("*.safetensors"))
    stored = {name: value for file in files for name, value in _read(file).items()}
    values = {name: dequantized(stored, name) for name in stored if not name.endswith(SCALES)}
    with torch.device("meta"):
        kind: Any = type(AutoModelForCausalLM.from_config(config))
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "eager"}
    model: nn.Module = kind.from_pretrained(None, config=config, state_dict=values, **options).eval()
    for name in stored:
        if name.endswith(WEIGHT_SCALE):
            path = name.removesuffix(WEIGHT_SCALE)
            scale, input_scale = stored[name].float(), stored.get(path + INPUT_SCALE)
            weight, products = values[path + WEIGHT], None
            if stored_products and input_scale is not None:
                weight, products = stored[path + WEIGHT].float(), scale.reshape(-1) * input_scale
            _replace(model.get_submodule(path), weight, input_scale, products, partial(rounding, path))
    return model


def dequantized(stored: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor in float32: times its scale, if the checkpoint holds one."""
    value = stored[name].float()
    scale = stored.get(name.removesuffix(WEIGHT) + WEIGHT_SCALE) if name.endswith(WEIGHT) else None
    return value if scale is None else value * scale.float()


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def _load(folder: Path, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModelForCausalLM

    load = cast("Any", AutoModelForCausalLM).from_pretrained
    return load(folder, dtype=dtype, attn_implementation="eager").eval()


def _round_weights(
    model: nn.Module, exact: nn.Module, pattern: str, numbers: Sequence[int] | None, where: str
) -> None:
    """Rounds the weights of layers to 127 steps of each output's largest magnitude; ``{}`` is a number.

    Args:
        model: whose layers are replaced.
        exact: the same in float32, with the values of the checkpoint.
        numbers: what the first may be; any without.
    """
    first = r"\d+" if numbers is None else f"(?:{'|'.join(map(str, numbers))})"
    path = re.escape(pattern).replace(re.escape("{}"), first, 1).replace(re.escape("{}"), r"\d+")
    held = {name: getattr(module, "weight", None) for name, module in exact.named_modules()}
    weights = [id(weight) for name, weight in held.items() if weight is not None and re.fullmatch(path, name)]
    # The head may share the embedding's weight, and is then called by that name; the embedding stays.
    sharing = [name for name, weight in held.items() if id(weight) in weights]
    layers = [name for name in sharing if not isinstance(exact.get_submodule(name), nn.Embedding)]
    if not layers:
        message = f"the reference has no linear layer {pattern}, whose weight the artifact has rounded"
        raise UserError("bad-reference", message, where=where, remedy="give the checkpoint that was compiled")
    for name in layers:
        layer: Any = exact.get_submodule(name)
        weight = layer.weight.detach()
        weight = weight.T if type(layer).__name__ == "Conv1D" else weight  # which has [inputs, outputs]
        scale = weight.abs().amax(1, keepdim=True) / 127
        rounded = torch.where(scale > 0, (weight / scale).round() * scale, weight)
        _replace(model.get_submodule(name), rounded, None)


def _replace(
    layer: nn.Module,
    weight: Tensor,
    input_scale: Tensor | None,
    scale: Tensor | None = None,
    rounding: Callable[[Tensor], Tensor] = partial(nearest, ""),
) -> None:
    """Lets a linear layer multiply by these values, its input rounded by a scale if there is one.

    With ``scale`` the weight is as it is stored, and so is the input; their products are scaled.
    """
    bias: Any = layer.bias
    own: Any = layer.weight
    wide = torch.promote_types(own.dtype, torch.float32)
    added = None if bias is None else bias.detach().to(wide)
    by = None if input_scale is None else input_scale.to(wide)
    factor = None if scale is None else scale.to(wide)
    weight = weight.to(wide)

    def forward(x: Tensor) -> Tensor:
        if by is None:
            return linear(x.to(wide), weight, added).to(x.dtype)
        value = rounding(x.to(wide) / by)
        if factor is None:
            return linear(value * by, weight, added).to(x.dtype)
        products = linear(value, weight) * factor
        return (products if added is None else products + added).to(x.dtype)

    layer.forward = forward
