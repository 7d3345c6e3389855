"""The data flow of `graph` functions as nodes and edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from npuc.ir import graph
from npuc.ir.graph_types import shape_text
from xdsl.dialects.builtin import ModuleOp, StringAttr, TensorType
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, OpResult, SSAValue

LEAVES = (graph.ParamOp, graph.ConstantOp, graph.IotaOp)
"""What is noted at its users instead of being a node: weights, constants, indices."""


@dataclass
class Node:
    """An operation, an argument or the results of a function.

    Attributes:
        name: of the value, or of the argument.
        operation: its kind; ``argument`` or ``results``.
        module: checkpoint module path.
        type: of the first result.
        origin: line of the IR at the start, 0 for none.
        inputs: numbers of the nodes that it takes values from.
        weights: names of the weights and constants that it takes.
        callee: the function that it runs.
    """

    name: str
    operation: str
    module: str
    type: str
    origin: int
    inputs: list[int] = field(default_factory=list[int])
    weights: list[str] = field(default_factory=list[str])
    callee: str = ""


@dataclass
class Graph:
    """A function.

    Attributes:
        name: with those of the modules around it.
        layers: the model's layers that it is the body of.
        nodes: in order of the text, so that inputs come first.
    """

    name: str
    layers: tuple[int, ...]
    nodes: list[Node]


def graphs_of(module: ModuleOp, origin_of: Callable[[Operation], int]) -> list[Graph]:
    """The functions of a module, and of those in it."""
    layers: dict[str, tuple[int, ...]] = {}
    for op in module.walk():
        if isinstance(op, graph.LayersOp):
            callee = f"{_place(op)}{op.callee.string_value()}"
            layers[callee] = tuple(dict.fromkeys((*layers.get(callee, ()), *op.layer_list)))
    return [
        Graph(name, layers.get(name, ()), _Nodes(origin_of).of(op))
        for op in module.walk()
        if isinstance(op, FuncOp)
        for name in [f"{_place(op)}{op.sym_name.data}"]
    ]


def _place(op: Operation) -> str:
    """The symbols of the modules around an operation, with a slash after each."""
    names: list[str] = []
    parent = op.parent_op()
    while parent is not None:
        symbol = parent.get_attr_or_prop("sym_name")
        if isinstance(parent, ModuleOp) and isinstance(symbol, StringAttr):
            names.append(symbol.data + "/")
        parent = parent.parent_op()
    return "".join(reversed(names))


@dataclass
class _Nodes:
    origin_of: Callable[[Operation], int]
    nodes: list[Node] = field(default_factory=list[Node])
    numbers: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])

    def of(self, function: FuncOp) -> list[Node]:
        block = function.body.block
        for argument in block.args:
            name = argument.name_hint or f"arg{argument.index}"
            self._add(Node(name, "argument", "", _type_text(argument.type), 0), [argument])
        self._block(block)
        return self.nodes

    def _block(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, graph.RowsOp):
                self._rows(op)
            elif not isinstance(op, (*LEAVES, graph.YieldOp)):
                self._operation(op)

    def _rows(self, op: graph.RowsOp) -> None:
        """The operations inside stand for the whole."""
        for argument, value in zip(op.body.block.args, op.inputs, strict=True):
            if value in self.numbers:
                self.numbers[argument] = self.numbers[value]
        self._block(op.body.block)
        for result, value in zip(op.outputs, op.yielded.values, strict=True):
            self.numbers[result] = self.numbers[value]

    def _operation(self, op: Operation) -> None:
        module = op.attributes.get("module")
        kind = "results" if isinstance(op, ReturnOp) else op.name
        name = op.results[0].name_hint or "" if op.results else ""
        result = _type_text(op.results[0].type) if op.results else ""
        node = Node(
            name, kind, module.data if isinstance(module, StringAttr) else "", result, self.origin_of(op)
        )
        node.inputs = list(dict.fromkeys(self.numbers[v] for v in op.operands if v in self.numbers))
        node.weights = list(_leaves(op))
        if isinstance(op, graph.LayersOp | CallOp):
            node.callee = op.callee.string_value()
        self._add(node, list(op.results))

    def _add(self, node: Node, values: list[OpResult] | list[BlockArgument]) -> None:
        self.numbers |= dict.fromkeys(values, len(self.nodes))
        self.nodes.append(node)


def _leaves(op: Operation) -> Iterator[str]:
    for value in op.operands:
        owner = value.owner
        if isinstance(owner, graph.ParamOp):
            yield owner.symbol.string_value()
        elif isinstance(owner, LEAVES):
            yield f"%{value.name_hint}" if value.name_hint else owner.name.removeprefix("graph.")


def _type_text(kind: Attribute) -> str:
    if not isinstance(kind, TensorType):
        return str(kind)
    return f"{shape_text(graph.shape_of(kind))} {kind.element_type}"


def rows_of(nodes: list[Node]) -> list[int]:
    """The row of each node in a drawing: below all nodes that it takes values from.

    What depends on no argument, weights and constants alone, stands just above its first user.
    """
    rows: list[int] = []
    first: list[int] = []  # row of each node's first user
    floating: list[bool] = []
    for node in nodes:
        rows.append(max((rows[i] + 1 for i in node.inputs), default=0))
        floating.append(node.operation != "argument" and all(floating[i] for i in node.inputs))
        first.append(0)
    for number in reversed(range(len(nodes))):
        if floating[number] and first[number]:
            rows[number] = first[number] - 1
        for source in nodes[number].inputs:
            first[source] = min(first[source] or rows[number], rows[number])
    return rows
