"""Rounds the weights of linear layers to a quantized type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

from npuc.frontends.recipes import recipe
from npuc.ir import graph
from npuc.ir.graph import element_of, static_shape
from npuc.ir.nquant import DequantizeOp, QuantizedType, SchemeAttr
from npuc.passes.rewriting import take_attributes
from npuc.passes.separate_layers import layers_of, separate_layers
from xdsl.context import Context
from xdsl.dialects.builtin import AnyFloat, ModuleOp, StringAttr, TensorType, f32, i8
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

SCHEMES: dict[str, tuple[Attribute, str]] = {"w8a16": (i8, "channel")}
"""Storage and granularity of the weights; inputs stay as they are."""


@dataclass(frozen=True)
class QuantizeWeightsPass(ModulePass):
    """Rounds the weight of every linear layer but those ignored to nearest, symmetrically.

    `w8a16` is 8-bit integers with one scale for each output channel. A weight's recipe then says that its
    values are rounded when they are read; another weight, its scales, says how they are found. Layers are
    ignored by their module path; patterns have ``*``, and ``{}`` stands for every layer's number. Where some
    layers of a kind are ignored in other places than others, they get a function of their own.
    """

    name = "quantize-weights"
    rounds_values: ClassVar[bool] = True  # a check of passes tells how far, and goes on from there
    scheme: str
    ignore: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.scheme not in SCHEMES:
            known = ", ".join(SCHEMES)
            raise PassFailedException(f"quantize-weights: no scheme {self.scheme!r}, there are {known}")
        separate_layers(op, self._ignored_in)
        layers = layers_of(op)
        chosen = [
            (linear, layers.get(function.sym_name.data))
            for function in op.body.block.ops
            if isinstance(function, FuncOp)
            for linear in _linears(function)
            if not self._is_ignored(linear, layers.get(function.sym_name.data, (None,))[0])
        ]
        weights = {w.sym_name.data: w for w in op.body.block.ops if isinstance(w, graph.WeightOp)}
        quantizer = _Quantizer(weights, self.scheme)
        for linear, layer in chosen:
            quantizer.note(linear, layer)
        for linear, _ in chosen:
            quantizer.quantize(linear)

    def _ignored_in(self, function: FuncOp, layer: int) -> tuple[bool, ...]:
        """Which of a function's linear layers are ignored in a layer of the model."""
        return tuple(self._is_ignored(linear, layer) for linear in _linears(function))

    def _is_ignored(self, op: Operation, layer: int | None) -> bool:
        module = op.attributes.get("module")
        path = module.data if isinstance(module, StringAttr) else ""
        paths = path, path if layer is None else path.replace("{}", str(layer), 1)
        return any(fnmatchcase(path, pattern) for path in paths for pattern in self.ignore)


def _linears(function: FuncOp) -> list[graph.LinearOp]:
    return [op for op in function.walk() if isinstance(op, graph.LinearOp)]


@dataclass
class _Quantizer:
    """Weights of a module by symbol; those that are made come in addition, of the layers noted."""

    weights: dict[str, graph.WeightOp]
    scheme: str
    layers: dict[str, set[int]] = field(default_factory=dict[str, set[int]])

    def note(self, op: graph.LinearOp, layers: Sequence[int] | None) -> None:
        """The weight of a linear layer will be rounded in these layers of the model; None for all it has."""
        if isinstance(op.weight.owner, graph.ParamOp):
            symbol = op.weight.owner.symbol.string_value()
            own = self.weights[symbol].layer_list or ()
            self.layers.setdefault(symbol, set()).update(own if layers is None else layers)

    def quantize(self, op: graph.LinearOp) -> None:
        """Replaces a layer's weight by the dequantized one, if it is a weight in floats."""
        param = op.weight.owner
        if not isinstance(param, graph.ParamOp) or not isinstance(element_of(param.result), AnyFloat):
            return
        storage, granularity = SCHEMES[self.scheme]
        scheme = SchemeAttr.of(storage, element_of(param.result), granularity)
        shape = static_shape(param.result)
        source = self.weights[param.symbol.string_value()]
        stem = source.sym_name.data.removesuffix(".weight")
        stored = self._made(source, f"{stem}.weight_{self.scheme}", "quantize", shape, QuantizedType(scheme))
        scale_shape = [d for d in scheme.scale_shape(shape) if isinstance(d, int)]
        scales = self._made(source, f"{stem}.weight_scale", "scale", scale_shape, f32)
        values = [graph.ParamOp(w.sym_name.data, w.type) for w in (stored, scales)]
        dequantized = DequantizeOp(values[0].result, values[1].result, TensorType(scheme.expressed, shape))
        for new in (*values, dequantized):
            take_attributes(new, param)
        block = op.parent_block()
        assert block is not None
        block.insert_ops_before([*values, dequantized], op)
        op.operands[1] = dequantized.result
        if not param.result.uses:
            param.detach()
            param.erase()

    def _made(
        self, source: graph.WeightOp, name: str, op: str, shape: Sequence[int], element: Attribute
    ) -> graph.WeightOp:
        """The weight of this name, computed from another one's recipes."""
        if name not in self.weights:
            storage, granularity = SCHEMES[self.scheme]
            scheme = SchemeAttr.of(storage, f32, granularity)
            parts, layers = list(source.sources.data), source.layer_list
            if layers is not None:
                kept = [i for i, layer in enumerate(layers) if layer in self.layers[source.sym_name.data]]
                parts, layers = [parts[i] for i in kept], tuple(layers[i] for i in kept)
            sources = [recipe(op, part, scheme=scheme) for part in parts]
            weight = graph.WeightOp(name, TensorType(element, shape), sources, layers)
            block = source.parent_block()
            assert block is not None
            block.insert_ops_after([weight], source)
            self.weights[name] = weight
        return self.weights[name]
