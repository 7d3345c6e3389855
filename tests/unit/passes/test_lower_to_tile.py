"""What lower-to-tile makes of graph functions, as numbers."""

from collections.abc import Mapping

import pytest
import torch
from npuc.ir.interpret_tile import TileMemory, interpret_tile
from npuc.ir.parsing import IRParser
from npuc.passes.lower_to_tile import LowerToTilePass
from npuc.passes.pipeline import context
from npuc.passes.target_option import machine_of
from xdsl.dialects.builtin import ModuleOp

BUCKET = '{kind = "decode", batch = 1 : i64, new_tokens = 1 : i64, length = 16 : i64}'


def lowered(function: str, weights: str = "") -> ModuleOp:
    """A bucket with one function, on rngd."""
    text = f"builtin.module @decode_1x16 attributes {{npuc.bucket = {BUCKET}}} {{{function}}}"
    module = IRParser(context(), f"builtin.module {{ {weights} {text} }}").parse_module()
    LowerToTilePass(target="rngd").apply(context(), module)
    (bucket,) = (op for op in module.body.block.ops if isinstance(op, ModuleOp))
    return bucket


def run(
    program: ModuleOp, x: torch.Tensor, weights: Mapping[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """What the function @body makes of x, both as they lie in the slices; weights are packed."""
    machine = machine_of("rngd")
    slices = {n: m.slices for n, m in machine.memories.items()}
    memory = TileMemory(slices, lambda symbol, layer: (weights or {})[symbol])
    result = torch.full_like(x, torch.nan)
    interpret_tile(program, "body", [x, result], memory)
    return result


def test_a_cast_rounds_where_the_ir_says_so() -> None:
    """bf16(x + 1) · 2 of numbers that bf16 cannot hold: without the rounding they would come out whole."""
    kind = "tensor<1x1x256x{}, #tile.sliced<4>>"
    wide, narrow = kind.format("f32"), kind.format("bf16")
    text = f"""
      func.func private @body(%x : {wide}) -> {wide} {{
        %one = graph.constant dense<1.0> : tensor<f32>
        %two = graph.constant dense<2.0> : tensor<f32>
        %a = graph.add %x, %one : {wide}
        %b = graph.cast %a : {narrow}
        %c = graph.cast %b : {wide}
        %d = graph.mul %c, %two : {wide}
        func.return %d : {wide}
      }}"""
    x = torch.linspace(0.001, 3.0, 256).view(64, 1, 1, 4)
    expected = (x + 1).to(torch.bfloat16).float() * 2
    assert not torch.equal(expected, (x + 1) * 2)
    assert torch.equal(run(lowered(text), x), expected)


NORM = """
  graph.weight @g : tensor<1024xf32> sources [{}]
  tile.packed @g0 of @g : memref<1024xf32, "hbm"> recipe [pad [1024]] offset 0 stride 0
"""


@pytest.mark.parametrize(("block", "columns"), [(1, 4), (2, 8), (4, 32), (8, 64)])
def test_norms_on_a_grid_of_slices(block: int, columns: int) -> None:
    """Rows are dealt to the grid's rows in blocks, two of them to each; a row's sum is over its columns."""
    down = 64 // columns
    rows, kind = 2 * block * down, "tensor<1xROWSx1024xf32, #tile.grid<BLOCK, COLUMNS>>"
    text = f"""
      func.func private @body(%x : {kind}) -> {kind} {{
        %g = graph.param @g0 : tensor<1024xf32, #tile.grid<0, COLUMNS>>
        %whole = graph.param @g0 : tensor<1024xf32, #tile.replicated>
        %h = graph.relayout %whole : tensor<1024xf32, #tile.grid<0, COLUMNS>>
        %a = graph.add %x, %h : {kind}
        %b = graph.rms_norm %a, %g eps 1.0e-05 : {kind}
        func.return %b : {kind}
      }}"""
    for name, number in {"ROWS": rows, "BLOCK": block, "COLUMNS": columns}.items():
        text = text.replace(name, str(number))
    torch.manual_seed(0)
    x, g = torch.randn(rows, 1024), torch.randn(1024)

    def parts(value: torch.Tensor) -> torch.Tensor:
        dealt = value.view(2, down, block, columns, 1024 // columns)
        return dealt.permute(1, 3, 0, 2, 4).reshape(64, -1).contiguous()

    expected = torch.nn.functional.rms_norm((x + g).double(), (1024,), g.double(), 1e-5).float()
    found = run(lowered(text, NORM), parts(x), {"g0": g})
    torch.testing.assert_close(found, parts(expected), rtol=2e-6, atol=2e-6)


FP8 = """
  graph.weight @w : tensor<256x256xf8E4M3FN> sources [{}]
  tile.packed @w0 of @w : memref<1xPARTSx64x4xWIDTHxf8E4M3FN, "hbm"> recipe [
    reshape [64, 4, 64, PARTS, DEPTH], permute [3, 0, 1, 2, 4], reshape [1, PARTS, 64, 4, WIDTH]
  ] offset 0 stride 0
  graph.weight @s : tensor<2xf32> sources [{}]
  tile.packed @s0 of @s : memref<4xf32, "hbm"> recipe [pad [4]] offset 0 stride 0
  graph.weight @v : tensor<256xf32> sources [{}]
  tile.packed @v0 of @v : memref<64x1x4xf32, "hbm"> recipe [reshape [64, 1, 4]] offset 0 stride 0
"""
"""A weight of a linear layer, two scalars that lie in one parameter, and a vector."""

LAYER = """
  func.func private @body(%x : XxBF16) -> XxBF16 {
    %w = graph.param @w0 : tensor<256x256xf8E4M3FN, #tile.host>
    %s = graph.param @s0 : tensor<2xf32, #tile.replicated>
    %v = graph.param @v0 : tensor<256xf32, #tile.sliced<4>>
    %a = graph.slice %s [0:1] : tensor<1xf32, #tile.replicated>
    %input = graph.reshape %a : tensor<f32, #tile.replicated>
    %b = graph.slice %s [1:2] : tensor<1xf32, #tile.replicated>
    %scale = graph.reshape %b : tensor<f32, #tile.replicated>
    %low = graph.constant dense<-4.480000e+02> : tensor<f32>
    %high = graph.constant dense<4.480000e+02> : tensor<f32>
    %wide = graph.cast %x : XxF32
    %divided = graph.div %wide, %input : XxF32
    %raised = graph.maximum %divided, %low : XxF32
    %clamped = graph.minimum %raised, %high : XxF32
    %q = graph.cast %clamped : XxF8
    %y = graph.linear %q, %w bias %v scale SCALE : XxBF16
    func.return %y : XxBF16
  }"""


@pytest.mark.parametrize("scale", ["%scale", "%v"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("rows", [1, 512])
def test_scales_and_biases_from_wherever_it_pays(rows: int, parts: int, scale: str) -> None:
    """Division and product by scales that are no powers of two, and bias, each as torch has it, in f32."""
    torch.manual_seed(0)
    x = (torch.randn(rows, 256) * 3).bfloat16()
    w = torch.randint(-4, 5, (256, 256)).to(torch.float8_e4m3fn)
    scalars, vector = torch.tensor([0.37, 0.0173]), torch.randn(256)
    weights = {
        "w0": w.view(64, 4, 64, parts, 4 // parts).permute(3, 0, 1, 2, 4).contiguous(),
        "s0": torch.cat([scalars, torch.zeros(2)]),
        "v0": vector,
    }
    kind = f"tensor<1x{rows}x256x{{}}, #tile.sliced<4>>"
    sizes = {"PARTS": str(parts), "WIDTH": str(256 // parts), "DEPTH": str(4 // parts), "SCALE": scale}
    types = {"XxBF16": "bf16", "XxF32": "f32", "XxF8": "f8E4M3FN"}
    function, declared = LAYER, FP8
    for name, text in (sizes | {n: kind.format(element) for n, element in types.items()}).items():
        function, declared = function.replace(name, text), declared.replace(name, text)

    q = (x.float() / scalars[0]).clamp(-448, 448).to(torch.float8_e4m3fn)
    products = (q.double() @ w.double().T).float()
    expected = (products * (scalars[1] if scale == "%scale" else vector) + vector).bfloat16()
    cut = x.view(rows, 64, 4).transpose(0, 1).reshape(64, 1, rows, 4).contiguous()
    found = run(lowered(function, declared), cut, weights)
    assert torch.equal(found.view(64, rows, 4).transpose(0, 1).reshape(rows, 256), expected)
