"""A Hugging Face checkpoint becomes a module of the `graph` dialect (phase ``import``)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import cast

import sympy
import torch
from npuc.frontends import aten_compute, aten_elementwise, aten_quantize, aten_shape
from npuc.frontends.checkpoint import open_checkpoint
from npuc.frontends.declared import DeclaredCheckpoint
from npuc.frontends.element_types import element_type
from npuc.frontends.fx_import import FxImporter, module_path
from npuc.frontends.layer_kinds import LayerKind
from npuc.frontends.quantization import read_quantization
from npuc.frontends.recipes import Step
from npuc.frontends.trace_model import SIZES, TracedGraph, TracedModel, trace_model
from npuc.frontends.weight_table import WeightTable
from npuc.ir import graph
from npuc.ir.errors import UserError
from npuc.ir.graph import BATCH, CTX, SEQ
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, SymbolRefAttr, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.ir.affine import AffineExpr
from xdsl.traits import is_side_effect_free
from xdsl.utils.exceptions import VerifyException

LOWERING_TABLES = (
    aten_compute,
    aten_elementwise,
    aten_quantize,
    aten_shape,
)  # importing them registers the lowerings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SYMBOLS = dict(zip(SIZES.values(), (BATCH, SEQ, CTX), strict=True))


def import_model(
    path_or_id: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    revision: str | None = None,
    local_files_only: bool = False,
    weights: bool = True,
) -> ModuleOp:
    """Imports a causal language model.

    Args:
        path_or_id: a directory with config.json and safetensors, or a hub id.
        dtype: the compile type, ``float32`` or ``bfloat16``; weights are converted when read.
        weights: whether to look for weights; without, those of the configuration are declared.

    Raises:
        UserError: when the checkpoint, its architecture or one of its operators is not supported.
    """
    if dtype not in _DTYPES:
        raise UserError("bad-dtype", f"unknown compile type {dtype!r}", remedy="use float32 or bfloat16")
    checkpoint = open_checkpoint(path_or_id, revision=revision, local_files_only=local_files_only)
    config = checkpoint.config
    quantization = read_quantization(checkpoint.config_json, str(checkpoint.root / "config.json"))
    traced = trace_model(config, _DTYPES[dtype], quantization)
    if not weights:
        checkpoint = DeclaredCheckpoint(checkpoint.root, traced.model)
    module = ModuleImporter(traced, WeightTable(traced.model, checkpoint)).run()
    module.attributes |= _description(config, dtype)
    try:
        module.verify()
    except VerifyException as error:
        raise UserError(
            "unsupported-model",
            " ".join(str(error).split())[:300],
            where=config.model_type,
            remedy="the architecture is not supported: what was imported is not consistent",
        ) from error
    return module


def _description(config: object, dtype: str) -> dict[str, Attribute]:
    """The module's attributes: phase and facts of the configuration."""
    text = config.get_text_config()  # pyright: ignore
    result: dict[str, Attribute] = {
        "npuc.phase": StringAttr("import"),
        "npuc.model_type": StringAttr(config.model_type),  # pyright: ignore
        "npuc.dtype": StringAttr(dtype),
    }
    for key, name in (("npuc.vocab_size", "vocab_size"), ("npuc.max_context", "max_position_embeddings")):
        value = getattr(text, name, None)
        if isinstance(value, int):
            result[key] = IntegerAttr(value, i64)
    return result


def size_symbols(graphs: TracedGraph) -> dict[sympy.Symbol, AffineExpr]:
    """The meaning of each size symbol, told by the example sizes of the inputs."""
    found: dict[sympy.Symbol, AffineExpr] = {}
    for node in graphs.program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor):
            continue
        for size in value.shape:
            if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                found[size.node.expr] = _SYMBOLS[size.node.hint]
    return found


class ModuleImporter:
    """Builds the module of a traced model."""

    def __init__(self, traced: TracedModel, weights: WeightTable) -> None:
        self.traced = traced
        self.weights = weights
        self.caches: dict[tuple[int, int, int, torch.dtype], tuple[str, list[int]]] = {}
        self.used: dict[str, list[int]] = {}

    def run(self) -> ModuleOp:
        """The module: weights, caches, one function per kind of layer, and ``main``."""
        for call in self.traced.layers.calls:
            if call.kind.cache is not None:
                name = f"cache{len(self.caches)}"
                self.caches.setdefault(call.kind.cache, (name, []))[1].append(call.index)
        bodies = [self._body(kind) for kind in self.traced.layers.kinds]
        main = self._main()
        caches = [
            graph.CacheDeclOp(name, sorted(set(layers)), *key[:3], element_type(key[3]))
            for key, (name, layers) in self.caches.items()
        ]
        functions = [*bodies, main]
        self._name_weights(functions)
        return ModuleOp([*self.weights.operations(), *caches, *functions])

    def _name_weights(self, functions: Sequence[FuncOp]) -> None:
        """Gives the weights that are used their final names."""
        used = [op for function in functions for op in function.walk() if isinstance(op, graph.ParamOp)]
        names = self.weights.finish([op.symbol.string_value() for op in used])
        for op in used:
            op.symbol = SymbolRefAttr(names[op.symbol.string_value()])

    def _body(self, kind: LayerKind) -> FuncOp:
        """The function of a kind of layer: carried values, then the extras that it uses."""
        traced = self.traced.bodies[kind.name]
        inputs = _user_inputs(traced)[1:]  # the first only carries the size ctx
        extras = [i for i, n in enumerate(inputs) if i not in kind.carried and _is_read(n)]
        self.used[kind.name] = extras
        order = (*kind.carried, *extras)
        names = kind.names if len(kind.names) == len(inputs) else [n.name for n in inputs]
        function = self._function(kind.name, traced, [inputs[i] for i in order], kind)
        for argument, i in zip(function.body.block.args, order, strict=True):
            argument.name_hint = names[i]
        return function

    def _main(self) -> FuncOp:
        traced = self.traced.main
        inputs = _user_inputs(traced)[: len(self.traced.input_names)]
        function = self._function("main", traced, inputs, None)
        for argument, name in zip(function.body.block.args, self.traced.input_names, strict=True):
            argument.name_hint = name
        return function

    def _function(
        self, name: str, traced: TracedGraph, inputs: Sequence[Node], kind: LayerKind | None
    ) -> FuncOp:
        """The function of a traced graph; ``kind`` is None for the graph of the whole model."""
        cache = None if kind is None or kind.cache is None else self.caches[kind.cache][0]
        block = Block()
        members = None if kind is None else kind.members
        importer = FxImporter(
            block,
            size_symbols(traced),
            lambda node: _location(traced, node),
            lambda imp, node, steps, element: self._parameter(imp, traced, node, members, steps, element),
            cache,
            self._layers if kind is None else None,
            has_values=self.weights.has_values,
        )
        for node in inputs:
            importer.argument(node)
        nodes = list(traced.program.graph.nodes)
        importer.run(nodes)
        results = [importer.value(node) for node in _user_outputs(traced)]
        importer.builder.insert(ReturnOp(*results))
        _merge_layers(block)
        _sort(block)
        visibility = "public" if kind is None else "private"
        types = [argument.type for argument in block.args], [r.type for r in results]
        return FuncOp(name, types, Region(block), visibility)

    def _parameter(
        self,
        imp: FxImporter,
        traced: TracedGraph,
        node: Node,
        layers: Sequence[int] | None,
        steps: tuple[Step, ...],
        element: Attribute | None,
    ) -> SSAValue:
        """A weight symbol's value, or the constant that a non-persistent buffer is."""
        spec = next(s for s in traced.program.graph_signature.input_specs if s.arg.name == node.name)
        target = spec.target or node.name
        if spec.kind is InputKind.CONSTANT_TENSOR:
            return imp.dense(cast(torch.Tensor, traced.program.constants[target]))
        name = target.removeprefix(traced.strip + ".")
        path = f"{traced.prefix}.{name}" if traced.prefix else name
        if spec.kind is InputKind.BUFFER and not spec.persistent:
            return self._buffer(imp, path, layers)
        value = node.meta["val"]
        element = element or element_type(value.dtype)
        symbol, kind = self.weights.declare(path, tuple(value.shape), element, layers, steps)
        result = imp.emit(graph.ParamOp(symbol, kind))
        result.name_hint = "_".join(part for part in path.split(".")[-2:] if part.isidentifier())
        return result

    def _buffer(self, imp: FxImporter, path: str, layers: Sequence[int] | None) -> SSAValue:
        full = path.format(layers[0]) if layers else path
        if full in self.traced.uninitialized:
            raise UserError(
                "missing-constant",
                f"the buffer {full} has no values: the model's _init_weights does not fill it",
                where=full,
                remedy="the architecture cannot be imported until transformers initializes this buffer",
            )
        return imp.dense(self.traced.model.get_buffer(full))

    def _layers(self, imp: FxImporter, node: Node) -> Sequence[SSAValue]:
        """The layers of a chain one by one; ``carried`` are the places of what each replaces."""
        inputs, carried, chain = cast(tuple[list[Node], list[int], int], node.args)
        values = [imp.value(x) for x in inputs]
        current = {place: values[place] for place in carried}
        for link in self.traced.layers.chains[chain]:
            name, places = link.kind.name, [link.inputs[i] for i in link.kind.carried]
            extras = [values[link.inputs[i]] for i in self.used[name]]
            op = graph.LayersOp(name, [link.index], [current[place] for place in places], extras)
            imp.emit(op)
            op.attributes["module"] = StringAttr(link.kind.path)
            for place, result in zip(places, op.results, strict=True):
                current[place] = result
                result.name_hint = "layer"
        return [current[place] for place in carried]


def _location(traced: TracedGraph, node: Node) -> str:
    """The checkpoint's module path of a node."""
    path = module_path(node)
    path = path[len(traced.strip) :].lstrip(".") if path.startswith(traced.strip) else path
    return ".".join(part for part in (traced.prefix, path) if part)


def _user_inputs(traced: TracedGraph) -> list[Node]:
    names = traced.program.graph_signature.user_inputs
    nodes: Mapping[str, Node] = {n.name: n for n in traced.program.graph.nodes if n.op == "placeholder"}
    return [nodes[str(name)] for name in names]


def _user_outputs(traced: TracedGraph) -> list[Node]:
    output = next(n for n in traced.program.graph.nodes if n.op == "output")
    specs = traced.program.graph_signature.output_specs
    pairs = zip(specs, output.args[0], strict=True)
    return [node for spec, node in pairs if spec.kind is OutputKind.USER_OUTPUT]


def _is_read(node: Node) -> bool:
    """Whether a tensor's values are used, not only its sizes."""
    return any("sym_size" not in str(user.target) for user in node.users)


def _merge_layers(block: Block) -> None:
    """Joins consecutive layers of one kind that pass on what they carry and share their extras."""
    previous: graph.LayersOp | None = None
    for op in list(block.ops):
        if not isinstance(op, graph.LayersOp):
            continue
        joins = (
            previous is not None
            and previous.callee == op.callee
            and tuple(op.carried) == tuple(previous.outputs)
            and tuple(op.extras) == tuple(previous.extras)
            and all(r.has_one_use() for r in previous.outputs)
        )
        if previous is None or not joins:
            previous = op
            continue
        merged = (*previous.layer_list, *op.layer_list)
        previous.layers = graph.LayersOp(op.callee.string_value(), merged, (), ()).layers
        for old, new in zip(op.outputs, previous.outputs, strict=True):
            old.replace_all_uses_with(new)
        op.detach()
        op.erase()


def _sort(block: Block) -> None:
    """Puts each operation before its first use and removes pure ones without uses.

    Models iterate over sets; the order of what they compute must not depend on it. Operations with
    effects keep their order.
    """
    operations = list(block.ops)
    effects = [op for op in operations if not is_side_effect_free(op)]
    order = _before([operations[-1]])
    if [op for op in order if op in set(effects)] != effects:
        order = _before(effects)
    for op in operations:
        op.detach()
    block.add_ops(order)
    for op in reversed(operations):
        if op not in order:
            op.erase()


def _before(roots: Sequence[Operation]) -> dict[Operation, None]:
    """The roots and all they use, each operation after its operands."""
    order: dict[Operation, None] = {}
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        op, ready = stack.pop()
        if ready:
            order[op] = None
        elif op not in order:
            owners = [operand.owner for operand in op.operands]
            stack.append((op, True))
            stack += [(o, False) for o in reversed(owners) if isinstance(o, Operation) and o not in order]
    return order
