"""Runs modules of the `graph` level with the kernel table; symbolic sizes come from the arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from npuc.ir import dist, dist_kernels, graph, kernels, nquant, nquant_kernels
from npuc.ir.errors import UserError
from npuc.ir.graph import element_of, ints, shape_of
from npuc.ir.lockstep import Lockstep
from npuc.ir.shapes import Dim
from npuc.ir.torch_types import torch_type
from torch import Tensor
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, ModuleOp, SymbolRefAttr
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.ir.affine import AffineDimExpr


class WeightReader(Protocol):
    """Gives the values of weight symbols."""

    def read(self, weight: graph.WeightOp, layer: int | None = None) -> Tensor:
        """The tensor of a weight; of one layer, if it is per layer."""
        ...


@dataclass
class Runtime:
    """Runtime parameters of a call, one entry per batch row.

    Attributes:
        slot: which cache slot the row uses.
        position: tokens already in the cache.
        valid: new tokens in this call; 0 for an inactive row.
        ctx: the attention length.
    """

    slot: Sequence[int]
    position: Sequence[int]
    valid: Sequence[int]
    ctx: int


@dataclass
class Caches:
    """Key and value tensors [layers, slots, heads, length, size] of each cache declaration."""

    length: int
    keys: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def allocate(cls, module: ModuleOp, slots: int, length: int) -> Caches:
        """Zeroed caches for every declaration of a module."""
        caches = cls(length)
        for op in module.ops:
            if isinstance(op, graph.CacheDeclOp):
                shape = len(ints(op.layers)), slots, op.heads.value.data, length
                dtype, name = torch_type(op.type), op.sym_name.data
                caches.keys[name] = torch.zeros(*shape, op.key_size.value.data, dtype=dtype)
                caches.values[name] = torch.zeros(*shape, op.value_size.value.data, dtype=dtype)
        return caches


Observer = Callable[[Operation, int | None, Sequence[Tensor]], None]


def evaluate_dim(dim: Dim, sizes: Sequence[int]) -> int:
    """A size for these (batch, seq, ctx)."""
    return dim if isinstance(dim, int) else dim.eval(list(sizes), [])


def interpret(
    module: ModuleOp,
    inputs: Sequence[Tensor],
    weights: WeightReader,
    caches: Caches | None = None,
    runtime: Runtime | None = None,
    *,
    function: str = "main",
    observe: Observer | None = None,
) -> list[Tensor]:
    """Runs a function of a graph-level module.

    Args:
        inputs: the function's arguments.
        weights: reads the values of ``graph.weight`` symbols.
        caches: read and updated in place; needed if the module declares caches.
        runtime: per-row parameters. Without it, row b uses slot b at position 0, all tokens valid,
            attending to the new tokens only.
        observe: called after each operation with the current layer and the results.

    Raises:
        UserError: when the arguments do not fit the function, or an operation has no kernel.
    """
    return Interpreter(module, weights, caches, observe).run(function, inputs, runtime)


class Interpreter:
    """Evaluates functions of one module. See `interpret`.

    Attributes:
        ranks: those that run the module together, and the number of this one; for modules with collectives.
    """

    def __init__(
        self, module: ModuleOp, weights: WeightReader, caches: Caches | None, observe: Observer | None
    ) -> None:
        self.weights = weights
        self.caches = caches
        self.observe = observe
        self.functions = {op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)}
        self.symbols = {op.sym_name.data: op for op in module.ops if isinstance(op, graph.WeightOp)}
        self.declarations = {op.sym_name.data: op for op in module.ops if isinstance(op, graph.CacheDeclOp)}
        self.sizes = (0, 0, 0)
        self.runtime = Runtime((), (), (), 0)
        self.ranks: tuple[Lockstep, int] | None = None

    def run(self, function: str, inputs: Sequence[Tensor], runtime: Runtime | None) -> list[Tensor]:
        """Checks the arguments, resolves sizes and evaluates the function."""
        if function not in self.functions:
            raise UserError("missing-function", f"no function @{function}", where="interpret")
        func = self.functions[function]
        arguments = func.body.block.args
        if len(arguments) != len(inputs):
            message = f"@{function} takes {len(arguments)} arguments, got {len(inputs)}"
            raise UserError("bad-arguments", message, where="interpret")
        self.sizes = _resolve(arguments, inputs, runtime)
        batch, rows, ctx = self.sizes
        first = inputs[0].shape if inputs else ()
        batch, rows = (batch, rows) if batch else (*first, 1, 1)[:2]
        self.runtime = runtime or Runtime(range(batch), [0] * batch, [rows] * batch, ctx)
        return self.call(func, inputs, None)

    def call(self, func: FuncOp, inputs: Sequence[Tensor], layer: int | None) -> list[Tensor]:
        """Evaluates a function's body for one layer of the model (None outside the layers)."""
        return self.run_block(func.body.block, inputs, layer)

    def run_block(self, block: Block, inputs: Sequence[Tensor], layer: int | None) -> list[Tensor]:
        """Evaluates a block up to its terminator."""
        env: dict[SSAValue, Tensor] = dict(zip(block.args, inputs, strict=True))
        for op in block.ops:
            operands = [env[operand] for operand in op.operands]
            if isinstance(op, ReturnOp | graph.YieldOp):
                return operands
            results = self.evaluate(op, operands, layer)
            for result, tensor in zip(op.results, results, strict=True):
                env[result] = tensor
            if self.observe is not None:
                self.observe(op, layer, results)
        raise UserError("bad-ir", "a block does not end in func.return or graph.yield", where="interpret")

    def evaluate(self, op: Operation, args: list[Tensor], layer: int | None) -> list[Tensor]:
        """The results of one operation."""
        if isinstance(op, graph.UnaryOp):
            return [kernels.UNARY[op.name.removeprefix("graph.")](args[0])]
        if isinstance(op, graph.BinaryOp):
            return [kernels.BINARY[op.name.removeprefix("graph.")](*args)]
        match op:
            case graph.LayersOp():
                return self._layers(op, args)
            case graph.KvUpdateOp():
                return self._kv_update(op, args, layer)
            case graph.RowsOp():
                return self._rows(op, args, layer)
            case graph.ParamOp():
                weight = self.symbols[_symbol(op.symbol)]
                return [self.weights.read(weight, None if weight.layers is None else layer)]
            case dist.CollectiveOp():
                return [self._collective(op, args[0])]
            case CallOp():
                return self.call(self.functions[op.callee.string_value()], args, layer)
            case _ if type(op) in EVALUATE:
                shape = tuple(evaluate_dim(d, self.sizes) for d in shape_of(op.results[0]))
                return [EVALUATE[type(op)](op, args, shape)]
            case _:
                where = str(op.attributes.get("module", "")).strip('"')
                raise UserError("no-kernel", f"the operation {op.name} has no kernel", where=where)

    def _layers(self, op: graph.LayersOp, args: list[Tensor]) -> list[Tensor]:
        func = self.functions[_symbol(op.callee)]
        count = len(op.carried)
        carried, extras = args[:count], args[count:]
        for layer in op.layer_list:
            carried = self.call(func, [*carried, *extras], layer)
        return carried

    def _kv_update(self, op: graph.KvUpdateOp, args: list[Tensor], layer: int | None) -> list[Tensor]:
        name, run = _symbol(op.cache), self.runtime
        if self.caches is None or layer is None:
            raise UserError("missing-cache", f"@{name} needs caches and a current layer", where="interpret")
        index = ints(self.declarations[name].layers).index(layer)
        ctx = evaluate_dim(shape_of(op.keys)[2], self.sizes)
        tables = (self.caches.keys, self.caches.values)
        heads = tables[0][name].shape[2]
        split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) if x.ndim == 3 else x for x in args]
        return [
            kernels.kv_update(new, table[name][index], run.slot, run.position, run.valid, ctx)
            for new, table in zip(split, tables, strict=True)
        ]

    def _collective(self, op: dist.CollectiveOp, value: Tensor) -> Tensor:
        """What this rank gets of the values that all ranks bring."""
        if self.ranks is None:
            message = f"{op.name} needs all ranks to run together"
            raise UserError("missing-ranks", message, where="interpret")
        together, rank = self.ranks
        return dist_kernels.evaluate(op, together.exchange(rank, value))[rank]

    def _rows(self, op: graph.RowsOp, args: list[Tensor], layer: int | None) -> list[Tensor]:
        """The body on each tile of rows, results concatenated; each input has rows of its own number."""
        dims, output_dims = op.dims
        arguments = zip(op.body.block.args, dims, strict=True)
        rows = [evaluate_dim(shape_of(a)[d], self.sizes) if d >= 0 else 0 for a, d in arguments]
        number = next(i for i, d in enumerate(dims) if d >= 0)
        parts: list[list[Tensor]] = []
        for part in range(-(-args[number].shape[dims[number]] // rows[number])):
            tile = [
                x if d < 0 else x.narrow(d, part * n, n) for x, d, n in zip(args, dims, rows, strict=True)
            ]
            parts.append(self.run_block(op.body.block, tile, layer))
        return [torch.cat(tiles, d) for tiles, d in zip(zip(*parts, strict=True), output_dims, strict=True)]


class _NoWeights:
    """Constants need no weights."""

    def read(self, weight: graph.WeightOp, layer: int | None = None) -> Tensor:
        raise UserError("missing-weight", f"@{weight.sym_name.data} is no constant")


def evaluate_constants(op: Operation, operands: Sequence[graph.ConstantOp]) -> Tensor:
    """The value of a static operation whose operands are constants."""
    interpreter = Interpreter(ModuleOp([]), _NoWeights(), None, None)
    return interpreter.evaluate(op, [dense_tensor(c.value) for c in operands], None)[0]


def _symbol(attribute: Attribute) -> str:
    assert isinstance(attribute, SymbolRefAttr)
    return attribute.string_value()


def _resolve(
    arguments: Sequence[SSAValue], inputs: Sequence[Tensor], runtime: Runtime | None
) -> tuple[int, ...]:
    """The values of (batch, seq, ctx), told by the arguments' shapes."""
    found: dict[int, int] = {} if runtime is None else {2: runtime.ctx}
    for i, (argument, tensor) in enumerate(zip(arguments, inputs, strict=True)):
        shape = shape_of(argument)
        if len(shape) != tensor.ndim:
            message = f"argument {i} has rank {tensor.ndim}, expected {len(shape)}"
            raise UserError("bad-arguments", message, where="interpret")
        for dim, size in zip(shape, tensor.shape, strict=True):
            known = isinstance(dim, int) or (isinstance(dim, AffineDimExpr) and dim.position in found)
            if isinstance(dim, AffineDimExpr) and not known:
                found[dim.position] = size
            expected = found[dim.position] if isinstance(dim, AffineDimExpr) else dim
            if isinstance(expected, int) and expected != size:
                message = (
                    f"argument {i} has shape {list(tensor.shape)}, expected {expected} instead of {size}"
                )
                raise UserError("bad-arguments", message, where="interpret")
        if tensor.dtype != torch_type(element_of(argument)):
            message = f"argument {i} has type {tensor.dtype}, expected {torch_type(element_of(argument))}"
            raise UserError("bad-arguments", message, where="interpret")
    found.setdefault(2, found.get(1, 0))
    return found.get(0, 0), found.get(1, 0), found[2]


def _constant(op: graph.ConstantOp, args: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    return dense_tensor(op.value).expand(shape)


def dense_tensor(value: DenseIntOrFPElementsAttr) -> Tensor:
    """The values of a dense attribute."""
    kind = value.type
    dtype = torch_type(kind.element_type)
    numbers = torch.tensor(
        list(value.get_values()), dtype=torch.float32 if dtype.is_floating_point else dtype
    )
    shape = kind.get_shape()
    numbers = numbers.to(dtype)
    return numbers[0].expand(shape) if numbers.numel() == 1 else numbers.reshape(shape)


def _iota(op: graph.IotaOp, args: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    dim = op.dim.value.data
    index = torch.arange(shape[dim], dtype=torch_type(element_of(op.result)))
    return index.reshape([-1 if i == dim else 1 for i in range(len(shape))]).expand(shape)


def _slice(op: graph.SliceOp, args: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    starts, stops, steps = ints(op.starts), ints(op.stops), ints(op.steps)
    index = [slice(a, None if b == -1 else b, s) for a, b, s in zip(starts, stops, steps, strict=True)]
    return args[0][tuple(index)]


def _pad(op: graph.PadOp, args: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    pairs = zip(ints(op.low), ints(op.high), strict=True)
    amounts = [n for pair in reversed(list(pairs)) for n in pair]
    return torch.nn.functional.pad(args[0], amounts, value=op.value.value.data)


def _optional(present: bool, rest: list[Tensor]) -> Tensor | None:
    return rest.pop(0) if present else None


def _layer_norm(op: graph.LayerNormOp, args: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    rest = args[1:]
    weight = _optional(op.weight is not None, rest)
    return kernels.layer_norm(args[0], weight, _optional(op.bias is not None, rest), op.eps.value.data)


def _linear(op: graph.LinearOp, args: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    rest = args[2:]
    bias = _optional(op.bias is not None, rest)
    scale = _optional(op.scale is not None, rest)
    return kernels.linear(args[0], args[1], bias, scale, torch_type(element_of(op.result)))


def _attention(op: graph.AttentionOp, args: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    mask = args[3] if len(args) > 3 else None
    query, keys, values = args[:3]
    return kernels.attention(query, keys, values, mask, op.scale.value.data, op.softcap.value.data)


def _conversion(
    op: nquant.ConversionOp,
    args: list[Tensor],
    scheme: nquant.SchemeAttr,
    kernel: Callable[[Tensor, Tensor, Tensor | None, nquant.SchemeAttr], Tensor],
) -> Tensor:
    return kernel(args[0], args[1], args[2] if op.zero_point is not None else None, scheme)


EVALUATE: Mapping[type[Operation], Callable[..., Tensor]] = {
    graph.ConstantOp: _constant,
    graph.IotaOp: _iota,
    graph.WhereOp: lambda op, args, shape: torch.where(*args),
    graph.CastOp: lambda op, args, shape: kernels.cast(args[0], torch_type(element_of(op.result))),
    graph.ReduceOp: lambda op, args, shape: kernels.reduce(
        args[0], op.kind.data, ints(op.dims), bool(op.keepdims.value.data)
    ),
    graph.SoftmaxOp: lambda op, args, shape: kernels.softmax(args[0], op.dim.value.data),
    graph.MatmulOp: lambda op, args, shape: kernels.matmul(*args),
    graph.LinearOp: _linear,
    graph.EmbeddingOp: lambda op, args, shape: kernels.embedding(*args),
    graph.ReshapeOp: lambda op, args, shape: args[0].reshape(shape),
    graph.BroadcastOp: lambda op, args, shape: args[0].expand(shape),
    graph.TransposeOp: lambda op, args, shape: args[0].permute(ints(op.perm)),
    graph.SliceOp: _slice,
    graph.PadOp: _pad,
    graph.ConcatOp: lambda op, args, shape: torch.cat(args, op.dim.value.data),
    graph.RmsNormOp: lambda op, args, shape: kernels.rms_norm(
        args[0], args[1], op.eps.value.data, op.offset.value.data
    ),
    graph.LayerNormOp: _layer_norm,
    graph.RopeOp: lambda op, args, shape: kernels.rope(
        args[0], args[1], args[2], bool(op.interleaved.value.data)
    ),
    graph.GatedOp: lambda op, args, shape: kernels.gated(args[0], args[1], op.activation.data),
    graph.AttentionOp: _attention,
    graph.SelectRowsOp: lambda op, args, shape: args[0],
    graph.RelayoutOp: lambda op, args, shape: args[0],
    nquant.QuantizeOp: lambda op, args, shape: _conversion(
        op, args, nquant.scheme_of(op.result), nquant_kernels.quantize
    ),
    nquant.DequantizeOp: lambda op, args, shape: _conversion(
        op, args, nquant.scheme_of(op.input), nquant_kernels.dequantize
    ),
}
