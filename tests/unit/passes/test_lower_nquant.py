"""What a machine's types decide in `lower-nquant`, and that layers of stored values compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from npuc.ir import kernels
from npuc.passes.lower_nquant import LowerNquantPass, multiplies
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import Float8E4M3FNType, ModuleOp, f16, i8
from xdsl.ir import Attribute
from xdsl.utils.exceptions import PassFailedException

TOY = str(Path(__file__).parents[2] / "toy" / "toy.npu")
FP8 = Float8E4M3FNType()


@pytest.mark.parametrize(
    ("target", "element", "expected"),
    [("rngd", FP8, True), ("rngd", f16, False), (TOY, FP8, False), (TOY, i8, True), (TOY, f16, False)],
)
def test_products_of_a_type(target: str, element: Attribute, expected: bool) -> None:
    assert multiplies(machine_of(target), element) is expected


def test_a_machine_without_the_type(parse_ir: Callable[[str], ModuleOp]) -> None:
    module = parse_ir(
        """
        graph.weight @w : tensor<8x4x!nquant.quantized<f8E4M3FN : f32, tensor>> sources [{file = "w"}]
        graph.weight @s : tensor<f32> sources [{file = "s"}]
        func.func @f(%x : tensor<2x4xf32>) -> tensor<2x8xf32> {
          %w = graph.param @w : tensor<8x4x!nquant.quantized<f8E4M3FN : f32, tensor>>
          %s = graph.param @s : tensor<f32>
          %b = nquant.dequantize %w, %s : tensor<8x4xf32>
          %y = graph.linear %x, %b : tensor<2x8xf32>
          func.return %y : tensor<2x8xf32>
        }
        """
    )
    with pytest.raises(PassFailedException, match="toy has no type f8E4M3FN; its types are f32, bf16, i32"):
        LowerNquantPass(TOY).apply(Context(), module)


@pytest.mark.parametrize("scale", [torch.tensor(0.25), torch.tensor([0.5, 2.0])])
def test_a_layer_of_stored_values(scale: torch.Tensor) -> None:
    """By hand: (1·3 − 2·4) and (1·127 + 2·1), times the scales, plus the bias, rounded to bf16 once."""
    x = torch.tensor([[1.0, 2.0]]).to(torch.float8_e4m3fn)
    weight = torch.tensor([[3, -4], [127, 1]], dtype=torch.int8)
    bias = torch.tensor([0.5, -0.5])
    wanted = torch.tensor([[-5.0, 129.0]]) * scale + bias
    found = kernels.linear(x, weight, bias, scale, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.float(), wanted.bfloat16().float())
