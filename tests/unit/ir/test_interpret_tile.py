"""The tile interpreter on modules in text: weights, caches, runtime parameters, gathers, poison, errors."""

from collections.abc import Callable

import pytest
import torch
from npuc.ir.errors import UserError
from npuc.ir.interpret import Runtime
from npuc.ir.interpret_tile import TileMemory, interpret_tile
from npuc.ir.parsing import IRParser
from npuc.passes.pipeline import context
from xdsl.dialects.builtin import ModuleOp

SLICES = {"dm": 2}


def parse(text: str) -> ModuleOp:
    module = IRParser(context(), text).parse_module()
    module.verify()
    return module


def no_weight(symbol: str, layer: int | None) -> torch.Tensor:
    raise AssertionError(symbol)


def memory(weight: Callable[[str, int | None], torch.Tensor] = no_weight, **given: object) -> TileMemory:
    return TileMemory(SLICES, weight, **given)  # type: ignore[arg-type]


LAYERS = """
  "graph.weight"() {sym_name = "w", type = tensor<4xf32>, sources = [{}, {}, {}], layers = array<i64: 0, 1, 2>} : () -> ()
  "tile.packed"() {sym_name = "w#0", weight = @w, type = memref<4xf32, "hbm">, recipe = [], offset = 0 : i64, stride = 256 : i64, layers = array<i64: 0, 1, 2>} : () -> ()
  "tile.cache_decl"() {sym_name = "c", layers = array<i64: 0, 1, 2>, key_type = memref<1x4x1xf32, "hbm">, value_type = memref<1x4x1xf32, "hbm">, slots = 2 : i64, offset = 0 : i64, layer_stride = 512 : i64, slot_stride = 256 : i64, value_offset = 128 : i64} : () -> ()
"""  # noqa: E501
COPY = "operandSegmentSizes = array<i32: 2, {indices}>, size = array<i64: 4>, ports = {{src = {{buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}}, dst = {{buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 1>}}}}"  # noqa: E501


def test_a_loop_over_layers_reads_their_weights_and_writes_their_caches() -> None:
    """Weights come by the ordinal; the row's slot and its number of valid elements by runtime parameters."""
    module = parse(f"""
    {LAYERS}
    func.func @main() {{
      %row = "tile.constant"() {{value = 1 : i64}} : () -> index
      %slot = "tile.runtime"(%row) {{parameter = "slot"}} : (index) -> index
      %valid = "tile.runtime"(%row) {{parameter = "valid"}} : (index) -> index
      "tile.for"() ({{
      ^bb0(%i : index):
        %w = "tile.weight"(%i) {{symbol = @"w#0"}} : (index) -> memref<4xf32, "hbm">
        %k = "tile.cache"(%i, %slot) {{symbol = @c, part = "key"}} : (index, index) -> memref<1x4x1xf32, "hbm">
        "tile.copy"(%w, %k, %valid) {{{COPY.format(indices=1)}, limit = {{dim = 0 : i64, limit = 0 : i64, slice_stride = 0 : i64, index = 0 : i64}}}} : (memref<4xf32, "hbm">, memref<1x4x1xf32, "hbm">, index) -> ()
      }}) {{count = 2 : i64, start = 1 : i64}} : () -> ()
      func.return
    }}""")  # noqa: E501
    weights = torch.arange(12.0).view(3, 4)
    caches = {("c", part): torch.zeros(3, 2, 1, 4, 1) for part in ("key", "value")}
    runtime = Runtime([0, 1], [0, 0], [4, 3], 4)
    found = memory(lambda symbol, layer: weights[layer or 0], caches=caches, runtime=runtime)
    interpret_tile(module, "main", [], found)
    expected = torch.zeros(3, 2, 4)
    expected[1:, 1, :3] = weights[1:, :3]
    assert torch.equal(caches["c", "key"].view(3, 2, 4), expected)
    assert not caches["c", "value"].any()


def test_unwritten_buffers_are_poison() -> None:
    module = parse(f"""
    func.func @main(%y : memref<2x2xf32, "dm">, %n : memref<2x2xi32, "dm">) {{
      %a = "tile.alloc"() : () -> memref<2x2xf32, "dm">
      %b = "tile.alloc"() : () -> memref<2x2xi32, "dm">
      "tile.copy"(%a, %y) {{{COPY.format(indices=0)}}} : (memref<2x2xf32, "dm">, memref<2x2xf32, "dm">) -> ()
      "tile.copy"(%b, %n) {{{COPY.format(indices=0)}}} : (memref<2x2xi32, "dm">, memref<2x2xi32, "dm">) -> ()
      func.return
    }}""")
    floats, integers = torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int32)
    interpret_tile(module, "main", [floats, integers], memory())
    assert floats.isnan().all()
    assert (integers == 0x55555555).all()


def test_a_gather_reads_rows_by_a_list() -> None:
    module = parse("""
    func.func @main(%table : memref<5x3xf32, "hbm">, %ids : memref<4xi32, "hbm">, %y : memref<4x3xf32, "hbm">) {
      "tile.copy"(%table, %ids, %y) {operandSegmentSizes = array<i32: 3, 0>, size = array<i64: 4, 3>, index_dim = 0 : i64, index_scale = 3 : i64, ports = {src = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 0, 1>}, index = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 1>}, dst = {buffer = 2 : i64, offset = 0 : i64, strides = array<i64: 3, 1>}}} : (memref<5x3xf32, "hbm">, memref<4xi32, "hbm">, memref<4x3xf32, "hbm">) -> ()
      func.return
    }""")  # noqa: E501
    table, ids = torch.randn(5, 3), torch.tensor([4, 0, 4, 2], dtype=torch.int32)
    found = torch.zeros(4, 3)
    interpret_tile(module, "main", [table, ids, found], memory())
    assert torch.equal(found, table[ids])


def test_passes_are_observed_with_their_buffers() -> None:
    module = parse("""
    func.func @main(%x : memref<2x4xf32, "dm">) {
      "tile.pass"(%x) {operandSegmentSizes = array<i32: 1, 0>, size = array<i64: 4>, chain = [{op = "exp"}], ports = {stream = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}, out = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}}} : (memref<2x4xf32, "dm">) -> ()
      func.return
    }""")  # noqa: E501
    x = torch.randn(2, 4)
    expected, seen = x.exp(), []
    interpret_tile(module, "main", [x], memory(), observe=lambda op, buffers: seen.append((op.name, buffers)))
    torch.testing.assert_close(x, expected)
    ((name, (buffer,)),) = seen
    assert name == "tile.pass"
    assert torch.equal(buffer.flat.view(2, 4), x)


EMPTY = 'func.func @main(%x : memref<4xf32, "hbm">) { func.return }'


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("body", [], "no function @body .there are: main."),
        ("main", [], "@main takes 1 arguments, 0 are given"),
        ("main", [torch.zeros(5)], "argument 0 has 5 elements of torch.float32, expected 4 of torch.float32"),
        ("main", [torch.zeros(4, dtype=torch.int32)], "argument 0 has 4 elements of torch.int32"),
    ],
)
def test_calls_that_do_not_fit_are_refused(name: str, arguments: list[torch.Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        interpret_tile(parse(EMPTY), name, arguments, memory())
