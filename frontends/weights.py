"""Weights as symbols: which byte ranges make which parameter, and reading them.

A *recipe* is a source dictionary ``{file, offset, bytes, dtype, shape}`` or an operation on recipes:
``{op = "transpose", source}`` (the last two dimensions), ``{op = "permute", perm, source}``,
``{op = "reshape", shape, source}``, ``{op = "slice", dim, start, stop, source}``,
``{op = "concat" | "stack", dim, sources}``, ``{op = "pad", dim, size, source}`` (zeros at the end),
``{op = "take", dim, unit, blocks, source}`` (runs of `unit` elements by number, zeros for −1),
``{op = "shard", dim, parts, source}`` (a rank's own of so many equal parts). Weights that a compile quantizes
by itself are ``{op = "quantize", scheme, source}``, their scales ``{op = "scale", scheme, source}``;
``{op = "mul", sources}`` is a product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any, cast

import torch
from npuc.frontends.checkpoint import Checkpoint
from npuc.frontends.safetensors import DTYPES, TensorSource, read, read_rows
from npuc.ir.errors import UserError
from npuc.ir.graph import WeightOp, element_of, ints, static_shape
from npuc.ir.nquant import QuantizedType, SchemeAttr
from npuc.ir.nquant_kernels import choose_parameters, quantize
from npuc.ir.torch_types import torch_type
from torch import Tensor, nn
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    bf16,
    f16,
    f32,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute

_ELEMENTS: dict[torch.dtype, Attribute] = {
    torch.float32: f32, torch.float64: f32, torch.bfloat16: bf16, torch.float16: f16, torch.bool: i1,
    torch.int64: i32, torch.int32: i32, torch.int16: i32, torch.int8: i32, torch.uint8: i32,
}  # fmt: skip


def element_type(dtype: torch.dtype) -> Attribute:
    """The IR's element type: integers of every width become i32.

    Raises:
        UserError: when the IR has no such type.
    """
    if dtype not in _ELEMENTS:
        raise UserError("unsupported-type", f"tensors of {dtype} are not supported")
    return _ELEMENTS[dtype]


def source_attr(source: TensorSource) -> DictionaryAttr:
    """The recipe of a byte range."""
    return DictionaryAttr(
        {
            "file": StringAttr(source.file),
            "offset": IntegerAttr(source.offset, i64),
            "bytes": IntegerAttr(source.bytes, i64),
            "dtype": StringAttr(source.dtype),
            "shape": DenseArrayBase.from_list(i64, list(source.shape)),
        }
    )


def recipe(
    op: str, source: DictionaryAttr | Sequence[DictionaryAttr], **values: int | Sequence[int] | Attribute
) -> DictionaryAttr:
    """An operation on one recipe or on several."""
    entries: dict[str, Attribute] = {"op": StringAttr(op)}
    for key, value in values.items():
        if isinstance(value, Attribute):
            entries[key] = value
        elif isinstance(value, int):
            entries[key] = IntegerAttr(value, i64)
        else:
            entries[key] = DenseArrayBase.from_list(i64, list(value))
    if isinstance(source, DictionaryAttr):
        entries["source"] = source
    else:
        entries["sources"] = ArrayAttr(source)
    return DictionaryAttr(entries)


Step = tuple[str, tuple[int, ...]]  # ("permute", perm) or ("reshape", shape)


def rearrange(
    source: DictionaryAttr, shape: tuple[int, ...], steps: Sequence[Step]
) -> tuple[DictionaryAttr, tuple[int, ...]]:
    """A recipe and its shape after some steps."""
    for op, values in steps:
        if op == "reshape":
            source, shape = recipe("reshape", source, shape=values), values
            continue
        swap = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        is_swap = values == swap
        source = recipe("transpose", source) if is_swap else recipe("permute", source, perm=values)
        shape = tuple(shape[d] for d in values)
    return source, shape


@dataclass
class _Symbol:
    name: str
    type: TensorType[Attribute]
    steps: tuple[Step, ...]
    layered: bool
    sources: dict[int, DictionaryAttr] = field(default_factory=dict)


class WeightTable:
    """The weight symbols of a module under construction."""

    def __init__(self, model: nn.Module, checkpoint: Checkpoint) -> None:
        from npuc.frontends.weight_names import parameter_recipes

        self._root = checkpoint.root
        self._where = str(checkpoint.root)
        self._compared: dict[tuple[str, str], bool] = {}
        self._numbers: dict[tuple[tuple[int, float], ...], str] = {}
        self._aliases = tied_names(model)
        self._recipes = parameter_recipes(model, checkpoint.tensors, self._where)
        self._symbols: list[_Symbol] = []

    def declare(
        self,
        name: str,
        shape: tuple[int, ...],
        element: Attribute,
        layers: Sequence[int] | None = None,
        steps: tuple[Step, ...] = (),
    ) -> tuple[str, TensorType[Attribute]]:
        """A provisional symbol of a parameter, rearranged; with ``layers``, ``name`` has ``{}``.

        Raises:
            UserError: when the checkpoint does not hold the parameter, or in another shape, or stored in
                another way than the element type says.
        """
        if layers is None:
            name = self._source_name(name)
        sources: dict[int, DictionaryAttr] = {}
        final = shape
        for layer in [0] if layers is None else layers:
            full = name if layers is None else self._source_name(name.format(layer))
            sources[layer], final = rearrange(self._source(full, shape, element), shape, steps)
        if not shape and layers is not None:
            name = self._alike(name, sources)
        kind = TensorType(element, list(final))
        for index, entry in enumerate(self._symbols):
            if (entry.name, entry.type, entry.steps) == (name, kind, steps):
                break
        else:
            index = len(self._symbols)
            entry = _Symbol(name, kind, steps, layers is not None)
            self._symbols.append(entry)
        entry.sources |= sources
        return str(index), kind

    def _alike(self, name: str, sources: Mapping[int, DictionaryAttr]) -> str:
        """The first number per layer that has these values: what inputs that are the same are scaled by."""
        reader = WeightReader(self._root)
        try:
            values = tuple((layer, float(reader.evaluate(source))) for layer, source in sources.items())
        except UserError as error:
            if error.kind != "no-weights":
                raise
            return name
        return self._numbers.setdefault(values, name)

    def _source_name(self, name: str) -> str:
        """The name under which the checkpoint holds a parameter: its own, or that of a tied one.

        As transformers has it: tied parameters that the checkpoint holds with different values are not tied.
        """
        target = self._aliases.get(name, name)
        group = [target, *(alias for alias, other in self._aliases.items() if other == target)]
        held = [other for other in group if other in self._recipes]
        if name not in held:
            return held[0] if held else name
        return held[0] if held[0] == name or self._equal(held[0], name) else name

    def _equal(self, a: str, b: str) -> bool:
        """Whether two parameters have the same values in the checkpoint."""
        if (a, b) not in self._compared:
            sources = [self._recipes[name][0] for name in (a, b)]
            reader = WeightReader(self._root)
            same = sources[0] == sources[1] or torch.equal(*(reader.evaluate(s) for s in sources))
            self._compared[a, b] = same
        return self._compared[a, b]

    def _source(self, name: str, shape: tuple[int, ...], element: Attribute) -> DictionaryAttr:
        if name not in self._recipes:
            raise UserError(
                "missing-tensor",
                f"the tensor {name} is missing",
                where=self._where,
                remedy="the checkpoint is incomplete or of another model",
            )
        source, actual = self._recipes[name]
        self._check_stored(name, source, element)
        if not shape and actual == (1,):
            return recipe("reshape", source, shape=())
        if actual != shape:
            message = f"{name} has shape {list(actual)}, the model expects {list(shape)}"
            remedy = "config.json and the weights are of different models"
            raise UserError("shape-mismatch", message, where=self._where, remedy=remedy)
        return source

    def _check_stored(self, name: str, source: DictionaryAttr, element: Attribute) -> None:
        """Quantized values must be stored as their scheme says; others not in a type that needs a scale."""
        quantized = isinstance(element, QuantizedType)
        for stored in sorted(file_types(source)):
            dtype = DTYPES[stored][1]
            if quantized and dtype != torch_type(element):
                wanted = next(key for key, (_, value) in DTYPES.items() if value == torch_type(element))
                message = f"{name} has type {stored}, its quantization says {wanted}"
            elif not quantized and DTYPES[stored][0] <= 8 and torch_type(element).is_floating_point:
                message = f"{name} has type {stored}, and config.json does not say how it is quantized"
            else:
                continue
            remedy = "config.json and the weights do not fit each other: see quantization_config"
            raise UserError("bad-quantization", message, where=self._where, remedy=remedy)

    def finish(self, used: Sequence[str]) -> dict[str, str]:
        """Keeps only the symbols that are used and names them; provisional → final name.

        A parameter that is used in several types or arrangements gets the symbols ``name``, ``name~1``, ….
        """
        names: dict[str, str] = {}
        kept: list[_Symbol] = []
        for symbol in dict.fromkeys(used):
            entry = self._symbols[int(symbol)]
            count = sum(other.name == entry.name for other in kept)
            names[symbol] = f"{entry.name}~{count}" if count else entry.name
            kept.append(entry)
        self._symbols = [replace(e, name=names[s]) for s, e in zip(dict.fromkeys(used), kept, strict=True)]
        return names

    def operations(self) -> list[WeightOp]:
        """The declarations, in order of first use."""
        result: list[WeightOp] = []
        for entry in self._symbols:
            layers = sorted(entry.sources)
            sources = [entry.sources[layer] for layer in layers]
            result.append(WeightOp(entry.name, entry.type, sources, layers if entry.layered else None))
        return result


def file_types(source: DictionaryAttr) -> set[str]:
    """The types, as files name them, of the tensors that a recipe reads."""
    entries: Any = source.data
    if "op" not in entries:
        return {entries["dtype"].data}
    inner = entries["sources"].data if "sources" in entries else ()
    if "source" in entries:
        inner = (entries["source"],)
    return {kind for part in inner for kind in file_types(part)}


def is_rounded(weight: WeightOp) -> bool:
    """Whether a weight is rounded to a quantized type when it is read."""
    found: Any = weight.sources.data[0]
    while isinstance(found, DictionaryAttr):
        if found.data.get("op") == StringAttr("quantize"):
            return True
        found = found.data.get("source")
    return False


def tied_names(model: nn.Module) -> dict[str, str]:
    """Parameter name → the name whose values it shares."""
    tied = cast(Mapping[str, str], getattr(model, "all_tied_weights_keys", None) or {})
    return dict(tied)


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


__all__ = ["WeightReader", "WeightTable", "element_type", "recipe", "source_attr"]
