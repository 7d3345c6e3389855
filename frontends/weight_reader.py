"""Reads what recipes say from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, reduce
from pathlib import Path
from typing import Any, cast

import torch
from npuc.frontends.safetensors import TensorSource, read, read_rows
from npuc.ir.errors import UserError
from npuc.ir.graph import WeightOp, element_of, ints, static_shape
from npuc.ir.nquant import SchemeAttr
from npuc.ir.nquant_kernels import choose_parameters, quantize
from npuc.ir.torch_types import torch_type
from torch import Tensor
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, StringAttr
from xdsl.ir import Attribute


class WeightReader:
    """Reads the tensors of weight symbols from a checkpoint, one at a time.

    Args:
        root: the checkpoint's directory.
        keep: hold what was read in memory, for repeated runs of small models.
        rank: whose share of shared weights is read.
    """

    def __init__(self, root: Path | str, *, keep: bool = False, rank: int = 0) -> None:
        self.root = Path(root)
        self.rank = rank
        self._kept: dict[tuple[DictionaryAttr, Attribute], Tensor] | None = {} if keep else None

    def read(self, weight: WeightOp, layer: int | None = None) -> Tensor:
        """The values of a weight (of one model layer, if it is per layer) in the compile type."""
        layers = weight.layer_list
        source = weight.sources.data[0 if layers is None else layers.index(cast(int, layer))]
        key = (source, weight.type)
        if self._kept is not None and key in self._kept:
            return self._kept[key]
        values = self.evaluate(source).to(torch_type(element_of(weight.type)))
        expected = static_shape(weight.type)
        if tuple(values.shape) != expected:
            message = f"the recipe gives shape {list(values.shape)}, the type says {list(expected)}"
            raise UserError("shape-mismatch", message, where=f"graph.weight @{weight.sym_name.data}")
        if self._kept is not None:
            self._kept[key] = values
        return values

    def rows(self, weight: WeightOp, layer: int | None = None) -> Callable[[int, int], Tensor]:
        """The function that reads rows ``start`` to ``stop`` (exclusive) of a weight in the compile type.

        Of a byte range, or a slice of its rows, it reads those rows alone; else the whole weight, once.
        """
        layers, shape = weight.layer_list, static_shape(weight.type)
        source = weight.sources.data[0 if layers is None else layers.index(cast(int, layer))]
        found = self._row_range(source, shape) if shape and self._kept is None else None
        if found is not None:
            stored, first, dtype = *found, torch_type(element_of(weight.type))
            return lambda start, stop: read_rows(self.root, stored, first + start, first + stop).to(dtype)
        whole = cache(lambda: self.read(weight, layer))
        return lambda start, stop: whole()[start:stop] if shape else whole()

    def _row_range(self, source: DictionaryAttr, shape: tuple[int, ...]) -> tuple[TensorSource, int] | None:
        """The byte range that holds a recipe's rows one after the other, and which row is the first."""
        entries, first, rows = source.data, 0, shape[0]
        while _operation(entries) in ("slice", "shard") and _number(entries, "dim") == 0:
            if _operation(entries) == "slice":
                first, rows = first + _number(entries, "start"), 0  # how many there are is not known
            elif rows:
                first, rows = first + self.rank * rows, rows * _number(entries, "parts")
            else:
                return None
            entries = cast(DictionaryAttr, entries["source"]).data
        if "op" in entries:
            return None
        stored = self._range(entries)
        fits = stored.shape[1:] == shape[1:] and first + shape[0] <= stored.shape[0]
        return (stored, first) if fits else None

    def evaluate(self, source: DictionaryAttr) -> Tensor:
        """The values of a recipe, in the file's type."""
        entries: Any = source.data
        if "op" not in entries:
            return read(self.root, self._range(entries))
        op = entries["op"].data
        numbers = {k: v.value.data for k, v in entries.items() if isinstance(v, IntegerAttr)}
        if op in ("concat", "stack"):
            parts = [self.evaluate(part) for part in entries["sources"].data]
            return (torch.cat if op == "concat" else torch.stack)(parts, numbers["dim"])
        if op in ("iota", "dense"):
            return _computed(op, entries)
        if op == "mul":
            first, *others = (self.evaluate(part) for part in entries["sources"].data)
            return reduce(torch.mul, others, first)
        inner = self.evaluate(entries["source"])
        if op == "transpose":
            return inner.transpose(-1, -2).contiguous()
        if op == "slice":
            return inner.narrow(numbers["dim"], numbers["start"], numbers["stop"] - numbers["start"])
        if op == "shard":
            return inner.chunk(numbers["parts"], numbers["dim"])[self.rank]
        if op == "pad":
            return _padded(inner, numbers["dim"], numbers["size"])
        if op == "take":
            return _taken(inner, numbers["dim"], numbers["unit"], ints(entries["blocks"]))
        if op == "permute":
            return inner.permute(ints(entries["perm"])).contiguous()
        if op == "reshape":
            return inner.reshape(ints(entries["shape"]))
        if op in ("quantize", "scale"):
            return _quantized(op, inner, entries["scheme"])
        raise UserError("unknown-recipe", f"unknown weight recipe {op!r}")

    def _range(self, entries: Mapping[str, Any]) -> TensorSource:
        file = entries["file"].data
        if not file:
            remedy = "import the checkpoint with its weights"
            raise UserError("no-weights", "the module has no weights", where=str(self.root), remedy=remedy)
        if Path(file).name != file:
            raise UserError("bad-source", f"the source file {file!r} is not in the checkpoint's directory")
        shape = tuple(int(d) for d in ints(entries["shape"]))
        offset, size = entries["offset"].value.data, entries["bytes"].value.data
        return TensorSource(file, offset, size, entries["dtype"].data, shape)


def _quantized(op: str, values: Tensor, scheme: SchemeAttr) -> Tensor:
    """Stored values, or their scales, of weights that a scheme rounds to nearest."""
    scale, zero_point = choose_parameters(values, scheme)
    return scale if op == "scale" else quantize(values, scale, zero_point, scheme)


def _padded(values: Tensor, dim: int, size: int) -> Tensor:
    """A dimension made longer by zeros."""
    shape = (*values.shape[:dim], size - values.shape[dim], *values.shape[dim + 1 :])
    return torch.cat([values, values.new_zeros(shape)], dim)


def _taken(values: Tensor, dim: int, unit: int, blocks: Sequence[int]) -> Tensor:
    """Runs of `unit` elements of a dimension by number; zeros for a negative one."""
    empty = torch.zeros_like(values.narrow(dim, 0, unit))
    return torch.cat([empty if n < 0 else values.narrow(dim, n * unit, unit) for n in blocks], dim)


def _operation(entries: Mapping[str, Attribute]) -> str | None:
    return cast(StringAttr, entries["op"]).data if "op" in entries else None


def _number(entries: Mapping[str, Attribute], key: str) -> int:
    return cast("IntegerAttr[Any]", entries[key]).value.data


def _splat(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return values.expand(shape).clone() if values.numel() == 1 else values.reshape(shape)


def _computed(op: str, entries: Mapping[str, Any]) -> Tensor:
    """A table without a file: ``{op = "iota", shape, dim}`` or ``{op = "dense", shape, value}``."""
    shape = tuple(int(d) for d in ints(entries["shape"]))
    if op == "dense":
        return _splat(torch.tensor(list(entries["value"].get_values())), shape)
    dim = entries["dim"].value.data
    sizes = [shape[d] if d == dim else 1 for d in range(len(shape))]
    return torch.arange(shape[dim]).reshape(sizes).expand(shape).clone()
