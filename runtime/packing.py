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
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def _permutation(step: Step, rank: int) -> Shape:
    perm = _integers(step, "perm") if step["op"] == "permute" else (*range(rank - 2), rank - 1, rank - 2)
    if rank < 2 and step["op"] == "transpose":
        raise _bad(f"a transpose needs two dimensions, the tensor has {rank}")
    if sorted(perm) != list(range(rank)):
        raise _bad(f"{list(perm)} is no permutation of the {rank} dimensions")
    return perm


def _step_shape(shape: Shape, step: Step) -> Shape:
    """The shape after one step."""
    op = step.get("op")
    if op == "cast":
        element_type(str(step.get("type")))
        return shape
    if op in ("permute", "transpose"):
        return tuple(shape[d] for d in _permutation(step, len(shape)))
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
        result = _step_shape(result, step)
    return result


def _pad(tensor: torch.Tensor, shape: Shape) -> torch.Tensor:
    padded = torch.zeros(shape, dtype=tensor.dtype)
    padded[tuple(slice(0, n) for n in tensor.shape)] = tensor
    return padded


def _apply(tensor: torch.Tensor, step: Step) -> torch.Tensor:
    shape = _step_shape(tuple(tensor.shape), step)
    if step["op"] == "pad":
        return _pad(tensor, shape)
    if step["op"] == "reshape":
        return tensor.reshape(shape)
    if step["op"] == "cast":
        return tensor.to(element_type(step["type"]).torch_type)
    return tensor.permute(_permutation(step, tensor.ndim))


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
        shapes.append(_step_shape(shapes[-1], step))
    for step, before in zip(reversed(recipe), reversed(shapes[:-1]), strict=True):
        if step["op"] == "pad":
            tensor = tensor[tuple(slice(0, n) for n in before)]
        elif step["op"] == "reshape":
            tensor = tensor.reshape(before)
        elif step["op"] != "cast":
            perm = _permutation(step, len(before))
            tensor = tensor.permute([perm.index(d) for d in range(len(perm))])
    return tensor.to(dtype).contiguous()


def rows_per_group(shape: Sequence[int], recipe: Recipe) -> int | None:
    """How many rows of the logical tensor make one index of the packed tensor's first dimension.

    None when a recipe mixes rows of different groups, so that the whole tensor must be packed at once.
    """
    current, rows = tuple(shape), 1
    if not current:
        return None
    for step in recipe:
        after = _step_shape(current, step)
        if step["op"] in ("permute", "transpose") and _permutation(step, len(current))[0] != 0:
            return None
        if step["op"] == "pad" and rows > 1 and after[0] != current[0]:
            return None  # whole groups of zeros have no rows to come from
        if step["op"] == "reshape":
            if not after or after[0] == 0 or current[0] % after[0]:
                return None
            rows *= current[0] // after[0]
        current = after
    return rows


def _group_recipe(shape: Sequence[int], recipe: Recipe) -> list[Step]:
    """The recipe that packs the rows of one group alone."""
    groups = packed_shape(shape, recipe)[0]
    current, steps = tuple(shape), list[Step]()
    for step in recipe:
        current = _step_shape(current, step)
        shaped = step["op"] in ("pad", "reshape")
        steps.append({**step, "shape": [current[0] // groups, *current[1:]]} if shaped else step)
    return steps


def pack_groups(
    read_rows: Callable[[int, int], torch.Tensor],
    shape: Sequence[int],
    recipe: Recipe,
    max_elements: int = 1 << 24,
) -> Iterator[torch.Tensor]:
    """Pack a tensor of ``shape`` a few groups at a time.

    Args:
        read_rows: reads rows ``start`` to ``stop`` (exclusive) of the logical tensor.
        shape: the logical tensor's shape.
        recipe: the packing recipe.
        max_elements: packed elements to hold at once, at least one group.

    Yields:
        Pieces whose concatenation along the first dimension is ``pack(tensor, recipe)``.
    """
    packed = packed_shape(shape, recipe)
    rows = rows_per_group(shape, recipe)
    if rows is None:
        yield pack(read_rows(0, shape[0] if shape else 1), recipe)
        return
    one_group = _group_recipe(shape, recipe)
    per_piece = max(1, max_elements // max(1, math.prod(packed[1:])))
    for start in range(0, packed[0], per_piece):
        count = min(per_piece, packed[0] - start)
        first, last = min(start * rows, shape[0]), min((start + count) * rows, shape[0])
        yield pack(read_rows(first, last), [_scale_first(step, count) for step in one_group])


def _scale_first(step: Step, count: int) -> Step:
    if "shape" not in step:
        return step
    return {**step, "shape": [step["shape"][0] * count, *step["shape"][1:]]}
