"""Which tensors of a checkpoint make which parameter: transformers' own renamings and conversions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from npuc.frontends.safetensors import TensorSource
from npuc.frontends.weights import source_attr
from npuc.ir.errors import UserError
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from xdsl.dialects.builtin import DictionaryAttr

Recipe = tuple[DictionaryAttr, tuple[int, ...]]


def parameter_recipes(model: nn.Module, tensors: Mapping[str, TensorSource], where: str) -> dict[str, Recipe]:
    """For each parameter that the checkpoint holds: its recipe and the recipe's shape.

    Raises:
        UserError: when a conversion has no recipe.
    """
    transforms = get_model_conversion_mapping(model)  # pyright: ignore[reportArgumentType]
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    state: dict[str, torch.Tensor] = dict(model.state_dict())
    prefix = getattr(model, "base_model_prefix", None)
    recipes: dict[str, Recipe] = {}
    for name, source in tensors.items():
        target, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if pattern is not None and target in state:
            raise UserError(
                "unsupported-conversion",
                f"the tensor {name} becomes {target} by a conversion that has no recipe",
                where=where,
                remedy="add the conversion to frontends/weight_names.py",
            )
        recipes[target] = source_attr(source), source.shape
    return recipes
