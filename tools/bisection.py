"""What `irc bisect` searches: a compile of a model, or an artifact's own, alone or beside another one."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from npuc.ir.errors import UserError
from npuc.passes.bisection.comparison import Comparison
from npuc.passes.bisection.findings import Finding
from npuc.passes.bisection.made_up import make_up
from npuc.passes.bisection.reference import import_fault
from npuc.passes.bisection.search import Search
from npuc.passes.bisection.states import State, history_of
from npuc.passes.bisection.stored import Stored
from npuc.passes.buckets import KINDS, Bucket, parse_buckets
from npuc.passes.check_passes import CheckOptions, read_prompt, tolerance_of
from npuc.passes.compile import Compilation
from npuc.passes.evaluation import Call, Evaluator
from npuc.passes.ir_files import parse_ir
from npuc.passes.pipeline import Quantize, phase_of
from npuc.passes.quantization_recipe import quantization_recipe
from npuc.runtime.artifact import Artifact
from npuc.runtime.reference import Reference
from npuc.tools.commands.bisect import DEFAULT, is_artifact
from npuc.tools.commands.compile import quantization
from npuc.tools.commands.verify import ROUNDED_INPUTS
from npuc.tools.report.drift import check_config
from npuc.tools.report.recompile import buckets_of, start_of, target_of
from xdsl.dialects.builtin import ModuleOp, StringAttr

TRANSFORMERS = "transformers"
COMPARED = 32  # tokens on which graphs are compared with transformers
Progress = Callable[[str], None]


@dataclass
class Side:
    """One compile whose states are searched.

    Attributes:
        name: for people.
        module: that it begins with.
        buckets: of its programs.
        target: how passes name the machine.
        quantize, ranks: how it is lowered.
        artifact: whose compile it is, if it is one's.
    """

    name: str
    module: ModuleOp
    buckets: Sequence[Bucket]
    target: str
    quantize: Quantize | None
    ranks: int
    artifact: Artifact | None = None

    @classmethod
    def of_artifact(cls, path: str | Path) -> Side:
        """The compile of an artifact, from the IR that it keeps."""
        artifact = Artifact(path)
        quantize = Quantize.of_recipe(artifact.manifest.recipe)
        ranks = artifact.manifest.parallel.tensor_parallel
        module = start_of(artifact)
        return cls(str(path), module, buckets_of(artifact), target_of(artifact), quantize, ranks, artifact)

    def search(
        self, root: Path, calls: Sequence[Call], tolerance: float, own_weights: bool, progress: Progress
    ) -> Search:
        """Compiles; the last state is what the artifact holds, if there is one."""
        options: dict[str, Any] = {"quantize": self.quantize, "tensor_parallel": self.ranks}
        history = history_of(self.module.clone(), self.target, self.buckets, progress, **options)
        if self.artifact is not None and history.failure is None:
            weights = own_weights and bool(self.artifact.manifest.weights)
            last = State("emit", None, history.states[-1].module, True, Stored(self.artifact, weights))
            history.states.append(last)
        return Search(history, Evaluator(root, self.target, calls), tolerance, progress)

    @property
    def dtype(self) -> str:
        """The type of the computation, as torch names it."""
        found = self.module.attributes.get("npuc.dtype")
        return found.data if isinstance(found, StringAttr) else "float32"

    def tolerance(self, asked: float | None) -> float:
        """The largest relative error of a good state."""
        recipe = quantization_recipe(self.module, None)
        if asked is None and recipe is not None and recipe["inputs"]:
            return ROUNDED_INPUTS[{"float32": "f32", "bfloat16": "bf16"}[self.dtype]][0]
        return tolerance_of(CheckOptions(tolerance=asked), self.module)


@dataclass
class Bisection:
    """A search, and what it found.

    Attributes:
        finding: what is wrong, or different.
        search: of the compile in question.
        notes: what it could not compare, or compared with.
    """

    finding: Finding | None
    search: Search
    notes: list[str] = field(default_factory=list[str])


def bisect(arguments: argparse.Namespace, progress: Progress) -> Bisection:
    """Searches.

    Raises:
        UserError: when the input, or what it is to be compared with, cannot be used.
    """
    with ExitStack() as resources:
        return _Setup(arguments, progress, resources).run()


@dataclass
class _Setup:
    arguments: argparse.Namespace
    progress: Progress
    resources: ExitStack
    notes: list[str] = field(default_factory=list[str])

    def run(self) -> Bisection:
        self.progress("import")
        side = self._side()
        against = self.arguments.against
        if against is not None and is_artifact(against):
            return self._beside(side, Side.of_artifact(against))
        tolerance = side.tolerance(self.arguments.tolerance)
        root, own = self._root(side, side.module)
        search = side.search(root, self._calls(root, side, side.buckets), tolerance, own, self.progress)
        if against is not None and Path(against).suffix == ".mlir":
            search.history.states.insert(0, _reference_state(Path(against), search.evaluator.calls))
            return Bisection(search.run(), search, self.notes)
        wrong = None
        if side.artifact is None or against is not None:
            search.rounded = lambda state: self._beside_transformers(search, state, side)
            wrong = self._beside_transformers(search, search.states[0], side)
        return Bisection(wrong or search.run(), search, self.notes)

    def _side(self) -> Side:
        given = self.arguments
        if is_artifact(given.model):
            return Side.of_artifact(given.model)
        if not (given.against in (None, TRANSFORMERS) or _is_other(given.against)):
            message = "is no IR file and no artifact; what MODEL is compared with by itself is transformers"
            raise UserError("no-reference", message, where=given.against)
        compilation = self.compilation()
        module, buckets = compilation.begun()
        target, ranks = compilation.target, compilation.tensor_parallel
        return Side(given.model, module, buckets, target, compilation.quantize, ranks)

    def compilation(self) -> Compilation:
        """The compile that the arguments ask for."""
        given = self.arguments
        buckets = [bucket for kind in KINDS for bucket in getattr(given, f"{kind}_buckets")]
        if not buckets and given.compile_from is None:
            buckets = [bucket for kind, text in DEFAULT.items() for bucket in parse_buckets(kind, text)]
        return Compilation(
            model=given.model,
            target=given.target,
            buckets=buckets,
            dtype=given.dtype,
            max_context=given.max_context,
            revision=given.revision,
            local_files_only=given.local_files_only,
            compile_from=given.compile_from,
            tensor_parallel=given.tensor_parallel,
            quantize=quantization(given),
        )

    def _root(self, side: Side, *modules: ModuleOp) -> tuple[Path, bool]:
        """The checkpoint's directory, and whether it is the real one."""
        from npuc.frontends.checkpoint import open_checkpoint

        given, artifact = self.arguments, side.artifact
        if artifact is None:
            options = {"revision": given.revision, "local_files_only": given.local_files_only}
            return open_checkpoint(given.model, **options).root, True
        model = given.weights or (None if _is_other(given.against) else given.against)
        if model is not None:
            root = open_checkpoint(model, local_files_only=given.local_files_only).root
            check_config(artifact, root, model)
            return root, True
        folder = Path(self.resources.enter_context(TemporaryDirectory(prefix="irc-bisect-")))
        for module in modules:
            make_up(module, folder)
        self.notes.append("weights are made up: --weights MODEL gives the real ones")
        return folder, False

    def _calls(self, root: Path, side: Side, buckets: Sequence[Bucket]) -> list[Call]:
        folder = root if side.artifact is None else side.artifact.path / "model"
        tokens = read_prompt(self.arguments.input, folder, _vocabulary(side.module))
        return [Call.of(bucket, tokens) for bucket in buckets]

    def _beside(self, ours: Side, theirs: Side) -> Bisection:
        """A comparison with another artifact."""
        shared = _shared(ours, theirs)
        self.notes += [
            f"compared: {', '.join(bucket.name for bucket in shared)}",
            *_differences(ours, theirs),
        ]
        root, own = self._root(ours, ours.module, theirs.module)
        calls = self._calls(root, ours, shared)
        tolerance = max(side.tolerance(self.arguments.tolerance) for side in (ours, theirs))
        sides = [side.search(root, calls, tolerance, own, self.progress) for side in (ours, theirs)]
        failure = sides[1].history.failure
        if failure is not None:
            message = f"what it was made from cannot be compiled: {failure.step}: {failure.error.message}"
            raise UserError("bad-reference", message, where=theirs.name)
        finding = Comparison(sides[0], sides[1], (ours.name, theirs.name)).run()
        return Bisection(finding, sides[0], self.notes)

    def _beside_transformers(self, search: Search, state: State, side: Side) -> Finding | None:
        """What a graph computes otherwise than transformers with the values that its weights stand for."""
        if state.phase not in ("import", "quantize"):
            return None
        self.progress(TRANSFORMERS)
        recipe = quantization_recipe(state.module, side.quantize)
        root = search.evaluator.root
        reference = Reference(root, getattr(torch, side.dtype), recipe)
        prompt = read_prompt(self.arguments.input, root, reference.vocab_size)[:COMPARED]
        return import_fault(state, search.evaluator, reference, prompt, search.tolerance)


def _is_other(against: str | None) -> bool:
    """Whether a reference is IR or an artifact, not a checkpoint."""
    return against is None or Path(against).suffix == ".mlir" or is_artifact(against)


def _vocabulary(module: ModuleOp) -> int:
    attr: Any = module.attributes["npuc.vocab_size"]
    return int(attr.value.data)


def _reference_state(file: Path, calls: Sequence[Call]) -> State:
    """The state of an IR file.

    Raises:
        UserError: when it has been specialized to other programs.
    """
    module = parse_ir(file)
    fixed = module.attributes.get("npuc.buckets")
    held = set(fixed.data.split(",")) if isinstance(fixed, StringAttr) else None
    missing = [call.bucket.name for call in calls if held is not None and call.bucket.name not in held]
    if missing:
        message = f"it has no program {missing[0]}, only {', '.join(sorted(held or ()))}"
        raise UserError("other-buckets", message, where=str(file), remedy="compile for the same buckets")
    return State(phase_of(module), None, module)


def _shared(ours: Side, theirs: Side) -> list[Bucket]:
    """The buckets that both have.

    Raises:
        UserError: when they are of different models, or have none.
    """
    configs = [side.artifact and side.artifact.manifest.source.config_sha256 for side in (ours, theirs)]
    if None not in configs and configs[0] != configs[1]:
        message = f"{ours.name} was compiled from another config.json"
        raise UserError("other-model", message, where=theirs.name, remedy="compare artifacts of one model")
    if _vocabulary(ours.module) != _vocabulary(theirs.module):
        message = f"it has {_vocabulary(theirs.module)} tokens, {ours.name} {_vocabulary(ours.module)}"
        raise UserError("other-model", message, where=theirs.name, remedy="compare artifacts of one model")
    names = {bucket.name for bucket in theirs.buckets}
    shared = [bucket for bucket in ours.buckets if bucket.name in names]
    if not shared:
        message = f"no program is of the shape of one of {ours.name}"
        remedy = f"compile both for one bucket, e.g. {ours.buckets[0].name.replace('_', ' ')}"
        raise UserError("other-buckets", message, where=theirs.name, remedy=remedy)
    return shared


def _differences(ours: Side, theirs: Side) -> list[str]:
    """What was asked of both compiles that is not the same."""

    def facts(side: Side) -> Mapping[str, str]:
        made = side.artifact.manifest if side.artifact else None
        return {
            "target": made.target if made else side.target,
            "type": side.dtype,
            "quantization": side.quantize.scheme if side.quantize else "none",
            "cores": str(side.ranks),
            "programs": ", ".join(bucket.name for bucket in side.buckets),
        }

    pairs = zip(facts(ours).items(), facts(theirs).values(), strict=True)
    return [f"{name}: {mine}; {other} in {theirs.name}" for (name, mine), other in pairs if mine != other]
