"""How good a model is with some of its layers rounded: the mixtures that `quantize-weights` can make.

A mixture is made by the pass itself and run by the graph interpreter, so what is measured is what a compile
with the same layers ignored computes. Layers of a kind share their code and are one:
``model.layers.{}.mlp.down_proj``.
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
from npuc.runtime.quality import assess
from torch import Tensor
from xdsl.dialects.builtin import AnyFloat, ModuleOp


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

    def layers(self, ignored: Sequence[str] = ()) -> list[str]:
        """The layers that are rounded if none is kept but those ignored."""
        paths = (
            module_path(op)
            for op in self.module.walk()
            if isinstance(op, graph.LinearOp)
            and isinstance(op.weight.owner, graph.ParamOp)
            and isinstance(element_of(op.weight), AnyFloat)
        )
        return [p for p in dict.fromkeys(paths) if not any(fnmatchcase(p, pattern) for pattern in ignored)]

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
