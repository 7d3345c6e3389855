"""What lower-to-tile makes of graph functions, as numbers."""

import torch
from npuc.ir.interpret_tile import TileMemory, interpret_tile
from npuc.ir.parsing import IRParser
from npuc.passes.lower_to_tile import LowerToTilePass
from npuc.passes.pipeline import context
from npuc.passes.target_option import machine_of
from xdsl.dialects.builtin import ModuleOp

BUCKET = '{kind = "decode", batch = 1 : i64, new_tokens = 1 : i64, length = 16 : i64}'


def lowered(function: str) -> ModuleOp:
    """A bucket with one function, on rngd."""
    text = f"builtin.module @decode_1x16 attributes {{npuc.bucket = {BUCKET}}} {{{function}}}"
    module = IRParser(context(), f"builtin.module {{ {text} }}").parse_module()
    LowerToTilePass(target="rngd").apply(context(), module)
    (bucket,) = (op for op in module.body.block.ops if isinstance(op, ModuleOp))
    return bucket


def no_weight(symbol: str, layer: int | None) -> torch.Tensor:
    raise AssertionError(symbol)


def run(program: ModuleOp, x: torch.Tensor) -> torch.Tensor:
    """What the function @body makes of x, both as they lie in the slices."""
    machine = machine_of("rngd")
    memory = TileMemory({n: m.slices for n, m in machine.memories.items()}, no_weight)
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
