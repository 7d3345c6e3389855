"""How good a model is with some of its layers rounded: the mixtures that `quantize-weights` can make.

A mixture is made by the pass itself and run by the graph interpreter, so what is measured is what a compile
with the same layers ignored computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from npuc.ir import graph
from npuc.ir.graph import element_of
from npuc.ir.legality import module_path
from npuc.passes.buckets import parse_bucket
from npuc.passes.evaluation import Call, Evaluator
from npuc.passes.pipeline import Quantize, context, run_passes
from npuc.passes.separate_layers import layers_of
from npuc.runtime.quality import assess
from torch import Tensor
from xdsl.dialects.builtin import AnyFloat, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue


def _is_weight_in_floats(value: SSAValue) -> bool:
    return isinstance(value.owner, graph.ParamOp) and isinstance(element_of(value), AnyFloat)


@dataclass(frozen=True)
class Mixtures:
    """The mixtures of a model.

    Attributes:
        module: the graph, in floats.
        scheme: what layers are rounded to.
        evaluator: runs it.
        documents: their tokens.
        exact: the logits [positions, V] that they should have.
    """

    module: ModuleOp
    scheme: str
    evaluator: Evaluator
    documents: Sequence[Sequence[int]]
    exact: Sequence[Tensor]

    def layers(self, ignored: Sequence[str] = (), *, kinds: bool = False) -> list[str]:
        """The linear layers that are rounded if none is kept but those ignored.

        Args:
            kinds: as they are in the IR, ``{}`` for the number of a layer of the model.
        """
        numbers = layers_of(self.module)
        found: dict[str, list[str]] = {}
        for function in (op for op in self.module.ops if isinstance(op, FuncOp)):
            for op in function.walk():
                if isinstance(op, graph.LinearOp) and _is_weight_in_floats(op.weight):
                    path = module_path(op)
                    layers = numbers.get(function.sym_name.data, ())
                    found.setdefault(path, []).extend(path.replace("{}", str(n), 1) for n in layers or (0,))
        kept = {path for path in found if any(fnmatchcase(path, pattern) for pattern in ignored)}
        names = [path for path in found if path not in kept]
        if not kinds:
            names = [name for path in names for name in dict.fromkeys(found[path])]
        return [n for n in names if not any(fnmatchcase(n, pattern) for pattern in ignored)]

    def figures(self, kept: Sequence[str]) -> dict[str, Any]:
        """How good the mixture is in which some layers are kept as they are."""
        mixed = self.module.clone()
        run_passes(context(), mixed, Quantize(self.scheme, tuple(kept)).text)
        logits = (self._logits(mixed, tokens) for tokens in self.documents)
        return assess(
            (torch.tensor(list(tokens)), found, exact)
            for tokens, found, exact in zip(self.documents, logits, self.exact, strict=True)
        )

    def _logits(self, module: ModuleOp, tokens: Sequence[int]) -> Tensor:
        bucket = parse_bucket("prefill", f"1x{len(tokens)}")
        call = Call(bucket, torch.tensor([list(tokens)], dtype=torch.int32), (0,), (len(tokens),))
        return self.evaluator.run(module, call)[f"{bucket.name}.all"].float()
