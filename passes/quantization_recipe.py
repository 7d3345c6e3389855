"""How the weights of a module are quantized, for the manifest of its artifact."""

from __future__ import annotations

from typing import Any

from npuc.frontends.recipes import is_rounded
from npuc.ir import graph
from npuc.ir.nquant import QuantizedType
from npuc.passes.pipeline import Quantize
from xdsl.dialects.builtin import ModuleOp


def quantization_recipe(module: ModuleOp, quantize: Quantize | None) -> dict[str, Any] | None:
    """None where all weights are floats, as in the checkpoint, else these keys.

    ``scheme``: what the compile rounded weights to, or null; ``ignore``: the layers that it did not;
    ``checkpoint``: whether weights came quantized;
    ``inputs``: whether the inputs of some layers are rounded too;
    ``weights``: of each quantized weight its ``name``, its ``type`` in the IR, whether the compile or the
    checkpoint decided it (``by``), and the ``layers`` whose numbers ``{}`` in the name stands for, or null.
    """
    weights: list[dict[str, Any]] = []
    declared = [op for op in module.body.block.ops if isinstance(op, graph.WeightOp)]
    for op in declared:
        if isinstance(op.type.element_type, QuantizedType):
            by = "compile" if is_rounded(op) else "checkpoint"
            layers = None if op.layer_list is None else list(op.layer_list)
            weights.append({"name": op.sym_name.data, "type": str(op.type), "by": by, "layers": layers})
    if not weights:
        return None
    return {
        "scheme": None if quantize is None else quantize.scheme,
        "ignore": [] if quantize is None else list(quantize.ignore),
        "checkpoint": any(entry["by"] == "checkpoint" for entry in weights),
        "inputs": any("input_scale" in op.sym_name.data for op in declared),
        "weights": weights,
    }
