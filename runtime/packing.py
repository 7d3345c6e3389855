"""Packing recipes: how a logical tensor is laid out in a target's main memory, as data.

A recipe is a list of steps, applied in order; each is a dictionary with the key ``op``:

    {"op": "pad", "shape": [...]}        zeros at the high end of each dimension, up to the shape
    {"op": "reshape", "shape": [...]}    row-major
    {"op": "permute", "perm": [...]}     result dimension i is operand dimension perm[i]
    {"op": "transpose"}                  swaps the last two dimensions
    {"op": "cast", "type": "bf16"}       round to nearest even

The same list is the attribute of a ``tile.packed`` symbol (docs/design.md, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from npuc.ir.errors import UserError
from npuc.runtime.element_types import element_type

Step = Mapping[str, Any]
Recipe = Sequence[Step]
Shape = tuple[int, ...]


def _bad(message: str) -> UserError:
    return UserError("bad-recipe", message, where="packing recipe", remedy="correct the step in the IR")


def _integers(step: Step, key: str) -> Shape:
    value = step.get(key)
    numbers = cast("Sequence[object]", value) if isinstance(value, list | tuple) else ("none",)
    result = tuple(number for number in numbers if type(number) is int and number >= 0)
    if len(result) != len(numbers):
        raise _bad(f"step {step.get('op')!r} needs {key!r}, a list of integers, not {value!r}")
    return result


def permutation(step: Step, rank: int) -> Shape:
    """The dimensions that a permute or transpose of a tensor of ``rank`` takes, in order.

    Raises:
        UserError: ``bad-recipe`` when it does not apply.
    """
    perm = _integers(step, "perm") if step["op"] == "permute" else (*range(rank - 2), rank - 1, rank - 2)
    if rank < 2 and step["op"] == "transpose":
        raise _bad(f"a transpose needs two dimensions, the tensor has {rank}")
    if sorted(perm) != list(range(rank)):
        raise _bad(f"{list(perm)} is no permutation of the {rank} dimensions")
    return perm


def step_shape(shape: Shape, step: Step) -> Shape:
    """The shape after one step.

    Raises:
        UserError: ``bad-recipe`` when it does not apply.
    """
    op = step.get("op")
    if op == "cast":
        element_type(str(step.get("type")))
        return shape
    if op in ("permute", "transpose"):
        return tuple(shape[d] for d in permutation(step, len(shape)))
    if op not in ("pad", "reshape"):
        raise _bad(f"there is no step called {op!r}")
    new = _integers(step, "shape")
    if op == "reshape" and math.prod(new) != math.prod(shape):
        raise _bad(f"cannot reshape {list(shape)} to {list(new)}: the element counts differ")
    if op == "pad" and (len(new) != len(shape) or any(n < o for n, o in zip(new, shape, strict=True))):
        raise _bad(f"cannot pad {list(shape)} to {list(new)}")
    return new


def packed_shape(shape: Sequence[int], recipe: Recipe) -> Shape:
    """The shape of a tensor of ``shape`` after ``recipe``.

    Raises:
        UserError: ``bad-recipe`` when a step does not apply.
    """
    result = tuple(shape)
    for step in recipe:
        result = step_shape(result, step)
    return result


def _pad(tensor: torch.Tensor, shape: Shape) -> torch.Tensor:
    padded = torch.zeros(shape, dtype=tensor.dtype)
    padded[tuple(slice(0, n) for n in tensor.shape)] = tensor
    return padded


def _apply(tensor: torch.Tensor, step: Step) -> torch.Tensor:
    shape = step_shape(tuple(tensor.shape), step)
    if step["op"] == "pad":
        return _pad(tensor, shape)
    if step["op"] == "reshape":
        return tensor.reshape(shape)
    if step["op"] == "cast":
        return tensor.to(element_type(step["type"]).torch_type)
    return tensor.permute(permutation(step, tensor.ndim))


def pack(tensor: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Lay ``tensor`` out as ``recipe`` says; the result is contiguous.

    Raises:
        UserError: ``bad-recipe`` when a step does not apply.
    """
    for step in recipe:
        tensor = _apply(tensor, step)
    return tensor.contiguous()


def unpack(tensor: torch.Tensor, recipe: Recipe, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """The logical tensor of ``shape`` and ``dtype`` that ``recipe`` packed into ``tensor``.

    The inverse of :func:`pack` up to the rounding of a cast; padding is dropped.
    """
    shapes = [tuple(shape)]
    for step in recipe:
        shapes.append(step_shape(shapes[-1], step))
    for step, before in zip(reversed(recipe), reversed(shapes[:-1]), strict=True):
        if step["op"] == "pad":
            tensor = tensor[tuple(slice(0, n) for n in before)]
        elif step["op"] == "reshape":
            tensor = tensor.reshape(before)
        elif step["op"] != "cast":
            perm = permutation(step, len(before))
            tensor = tensor.permute([perm.index(d) for d in range(len(perm))])
    return tensor.to(dtype).contiguous()
