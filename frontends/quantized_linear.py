"""A linear layer whose weight, and perhaps input, is quantized: what takes nn.Linear's place in a trace.

Its parameters are named as in the checkpoints that `quantization` reads: `weight`, `weight_scale`, and
`input_scale`. Both conversions arrive in the FX graph as operators, ``npuc::quantize`` and
``npuc::dequantize``, and become those of the `nquant` dialect.
"""

from __future__ import annotations

from functools import cache

import torch
from npuc.frontends.element_types import element_type
from npuc.frontends.quantization import LayerQuantization, Quantization
from npuc.ir.errors import UserError
from npuc.ir.nquant import NQUANT, SchemeAttr
from npuc.ir.nquant_kernels import torch_type
from torch import Tensor, nn
from torch.nn.functional import linear
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.parser import Parser

_LIBRARY = torch.library.Library("npuc", "FRAGMENT")
_LIBRARY.define("quantize(Tensor x, Tensor scale, str scheme) -> Tensor")
_LIBRARY.define("dequantize(Tensor q, Tensor scale, str scheme) -> Tensor")


@torch.library.register_fake("npuc::quantize")
def _quantize_shape(x: Tensor, scale: Tensor, scheme: str) -> Tensor:
    return x.new_empty(x.shape, dtype=torch_type(parse_scheme(scheme).storage))


@torch.library.register_fake("npuc::dequantize")
def _dequantize_shape(q: Tensor, scale: Tensor, scheme: str) -> Tensor:
    return q.new_empty(q.shape, dtype=torch_type(parse_scheme(scheme).expressed))


@cache
def parse_scheme(text: str) -> SchemeAttr:
    """The scheme that an operator's argument spells."""
    context = Context()
    context.load_dialect(Builtin)
    context.load_dialect(NQUANT)
    scheme = Parser(context, text).parse_attribute()
    assert isinstance(scheme, SchemeAttr)
    return scheme


class QuantizedLinear(nn.Module):
    """x · dequantize(weight)ᵀ + bias, of a quantized x where the checkpoint says so.

    The schemes are plain attributes, so that layers quantized in different ways are of different kinds.
    """

    def __init__(self, replaced: nn.Linear, quantization: LayerQuantization) -> None:
        super().__init__()
        expressed = element_type(replaced.weight.dtype)
        scheme = quantization.weight.scheme(expressed)
        shape = tuple(replaced.weight.shape)
        scales = (shape[0], 1) if quantization.weight.granularity == "channel" else ()
        self.weight = nn.Parameter(torch.empty(shape, dtype=torch_type(scheme.storage)), requires_grad=False)
        self.weight_scale = nn.Parameter(torch.empty(scales, dtype=torch.float32), requires_grad=False)
        self.weight_scheme = str(scheme)
        self.input_scheme = ""
        if quantization.input is not None:
            self.input_scheme = str(quantization.input.scheme(expressed))
            self.input_scale = nn.Parameter(torch.empty((), dtype=torch.float32), requires_grad=False)
        self.bias = replaced.bias

    def forward(self, x: Tensor) -> Tensor:
        if self.input_scheme:
            stored = torch.ops.npuc.quantize(x, self.input_scale, self.input_scheme)
            x = torch.ops.npuc.dequantize(stored, self.input_scale, self.input_scheme)
        weight = torch.ops.npuc.dequantize(self.weight, self.weight_scale, self.weight_scheme)
        return linear(x, weight, self.bias)


def replace_linears(model: nn.Module, quantization: Quantization) -> None:
    """Puts quantized linear layers into a model, before it is traced.

    Raises:
        UserError: when the configuration quantizes none of its layers.
    """
    found = {path: m for path, m in model.named_modules() if type(m) is nn.Linear}
    chosen = {path: how for path in found if (how := quantization.of(path)) is not None}
    if not chosen:
        raise UserError(
            "bad-quantization",
            f"none of the model's {len(found)} linear layers is quantized",
            where="config.json: quantization_config",
            remedy="the targets name no layer of the model",
        )
    for path, how in chosen.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, QuantizedLinear(found[path], how))
