"""FX graphs of core ATen operators become functions of the `graph` dialect.

The lowerings of the operators are tables in `aten_elementwise`, `aten_shape` and `aten_compute`;
this file holds what they share: values, types, symbolic sizes, constants and locations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from npuc.frontends.element_types import element_type
from npuc.frontends.recipes import Step
from npuc.ir import graph
from npuc.ir.errors import UserError
from npuc.ir.graph import BATCH, SEQ, element_of, shape_of, tensor_type
from npuc.ir.shapes import Dim, same_shape
from npuc.ir.torch_types import torch_type
from torch import Tensor
from torch.fx import Node
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod
from xdsl.builder import Builder
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, StringAttr, TensorType
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.ir.affine import AffineExpr
from xdsl.rewriter import InsertPoint
from xdsl.utils.exceptions import VerifyException

MAX_CONSTANT = 1 << 22  # elements of a dense attribute


FxNode = Any  # torch.fx.Node, whose arguments have no static types
Result = SSAValue | tuple[SSAValue, ...] | list[SSAValue]
Lowering = Callable[["FxImporter", Node], Result]
LOWERINGS: dict[str, Lowering] = {}


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Registers the lowering of operators, e.g. ``"aten.add.Tensor"``."""

    def register(function: Lowering) -> Lowering:
        for name in names:
            LOWERINGS[name] = function
        return function

    return register


class NotAffine(Exception):
    """A size that is no affine expression over (batch, seq, ctx)."""


def affine(expression: Any, symbols: Mapping[sympy.Symbol, AffineExpr]) -> Dim:
    """The size as an integer or affine expression.

    Raises:
        NotAffine: when it is neither.
    """
    expr = sympy.sympify(expression.node.expr if isinstance(expression, torch.SymInt) else expression)
    if isinstance(expr, sympy.Integer):
        return int(expr)
    if isinstance(expr, sympy.Symbol):
        return symbols[expr]
    parts = [affine(part, symbols) for part in expr.args]
    if isinstance(expr, sympy.Add):
        return sum(parts[1:], parts[0])
    if isinstance(expr, sympy.Mul) and sum(not isinstance(p, int) for p in parts) <= 1:
        result: Dim = 1
        for part in sorted(parts, key=lambda p: isinstance(p, int)):
            result = part if isinstance(result, int) and result == 1 else result * part
        return result
    if len(parts) == 2 and isinstance(parts[1], int) and not isinstance(parts[0], int):
        if isinstance(expr, FloorDiv):
            return parts[0] // parts[1]
        if isinstance(expr, Mod | PythonMod):
            return parts[0] % parts[1]
    raise NotAffine(str(expr))


class FxImporter:
    """Imports the nodes of one graph into a block.

    Models flatten batch and sequence to one dimension of batch · seq rows, which is no affine size.
    Here such a dimension stays the two that it is made of: FX [rows, D] is [batch, seq, D] in the IR.
    Lowerings therefore translate dimensions with `dim`, `dims` and `sizes`.

    Args:
        block: receives the operations.
        symbols: what each size symbol of the graph means.
        location: the IR's module path of a node's module.
        parameter: the value of a placeholder that is no input: a constant, or a weight, rearranged by
            some steps, in the IR of its own element type unless another is given.
        cache: the symbol of the cache that ``npuc::kv_update`` addresses.
        layers: imports an ``npuc::layers`` call (only the outer graph has them).
        has_values: whether the values of weights can be compared.
    """

    def __init__(
        self,
        block: Block,
        symbols: Mapping[sympy.Symbol, AffineExpr],
        location: Callable[[Node], str],
        parameter: Callable[[FxImporter, Node, tuple[Step, ...], Attribute | None], SSAValue],
        cache: str | None = None,
        layers: Callable[[FxImporter, Node], Sequence[SSAValue]] | None = None,
        *,
        has_values: bool = True,
    ) -> None:
        self.builder = Builder(InsertPoint.at_end(block))
        self.symbols = symbols
        self.location = location
        self.parameter = parameter
        self.cache = cache
        self.layers = layers
        self.has_values = has_values
        self.env: dict[Node, Result] = {}
        self.weights: dict[SSAValue, tuple[Node, tuple[Step, ...]]] = {}
        self.declared: dict[tuple[Node, tuple[Step, ...], Attribute | None], SSAValue] = {}
        self.conversions: dict[tuple[object, ...], SSAValue] = {}
        self.current: Node | None = None

    def run(self, nodes: Sequence[Node]) -> None:
        """Imports these call nodes in order."""
        for node in nodes:
            if node.op != "call_function" or not _is_tensor(node.meta.get("val")):
                continue  # sizes and assertions: sizes are taken from the types
            self.current = node
            name = str(node.target)
            if name not in LOWERINGS:
                raise self.unsupported(f"the operator {name} has no lowering")
            try:
                self.env[node] = LOWERINGS[name](self, node)
            except NotAffine as error:
                raise self.unsupported(f"{name}: the size {error} is not affine") from error
            except VerifyException as error:
                raise self.unsupported(f"{name}: {error}") from error

    def unsupported(self, message: str) -> UserError:
        """The error of an operator that cannot be imported, at the current node's module."""
        node = self.current
        shapes = "" if node is None else f" on {', '.join(_describe(n) for n in node.all_input_nodes)}"
        return UserError(
            "unsupported-op",
            message + shapes,
            where="" if node is None else self.location(node),
            remedy="add a lowering with @lowers in frontends/aten_*.py",
        )

    def emit(self, op: Operation) -> SSAValue:
        """Inserts an operation with the current node's location and name; its first result."""
        assert self.current is not None
        op.attributes["module"] = StringAttr(self.location(self.current))
        self.builder.insert(op)
        for result in op.results:
            result.name_hint = _hint(self.current)
        return op.results[0]

    # Values

    def value(self, argument: Any) -> SSAValue:
        """The tensor of an argument node."""
        if argument not in self.env and argument.op == "placeholder":
            self.env[argument] = self.weight(argument)
        result = self.env[argument]
        assert isinstance(result, SSAValue)
        return result

    def weight(self, node: Node, steps: tuple[Step, ...] = (), element: Attribute | None = None) -> SSAValue:
        """The value of a placeholder that is a weight or constant, rearranged, of another element type."""
        key = node, steps, element
        if key not in self.declared:
            self.declared[key] = value = self.parameter(self, node, steps, element)
            if isinstance(value.owner, graph.ParamOp) and element is None:
                self.weights[value] = node, steps
        return self.declared[key]

    def argument(self, node: Node) -> SSAValue:
        """Adds a placeholder as an argument of the block."""
        block = self.builder.insertion_point.block
        kind = tensor_type(self.sizes(node), self.element(node))
        self.env[node] = argument = block.insert_arg(kind, len(block.args))
        return argument

    def rearranged(self, value: SSAValue, step: Step) -> SSAValue | None:
        """The rearrangement of a weight of two or more dimensions: another view of its bytes.

        None for other values.
        """
        if value not in self.weights or len(shape_of(value)) < 2:
            return None
        node, steps = self.weights[value]
        return self.weight(node, (*steps, step))

    def scalar(self, value: float | int | bool, element: Attribute) -> SSAValue:
        """A rank-0 constant."""
        number = float(value) if torch_type(element).is_floating_point else int(value)
        kind: Any = TensorType(element, [])
        return self.emit(graph.ConstantOp(DenseIntOrFPElementsAttr.from_list(kind, [number])))

    def dense(self, values: Tensor) -> SSAValue:
        """A constant with these values.

        Raises:
            UserError: when it is too large for an attribute, or has no values.
        """
        if values.is_meta or type(values) is not Tensor:
            raise self.unsupported("a constant of the model has no values")
        if values.numel() > MAX_CONSTANT:
            raise self.unsupported(f"a constant of shape {list(values.shape)} is too large for the IR")
        kind: Any = TensorType(element_type(values.dtype), list(values.shape))
        plain = values.reshape(-1).float() if values.dtype.is_floating_point else values.reshape(-1).long()
        numbers = plain.tolist()
        numbers = numbers[:1] if numbers and len(set(map(repr, numbers))) == 1 else numbers
        return self.emit(graph.ConstantOp(DenseIntOrFPElementsAttr.from_list(kind, numbers)))

    def cast(self, value: SSAValue, element: Attribute) -> SSAValue:
        """The value in another element type; itself if it has it."""
        return value if element_of(value) == element else self.emit(graph.CastOp(value, element))

    # Sizes

    def size(self, value: Any) -> Dim:
        """An integer argument (a number, a symbolic integer or a node of one) as a size."""
        return affine(value.meta["val"] if isinstance(value, Node) else value, self.symbols)

    def sizes(self, node: Node, index: int | None = None) -> tuple[Dim, ...]:
        """The IR shape of a node's tensor (of its ``index``-th one).

        Raises:
            NotAffine: when it has a size that the IR cannot express.
        """
        tensor = node.meta["val"] if index is None else node.meta["val"][index]
        return tuple(d for size in tensor.shape for d in self._split(size))

    def _split(self, size: Any) -> tuple[Dim, ...]:
        """The IR dimensions of an FX dimension: two for batch · seq rows, else one."""
        return (BATCH, SEQ) if self.is_rows(size) else (affine(size, self.symbols),)

    def is_rows(self, size: Any) -> bool:
        """Whether a size is the product batch · seq."""
        expr = size.node.expr if isinstance(size, torch.SymInt) else size
        factors: Any = expr.args if isinstance(expr, sympy.Mul) else ()
        return {self.symbols.get(f) for f in factors} == {BATCH, SEQ} and len(factors) == 2

    def dims(self, node: Node, *dims: int) -> list[int]:
        """The IR dimensions of some dimensions of a node's tensor."""
        shape = node.meta["val"].shape
        counts = [2 if self.is_rows(size) else 1 for size in shape]
        starts = [sum(counts[:i]) for i in range(len(counts))]
        wanted = [d % len(shape) for d in dims] if len(shape) else []
        return [starts[d] + k for d in wanted for k in range(counts[d])]

    def dim(self, node: Node, dim: int) -> int:
        """The IR dimension of a dimension of a node's tensor, which must not be batch · seq rows."""
        found = self.dims(node, dim)
        if len(found) != 1:
            raise self.unsupported("the operator works along the rows of a flattened batch")
        return found[0]

    def aligned(self, argument: Node, like: Node) -> SSAValue:
        """An operand with a dimension of size 1 for each that rows have in the result ``like``."""
        value = self.value(argument)
        sizes, own = like.meta["val"].shape, argument.meta["val"].shape
        sizes = sizes[len(sizes) - len(own) :]
        shape = [
            d
            for size, mine in zip(sizes, own, strict=True)
            for d in ((1, 1) if self.is_rows(size) and not self.is_rows(mine) else self._split(mine))
        ]
        return self.reshape(value, shape)

    def element(self, node: Node) -> Attribute:
        """The element type of a node's tensor."""
        return element_type(node.meta["val"].dtype)

    def reshape(self, value: SSAValue, shape: Sequence[Dim]) -> SSAValue:
        """The value under another shape; itself if it has it. Chains of reshapes become one."""
        while isinstance(value.owner, graph.ReshapeOp):
            value = value.owner.input
        if same_shape(shape, shape_of(value)):
            return value
        fixed = tuple(d for d in shape if isinstance(d, int))
        weight = self.rearranged(value, ("reshape", fixed)) if len(shape) > 1 else None
        return weight or self.emit(graph.ReshapeOp(value, shape))

    def broadcast(self, value: SSAValue, shape: Sequence[Dim]) -> SSAValue:
        """The value repeated to this shape; itself if it has it."""
        same = same_shape(shape, shape_of(value))
        return value if same else self.emit(graph.BroadcastOp(value, shape))

    def transpose(self, value: SSAValue, perm: Sequence[int]) -> SSAValue:
        """The value with its dimensions in this order."""
        if list(perm) == sorted(perm):
            return value
        weight = self.rearranged(value, ("permute", tuple(perm)))
        return weight or self.emit(graph.TransposeOp(value, perm))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value)
    )


def _describe(node: Node) -> str:
    value = node.meta.get("val")
    return f"{value.dtype}{[str(s) for s in value.shape]}" if isinstance(value, Tensor) else str(value)


def _hint(node: Node) -> str | None:
    name = re.sub(r"^_+|(_(default|\d+))+$", "", node.name)
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else None


def module_path(node: Node) -> str:
    """The path of the module whose call made a node, as torch recorded it."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if isinstance(path, str)]
    return re.sub(r"@\d+", "", paths[-1]) if paths else ""
