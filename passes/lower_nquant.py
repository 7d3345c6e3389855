"""Quantized values become what is stored and multiplied; their scales become operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.frontends.recipes import recipe
from npuc.ir import graph
from npuc.ir.graph import element_of, static_shape
from npuc.ir.nquant import DequantizeOp, QuantizeOp, SchemeAttr, scheme_of
from npuc.passes.command_fields import element_name
from npuc.passes.rewriting import take_attributes
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import AnyFloat, DenseIntOrFPElementsAttr, ModuleOp, TensorType, f32
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException


@dataclass(frozen=True)
class LowerNquantPass(ModulePass):
    """Lowers `nquant` to operations on stored values.

    A linear layer of dequantized operands multiplies the stored ones, where the machine multiplies their
    type: a scale of a whole tensor or of a weight's rows can be applied to the sums. Of a weight alone the
    stored values are converted to the input's type when they are loaded. Other conversions become
    elementwise operations.
    """

    name = "lower-nquant"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        lowering = _Lowering(op, machine_of(self.target))
        for linear in [inner for inner in op.walk() if isinstance(inner, graph.LinearOp)]:
            lowering.linear(linear)
        for kind in (DequantizeOp, QuantizeOp, graph.ParamOp):
            for inner in [inner for inner in op.walk() if isinstance(inner, kind)]:
                if inner.result.uses and isinstance(inner, DequantizeOp):
                    lowering.dequantize(inner)
                if not inner.result.uses:
                    inner.detach()
                    inner.erase()


def multiplies(machine: Machine, element: Attribute) -> bool:
    """Whether a machine has a product of two operands of a type, and stores results in it."""
    name = element_name(machine, element)
    passes = [c for c in machine.commands.values() if c.kind == "pass"]
    products = [c for c in passes if all(p in c.ports for p in ("stream", "stationary"))]
    taken = any(all(name in c.ports[p].types for p in ("stream", "stationary")) for c in products)
    return taken and any("out" in c.ports and name in c.ports["out"].types for c in passes)


@dataclass
class _Lowering:
    module: ModuleOp
    machine: Machine
    values: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def __post_init__(self) -> None:
        ops = self.module.body.block.ops
        self.weights = {w.sym_name.data: w for w in ops if isinstance(w, graph.WeightOp)}

    def linear(self, op: graph.LinearOp) -> None:
        """x · dequantize(w)ᵀ → (x · wᵀ) · scale; with a quantized x too, of both as they are stored."""
        weight, value = op.weight.owner, op.input.owner
        if not isinstance(weight, DequantizeOp) or not _scales_rows(weight):
            return
        stored, scale, x = self.stored(weight.input), weight.scale, op.input
        if isinstance(value, DequantizeOp) and self._is_native(value, weight):
            x, scale = self.stored(value.input), self._product(scale, value.scale, op)
        new = graph.LinearOp(x, stored, op.bias, scale, element_of(op.result))
        _replace(op, new)

    def _is_native(self, value: DequantizeOp, weight: DequantizeOp) -> bool:
        """Whether the machine multiplies an input as it is stored."""
        scheme = scheme_of(value.input)
        plain = scheme.granularity.data == "tensor" and scheme.symmetric
        same = scheme.storage == scheme_of(weight.input).storage
        return plain and same and multiplies(self.machine, scheme.storage)

    def stored(self, value: SSAValue) -> SSAValue:
        """The stored values of a quantized tensor."""
        if value not in self.values:
            owner, scheme = value.owner, scheme_of(value)
            self._check_storage(scheme)
            if isinstance(owner, graph.ParamOp):
                kind = TensorType(scheme.storage, static_shape(value))
                param = graph.ParamOp(owner.symbol.string_value(), kind)
                _insert(owner, [param])
                self.values[value] = param.result
            elif isinstance(owner, QuantizeOp):
                self.values[value] = self._quantize(owner, scheme)
            else:
                raise PassFailedException("lower-nquant: a quantized value comes from no weight or quantize")
        return self.values[value]

    def _check_storage(self, scheme: SchemeAttr) -> None:
        name = element_name(self.machine, scheme.storage)
        if name not in self.machine.element_types:
            known = ", ".join(self.machine.element_types)
            message = f"{self.machine.name} has no type {scheme.storage}; its types are {known}"
            raise PassFailedException(f"lower-nquant: {message}")

    def _quantize(self, op: QuantizeOp, scheme: SchemeAttr) -> SSAValue:
        """x ÷ scale, clamped, and rounded where it is stored."""
        if not isinstance(scheme.storage, AnyFloat) or scheme.granularity.data != "tensor":
            raise PassFailedException("lower-nquant: only inputs in floats, with one scale, can be lowered")
        low, high = (_constant(limit) for limit in scheme.range)
        wide = graph.CastOp(op.input, f32)
        divided = graph.binary("div", wide.result, op.scale)
        raised = graph.binary("maximum", divided.results[0], low.result)
        lowered = graph.binary("minimum", raised.results[0], high.result)
        stored = graph.CastOp(lowered.results[0], scheme.storage)
        _insert(op, [low, high, wide, divided, raised, lowered, stored])
        return stored.result

    def dequantize(self, op: DequantizeOp) -> None:
        """Stored value · scale, as elementwise operations."""
        scheme = scheme_of(op.input)
        if scheme.granularity.data == "group" or not scheme.symmetric:
            raise PassFailedException(
                f"lower-nquant: {scheme} has no lowering: scales of groups, zero points"
            )
        scale, stored = op.scale, self.stored(op.input)
        wide = graph.CastOp(stored, f32)
        new: list[Operation] = [wide]
        if scheme.granularity.data == "channel":
            rank = len(graph.shape_of(op.input))
            count = static_shape(scale)[0]
            reshaped = graph.ReshapeOp(scale, [count if d == scheme.axis.data else 1 for d in range(rank)])
            scale = reshaped.result
            new.append(reshaped)
        product = graph.binary("mul", wide.result, scale)
        rounded = graph.CastOp(product.results[0], scheme.expressed)
        _insert(op, [*new, product, rounded])
        op.result.replace_all_uses_with(rounded.result)

    def _product(self, a: SSAValue, b: SSAValue, user: Operation) -> SSAValue:
        """a · b: of two weights another weight, whose recipe multiplies."""
        owners = a.owner, b.owner
        if not all(isinstance(owner, graph.ParamOp) for owner in owners):
            product = graph.binary("mul", a, b)
            _insert(user, [product])
            return product.results[0]
        first, second = (
            self.weights[o.symbol.string_value()] for o in owners if isinstance(o, graph.ParamOp)
        )
        weight = self._product_weight(first, second)
        param = graph.ParamOp(weight.sym_name.data, weight.type)
        _insert(user, [param])
        return param.result

    def _product_weight(self, first: graph.WeightOp, second: graph.WeightOp) -> graph.WeightOp:
        name = f"{first.sym_name.data}*{second.sym_name.data.rpartition('.')[2]}"
        if name not in self.weights:
            layers = first.layer_list
            others = dict(zip(second.layer_list or (), second.sources.data, strict=False))
            sources = [
                recipe("mul", [source, second.sources.data[0] if layers is None else others[layers[i]]])
                for i, source in enumerate(first.sources.data)
            ]
            weight = graph.WeightOp(name, first.type, sources, layers)
            self.module.body.block.insert_ops_after([weight], first)
            self.weights[name] = weight
        return self.weights[name]


def _scales_rows(op: DequantizeOp) -> bool:
    """Whether scales may be applied to a product: there is one, or one for each row of the weight."""
    scheme = scheme_of(op.input)
    by_rows = scheme.granularity.data == "channel" and scheme.axis.data == 0
    return scheme.symmetric and (by_rows or scheme.granularity.data == "tensor")


def _constant(value: float) -> graph.ConstantOp:
    kind: TensorType[Attribute] = TensorType(f32, [])
    return graph.ConstantOp(DenseIntOrFPElementsAttr.from_list(kind, [value]))  # pyright: ignore


def _insert(before: Operation, ops: Sequence[Operation]) -> None:
    """Puts operations before one whose module and name they take."""
    for op in ops:
        take_attributes(op, before)
    block = before.parent_block()
    assert block is not None
    block.insert_ops_before(ops, before)


def _replace(op: Operation, new: Operation) -> None:
    _insert(op, [new])
    op.results[0].replace_all_uses_with(new.results[0])
    op.detach()
    op.erase()
