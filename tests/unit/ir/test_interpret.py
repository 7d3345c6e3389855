"""The interpreter of graph-level modules on small hand-written programs."""

from __future__ import annotations

import pytest
import torch
from npuc.ir import graph
from npuc.ir.errors import UserError
from npuc.ir.graph import BATCH, CTX, SEQ, tensor_type
from npuc.ir.interpret import Caches, Runtime, interpret
from torch import Tensor
from xdsl.builder import Builder
from xdsl.dialects import test
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, TensorType, f32, i32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint


class Weights:
    """Weights whose value is the layer's number plus one, or ten."""

    def read(self, weight: graph.WeightOp, layer: int | None = None) -> Tensor:
        shape = graph.static_shape(weight.type)
        return torch.full(shape, 10.0 if layer is None else layer + 1.0)


class Function:
    """Builds one function."""

    def __init__(self, name: str, types: list[Attribute]) -> None:
        self.name, self.block = name, Block(arg_types=types)
        self.builder = Builder(InsertPoint.at_end(self.block))
        self.args = list(self.block.args)

    def add(self, op: Operation) -> SSAValue:
        self.builder.insert(op)
        return op.results[0]

    def finish(self, *results: SSAValue) -> FuncOp:
        self.builder.insert(ReturnOp(*results))
        types = [a.type for a in self.block.args], [r.type for r in results]
        return FuncOp(self.name, types, Region(self.block))


def test_sizes_come_from_the_arguments() -> None:
    main = Function("main", [tensor_type((BATCH, SEQ, 4), f32)])
    flat = main.add(graph.ReshapeOp(main.args[0], (BATCH, SEQ * 4)))
    index = main.add(graph.IotaOp((BATCH, SEQ * 4), 1))
    summed = main.add(graph.binary("add", flat, main.add(graph.CastOp(index, f32))))
    module = ModuleOp([main.finish(summed)])
    (result,) = interpret(module, [torch.zeros(2, 3, 4)], Weights())
    assert torch.equal(result, torch.arange(12.0).repeat(2, 1))


def test_ctx_comes_from_the_runtime_parameters() -> None:
    main = Function("main", [tensor_type((BATCH, SEQ), i32)])
    module = ModuleOp([main.finish(main.add(graph.IotaOp((CTX,), 0)))])
    tokens = torch.zeros(1, 2, dtype=torch.int32)
    (result,) = interpret(module, [tokens], Weights(), runtime=Runtime([0], [0], [2], 7))
    assert result.tolist() == list(range(7))
    (result,) = interpret(module, [tokens], Weights())
    assert result.tolist() == [0, 1]


def layered() -> ModuleOp:
    """Two layers add their weight and what the cache held at each position."""
    hidden = tensor_type((BATCH, SEQ, 2), f32)
    body = Function("body", [hidden])
    weight = body.add(graph.ParamOp("w{}", TensorType(f32, [2])))
    total = body.add(graph.binary("add", body.args[0], weight))
    heads = body.add(graph.ReshapeOp(total, (BATCH, 1, SEQ, 2)))
    update = graph.KvUpdateOp(heads, heads, "cache0")
    body.add(update)
    seen = body.add(graph.ReduceOp(update.keys, "sum", [1, 2], False))
    wide = body.add(graph.ReshapeOp(seen, (BATCH, 1, 2)))
    result = body.add(graph.binary("add", total, wide))
    main = Function("main", [hidden])
    out = main.add(graph.LayersOp("body", [0, 1], [main.args[0]], []))
    source = DictionaryAttr({})
    return ModuleOp(
        [
            graph.WeightOp("w{}", TensorType(f32, [2]), [source, source], [0, 1]),
            graph.CacheDeclOp("cache0", [0, 1], 1, 2, 2, f32),
            body.finish(result),
            main.finish(out),
        ]
    )


def test_layers_weights_and_caches() -> None:
    module = layered()
    caches = Caches.allocate(module, slots=2, length=4)
    assert caches.keys["cache0"].shape == (2, 2, 1, 4, 2)
    x = torch.zeros(1, 1, 2)
    (first,) = interpret(module, [x], Weights(), caches, Runtime([1], [0], [1], 4))
    # layer 0: 0 + 1, cache sums to 1 → 2; layer 1: 2 + 2, cache sums to 4 → 8
    assert first.tolist() == [[[8.0, 8.0]]]
    assert caches.keys["cache0"][:, 1, 0, 0, 0].tolist() == [1.0, 4.0]
    assert not caches.keys["cache0"][:, 0].any()
    (second,) = interpret(module, [x], Weights(), caches, Runtime([1], [1], [1], 4))
    # layer 0: 1, cache 1 + 1 → 3; layer 1: 5, cache 4 + 5 → 14
    assert second.tolist() == [[[14.0, 14.0]]]


def test_every_operation_is_observed_with_its_layer() -> None:
    module = layered()
    seen: list[tuple[str, int | None]] = []
    interpret(
        module, [torch.zeros(1, 1, 2)], Weights(), Caches.allocate(module, 1, 1), Runtime([0], [0], [1], 1),
        observe=lambda op, layer, results: seen.append((op.name, layer)),
    )  # fmt: skip
    assert ("graph.kv_update", 0) in seen
    assert ("graph.kv_update", 1) in seen
    assert seen[-1] == ("graph.layers", None)


def test_wrong_arguments() -> None:
    main = Function("main", [tensor_type((BATCH, SEQ), f32), tensor_type((BATCH, 4), f32)])
    module = ModuleOp([main.finish(main.args[0])])
    with pytest.raises(UserError, match="takes 2 arguments, got 1"):
        interpret(module, [torch.zeros(2, 3)], Weights())
    with pytest.raises(UserError, match="rank 1, expected 2"):
        interpret(module, [torch.zeros(2), torch.zeros(2, 4)], Weights())
    with pytest.raises(UserError, match="expected 4 instead of 5"):
        interpret(module, [torch.zeros(2, 3), torch.zeros(2, 5)], Weights())
    with pytest.raises(UserError, match="expected 2 instead of 3"):
        interpret(module, [torch.zeros(2, 3), torch.zeros(3, 4)], Weights())
    with pytest.raises(UserError, match=r"type torch\.int32"):
        interpret(module, [torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 4)], Weights())
    with pytest.raises(UserError, match="no function @other"):
        interpret(module, [], Weights(), function="other")


def test_an_operation_without_kernel() -> None:
    main = Function("main", [TensorType(f32, [2])])
    main.add(test.TestOp(operands=main.args, result_types=[TensorType(f32, [2])]))
    module = ModuleOp([main.finish(main.args[0])])
    with pytest.raises(UserError, match=r"test\.op has no kernel"):
        interpret(module, [torch.zeros(2)], Weights())


def test_caches_are_needed() -> None:
    with pytest.raises(UserError, match="@cache0 needs caches"):
        interpret(layered(), [torch.zeros(1, 1, 2)], Weights())
