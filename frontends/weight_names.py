"""Which tensors of a checkpoint make which parameter: transformers' own renamings and conversions."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from npuc.frontends.recipe_tensor import RecipeTensor
from npuc.frontends.recipes import source_attr
from npuc.frontends.safetensors import DTYPES, TensorSource
from npuc.ir.errors import UserError
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)
from xdsl.dialects.builtin import DictionaryAttr

Recipe = tuple[DictionaryAttr, tuple[int, ...]]


def parameter_recipes(model: nn.Module, tensors: Mapping[str, TensorSource], where: str) -> dict[str, Recipe]:
    """For each parameter that the checkpoint holds: its recipe and the recipe's shape.

    Follows `convert_and_load_state_dict_in_model` of transformers, on tensors without values.

    Raises:
        UserError: when a conversion fails or has no recipe.
    """
    transforms = get_model_conversion_mapping(model)  # pyright: ignore[reportArgumentType]
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    by_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
    state = dict(model.state_dict(keep_vars=True))  # detaching fake tensors takes time
    prefix: Any = getattr(model, "base_model_prefix", None)
    recipes: dict[str, Recipe] = {}
    conversions: dict[str, WeightConverter] = {}
    for name in sorted(tensors, key=dot_natural_key):
        source = tensors[name]
        target, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if target not in state and name in state:
            target, pattern = rename_source_key(name, [], [], prefix, state)
        if pattern is None:
            recipes[target] = source_attr(source), source.shape
        elif target in state:
            conversion = conversions.setdefault(target, deepcopy(by_pattern[pattern]))
            conversion.add_tensor(target, name, pattern, _tensor(source, where))
    for target, conversion in conversions.items():
        recipes |= _converted(model, target, conversion, where)
    return recipes


def _tensor(source: TensorSource, where: str) -> Any:
    dtype = DTYPES[source.dtype][1]
    if dtype is None:
        message = f"tensors of type {source.dtype} cannot be converted"
        raise UserError("unknown-dtype", message, where=f"{where}: {source.file}")
    return RecipeTensor(source_attr(source), source.shape, dtype)


def _converted(model: nn.Module, target: str, conversion: WeightConverter, where: str) -> dict[str, Recipe]:
    """The parameters that one conversion gives."""
    results: dict[str, Any]
    try:
        results = conversion.convert(target, model=model, config=model.config)
    except UserError:
        raise
    except Exception as error:  # whatever a conversion raises on a checkpoint that it does not fit
        message = f"the tensors of {target} cannot be converted: {type(error).__name__}: {error}"
        remedy = "the checkpoint is incomplete or of another model"
        raise UserError("bad-conversion", " ".join(message.split()), where=where, remedy=remedy) from error
    tensors = {name: x[0] if isinstance(x, list) else x for name, x in results.items()}
    return {name: (x.recipe, tuple(x.shape)) for name, x in tensors.items()}
