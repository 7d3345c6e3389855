"""How far what the IR computes moves from what it computed at the start: after each pass, and by layer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npuc.frontends.checkpoint import open_checkpoint
from npuc.ir import graph
from npuc.ir.errors import UserError
from npuc.passes.check_passes import read_prompt
from npuc.passes.checking import Figures, compare, compare_outputs, layer_of
from npuc.passes.evaluation import Call, Evaluator, Place
from npuc.passes.instrumentation import Instrument
from npuc.runtime.artifact import Artifact
from npuc.tools.report.recompile import buckets_of, target_of
from npuc.tools.report.stages import GRAPH_PHASES, origin_of
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

Key = tuple[str, int | None, int, int]
"""Module path, layer, origin of the operation, number of the result."""
Values = Mapping[Key, Sequence[Tensor]]

NOT_COMPUTED = (graph.ParamOp, graph.RelayoutOp, graph.LayersOp)
"""Operations whose results others have computed."""

_SHOWN = ("max_abs_error", "max_rel_error", "cosine")


def evaluator_of(artifact: Artifact, model: str) -> Evaluator:
    """What runs the artifact's modules, each program once on a fixed prompt.

    Raises:
        UserError: when the artifact has no weights, or the checkpoint cannot be read or is another.
    """
    artifact.weights()
    root = open_checkpoint(model, local_files_only=True).root
    check_config(artifact, root, model)
    prompt = read_prompt(None, root, artifact.manifest.vocab_size)
    return Evaluator(root, target_of(artifact), [Call.of(bucket, prompt) for bucket in buckets_of(artifact)])


def check_config(artifact: Artifact, root: Path, model: str) -> None:
    """Checks that a checkpoint is of the model that an artifact was compiled from.

    Raises:
        UserError: ``other-model``.
    """
    found = hashlib.sha256((root / "config.json").read_bytes()).hexdigest()
    if found != artifact.manifest.source.config_sha256:
        raise UserError(
            "other-model",
            f"its config.json is not that of {artifact.manifest.source.name}, which was compiled",
            where=model,
            remedy="give the checkpoint that the artifact was compiled from",
        )


@dataclass
class Drift(Instrument):
    """Compares logits after each pass, and the values of the layers after each phase with tensors.

    Modules that the interpreters do not run are told as such, and those after them compared again.

    Attributes:
        evaluator: runs the modules.
        outputs: logits at the start.
        values: what the layers computed then, in the first call.
        passes: figures of the logits, or why there are none.
        layers: phase → layer → its largest relative error.
    """

    evaluator: Evaluator
    outputs: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    values: Values = field(default_factory=dict[Key, Sequence[Tensor]])
    passes: list[tuple[str, Figures | str]] = field(default_factory=list[tuple[str, Figures | str]])
    layers: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        if not self.outputs:
            self.outputs, self.values = self.evaluator.outputs(module), self._values(module)

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        try:
            found: Figures | str = compare_outputs(self.evaluator.outputs(module), self.outputs)
        except UserError as error:
            found = error.message
        self.passes.append((step.name, found))

    def after_phase(self, phase: str, module: ModuleOp) -> None:
        if phase in GRAPH_PHASES and self.passes and isinstance(self.passes[-1][1], Figures):
            self.layers[phase] = errors_by_layer(self._values(module), self.values)

    def _values(self, module: ModuleOp) -> Values:
        found: dict[Key, list[Tensor]] = {}

        def watch(op: Operation, layer: int | None, results: Sequence[Tensor]) -> None:
            for number, value in enumerate(results):
                module = Place.of(op, number, layer).module
                if origin_of(op) and value.is_floating_point() and not isinstance(op, NOT_COMPUTED):
                    found.setdefault((module, layer, origin_of(op), number), []).append(value.clone())

        self.evaluator.run(module, self.evaluator.calls[0], watch)
        return found

    def data(self) -> dict[str, Any]:
        """For the page; what is not finite is null."""
        names = dict.fromkeys(layer for errors in self.layers.values() for layer in errors)
        return {
            "calls": [call.bucket.name for call in self.evaluator.calls],
            "passes": [
                {"name": name, "error": found}
                if isinstance(found, str)
                else {"name": name, **{key: _finite(getattr(found, key)) for key in _SHOWN}}
                for name, found in self.passes
            ],
            "phases": list(self.layers),
            "layers": [
                {"module": name, "errors": [_finite(errors.get(name)) for errors in self.layers.values()]}
                for name in names
            ],
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def errors_by_layer(found: Values, expected: Values) -> dict[str, float]:
    """The largest relative error of the values in each layer, in order.

    Values count that both sides have of one operation at the start, equally often and in one shape.
    """
    errors: dict[str, float] = {}
    for key, values in found.items():
        others = expected.get(key, ())
        if not key[0] or [v.shape for v in values] != [v.shape for v in others]:
            continue
        layer = layer_of(key[0])
        worst = _worst(zip(values, others, strict=True))
        errors[layer] = max(errors.get(layer, 0.0), worst)
    return errors


def _worst(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    return max((compare(value, other).max_rel_error for value, other in pairs), default=0.0)
