"""Tensors that record how they are rearranged instead of having values.

transformers' own conversions of checkpoints run on them, and what results is a weight recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from npuc.frontends.recipes import recipe
from npuc.ir.errors import UserError
from torch import Tensor
from torch.utils._pytree import tree_map
from xdsl.dialects.builtin import DictionaryAttr


class RecipeTensor(Tensor):
    """A tensor of a shape and type, with the recipe of its values."""

    recipe: DictionaryAttr

    @staticmethod
    def __new__(
        cls: type[RecipeTensor], source: DictionaryAttr, shape: Sequence[int], dtype: torch.dtype
    ) -> RecipeTensor:
        made = torch.Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=dtype, device=torch.device("cpu"))
        made.recipe = source
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if name not in _RECIPES:
            raise UserError(
                "unsupported-conversion",
                f"a conversion of the checkpoint uses {name}, which has no recipe",
                remedy="add it to frontends/recipe_tensor.py",
            )
        meta_args, meta_kwargs = tree_map(_shape_only, (args, kwargs or {}))
        meta_kwargs.pop("device", None)
        results = func(*meta_args, **meta_kwargs)
        recipes = _RECIPES[name](results, args)
        if isinstance(results, Tensor):
            return RecipeTensor(recipes, results.shape, results.dtype)
        return [RecipeTensor(r, x.shape, x.dtype) for r, x in zip(recipes, results, strict=True)]


def _shape_only(value: Any) -> Any:
    is_recipe = isinstance(value, RecipeTensor)
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if is_recipe else value


def _same(result: Tensor, args: Any) -> DictionaryAttr:
    return args[0].recipe


def _reshape(result: Tensor, args: Any) -> DictionaryAttr:
    return recipe("reshape", args[0].recipe, shape=tuple(result.shape))


def _permute(result: Tensor, args: Any) -> DictionaryAttr:
    perm = [d % result.ndim for d in args[1]]
    return recipe("permute", args[0].recipe, perm=perm)


def _transpose(result: Tensor, args: Any) -> DictionaryAttr:
    perm = list(range(result.ndim))
    a, b = ((d % result.ndim) for d in (args[1:] or (0, 1)))
    perm[a], perm[b] = b, a
    return recipe("permute", args[0].recipe, perm=perm)


def _cat(result: Tensor, args: Any) -> DictionaryAttr:
    dim = (args[1] if len(args) > 1 else 0) % result.ndim
    return recipe("concat", [x.recipe for x in args[0]], dim=dim)


def _stack(result: Tensor, args: Any) -> DictionaryAttr:
    dim = (args[1] if len(args) > 1 else 0) % result.ndim
    return recipe("stack", [x.recipe for x in args[0]], dim=dim)


def _split(results: Sequence[Tensor], args: Any) -> list[DictionaryAttr]:
    dim = (args[2] if len(args) > 2 else 0) % args[0].ndim
    found: list[DictionaryAttr] = []
    start = 0
    for part in results:
        stop = start + part.shape[dim]
        found.append(recipe("slice", args[0].recipe, dim=dim, start=start, stop=stop))
        start = stop
    return found


def _slice(result: Tensor, args: Any) -> DictionaryAttr:
    padded: tuple[Any, ...] = (*args, *(0, 0, None, 1)[len(args) - 1 :])
    _, dim, start, _, step = padded
    if step != 1:
        raise UserError(
            "unsupported-conversion", f"a conversion of the checkpoint takes every {step}th element"
        )
    dim, size = dim % result.ndim, args[0].shape[dim]
    first = min(max((start or 0) + (size if (start or 0) < 0 else 0), 0), size)
    return recipe("slice", args[0].recipe, dim=dim, start=first, stop=first + result.shape[dim])


def _select(result: Tensor, args: Any) -> DictionaryAttr:
    source, dim, index = args
    dim, index = dim % source.ndim, index % source.shape[dim]
    part = recipe("slice", source.recipe, dim=dim, start=index, stop=index + 1)
    return recipe("reshape", part, shape=tuple(result.shape))


_RECIPES: dict[str, Callable[[Any, Any], Any]] = {
    "aten.clone.default": _same,
    "aten.detach.default": _same,
    "aten.alias.default": _same,
    "aten._to_copy.default": _same,
    "aten.view.default": _reshape,
    "aten._unsafe_view.default": _reshape,
    "aten.unsqueeze.default": _reshape,
    "aten.squeeze.dim": _reshape,
    "aten.squeeze.default": _reshape,
    "aten.permute.default": _permute,
    "aten.transpose.int": _transpose,
    "aten.t.default": _transpose,
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
}
