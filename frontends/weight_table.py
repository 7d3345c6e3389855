"""The weight symbols of a module that is being imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from npuc.frontends.checkpoint import Checkpoint
from npuc.frontends.recipes import Step, file_types, rearrange, recipe
from npuc.frontends.safetensors import DTYPES
from npuc.frontends.weight_names import parameter_recipes
from npuc.frontends.weight_reader import WeightReader
from npuc.ir.errors import UserError
from npuc.ir.graph import WeightOp
from npuc.ir.nquant import QuantizedType
from npuc.ir.torch_types import torch_type
from torch import nn
from xdsl.dialects.builtin import DictionaryAttr, TensorType
from xdsl.ir import Attribute


@dataclass
class _Symbol:
    name: str
    type: TensorType[Attribute]
    steps: tuple[Step, ...]
    layered: bool
    sources: dict[int, DictionaryAttr] = field(default_factory=dict)


class WeightTable:
    """The weight symbols of a module under construction.

    Attributes:
        has_values: whether the checkpoint's tensors can be read.
    """

    def __init__(self, model: nn.Module, checkpoint: Checkpoint) -> None:
        self.has_values = checkpoint.has_values
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
        if not shape and layers is not None and self.has_values:
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
        values = tuple((layer, float(reader.evaluate(source))) for layer, source in sources.items())
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


def tied_names(model: nn.Module) -> dict[str, str]:
    """Parameter name → the name whose values it shares."""
    tied = cast(Mapping[str, str], getattr(model, "all_tied_weights_keys", None) or {})
    return dict(tied)
