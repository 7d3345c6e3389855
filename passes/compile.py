"""From a checkpoint to an artifact."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from npuc.backends.elf import program_bytes
from npuc.frontends.checkpoint import Checkpoint, open_checkpoint
from npuc.frontends.transformers_export import import_model
from npuc.ir.errors import UserError
from npuc.ir.legality import PHASES
from npuc.ir.printing import print_ir
from npuc.passes.allocate_buffers import memory_map
from npuc.passes.artifact_manifest import integer_of, manifest_of, string_of
from npuc.passes.buckets import Bucket, choose_buckets
from npuc.passes.emit import emit_programs
from npuc.passes.instrumentation import Instrument
from npuc.passes.ir_files import parse_ir
from npuc.passes.partition import check_ranks, ranks_of
from npuc.passes.pipeline import Observer, PhaseTime, Quantize, finish_phase, lower, phase_of
from npuc.passes.resume import resume_key
from npuc.passes.settled import check_settled, settled_buckets
from npuc.passes.target_option import is_description, machine_of
from npuc.runtime.artifact import MACHINE_FILE, debug_file, rank_file
from npuc.runtime.artifact_writer import ArtifactWriter
from npuc.runtime.manifest import RankWeights
from npuc.runtime.weight_packing import ModuleWeights
from xdsl.dialects.builtin import IntegerAttr, ModuleOp

if TYPE_CHECKING:
    from npuc.passes.check_passes import Checked, CheckOptions
    from npuc.passes.evaluation import Evaluator


@dataclass
class Compilation:
    """One compile: what is asked, and what has been done so far.

    Attributes:
        model: directory or hub id of the checkpoint.
        target: registered name, or the path of a machine description.
        buckets: what the user listed; empty for the default.
        dtype: of weights and activations; None for float32, or for the type of `compile_from`.
        compile_to: the last phase; `emit` makes an artifact.
        compile_from: IR at some phase to go on from; weights are still read from `model`.
        dump_dir: where the IR after each phase is written.
        instruments: told of each pass.
        check: compare what the module computes before and after passes.
        checked: the steps that were.
        progress: told the name of each step as it begins.
        weights: whether to read and store weights; without, the artifact is for timing only.
        tensor_parallel: how many cores, of a chip or of whole chips, share every layer.
        debug: keep the IR that the lowering starts from in the artifact.
        start: phase and text of that IR.
        quantize: what to round weights to.
    """

    model: str
    target: str
    buckets: Sequence[Bucket] = ()
    dtype: str | None = None
    max_context: int | None = None
    revision: str | None = None
    local_files_only: bool = False
    compile_to: str = "emit"
    compile_from: Path | None = None
    dump_dir: Path | None = None
    instruments: Sequence[Instrument] = ()
    check: CheckOptions | None = None
    checked: list[Checked] = field(default_factory=lambda: [])
    progress: Callable[[str], None] | None = None
    weights: bool = True
    tensor_parallel: int = 1
    debug: bool = True
    start: tuple[str, str] = ("", "")
    quantize: Quantize | None = None
    phases: list[PhaseTime] = field(default_factory=list)

    def lowered(self) -> tuple[ModuleOp, list[Bucket]]:
        """The module after `compile_to` (after `schedule`, for an artifact), and its buckets.

        Raises:
            UserError: when the checkpoint, the options or a pass are at fault.
        """
        if self.compile_to not in PHASES:
            raise UserError(
                "phase", f"unknown phase {self.compile_to!r}", remedy=f"use one of {', '.join(PHASES)}"
            )
        module, buckets = self.begun()
        self.lower_module(module, buckets)
        return module, buckets

    def begun(self) -> tuple[ModuleOp, list[Bucket]]:
        """The module that the compile begins with, imported or read, and the buckets.

        Raises:
            UserError: when the checkpoint or the options are at fault.
        """
        check_ranks(machine_of(self.target), self.tensor_parallel)
        start = perf_counter()
        self._tell("import")
        module = self._parsed() if self.compile_from else self._imported()
        self.phases.append(PhaseTime("import", perf_counter() - start))
        if not self.compile_from:
            self._after_phase("import", module)
        if self.debug and self.compile_to == "emit":
            self.start = phase_of(module), print_ir(module)
        return module, self._chosen(module)

    def lower_module(self, module: ModuleOp, buckets: Sequence[Bucket] | None = None) -> None:
        """Runs the phases after the module's own, up to `compile_to` (`schedule` for an artifact).

        Args:
            buckets: those of the compile, or None to choose them for this module.

        Raises:
            UserError: when the module, the buckets or a pass are at fault.
        """
        chosen = self._chosen(module) if buckets is None else buckets
        until = "schedule" if self.compile_to == "emit" else self.compile_to
        watching = [*self._checks(module, chosen), *self.instruments]
        observer = Observer(self._after_phase, self.progress, watching)
        self.phases += lower(
            module,
            self.target,
            chosen,
            quantize=self.quantize,
            until=until,
            tensor_parallel=self.tensor_parallel,
            observer=observer,
        )

    def evaluator(self, module: ModuleOp, buckets: Sequence[Bucket], prompt: Path | None = None) -> Evaluator:
        """What runs the compile's modules, each bucket's program once on the tokens of a file."""
        from npuc.passes.check_passes import read_prompt
        from npuc.passes.evaluation import Call, Evaluator

        checkpoint = open_checkpoint(
            self.model, revision=self.revision, local_files_only=self.local_files_only
        )
        tokens = read_prompt(prompt, checkpoint.root, integer_of(module, "npuc.vocab_size"))
        return Evaluator(checkpoint.root, self.target, [Call.of(bucket, tokens) for bucket in buckets])

    def _tell(self, step: str) -> None:
        if self.progress:
            self.progress(step)

    def _imported(self) -> ModuleOp:
        module = import_model(
            self.model,
            dtype=self.dtype or "float32",
            revision=self.revision,
            local_files_only=self.local_files_only,
            weights=self.weights,
        )
        finish_phase(module, "import")
        return module

    def _parsed(self) -> ModuleOp:
        path = self.compile_from
        assert path is not None
        module = parse_ir(path)
        check_settled(
            module,
            path,
            dtype=self.dtype,
            buckets=self.buckets,
            quantize=self.quantize,
            tensor_parallel=self.tensor_parallel,
        )
        return module

    def _chosen(self, module: ModuleOp) -> list[Bucket]:
        fixed = settled_buckets(module)
        if fixed is not None:
            return fixed
        limit = module.attributes.get("npuc.max_context")
        if isinstance(limit, IntegerAttr):
            return choose_buckets(self.buckets, context=limit.value.data, max_context=self.max_context)
        if PHASES.index(self.compile_to) < PHASES.index("specialize"):
            return []
        raise UserError(
            "no-context",
            f"a {string_of(module, 'npuc.model_type')} model has no context length, so no program holds it",
            where="max_position_embeddings",
            remedy="only language models become programs; this one can be had up to --compile-to quantize",
        )

    def _checks(self, module: ModuleOp, buckets: Sequence[Bucket]) -> list[Instrument]:
        """The check of passes, if it is asked for."""
        if self.check is None:
            return []
        from npuc.passes.check_passes import PassCheck

        return [PassCheck(self.evaluator(module, buckets, self.check.input), self.check, self.checked)]

    def _after_phase(self, name: str, module: ModuleOp) -> None:
        if self.dump_dir is not None:
            self.dump_dir.mkdir(parents=True, exist_ok=True)
            (self.dump_dir / f"{PHASES.index(name) + 1}.{name}.mlir").write_text(print_ir(module))


def compile_model(compilation: Compilation, output: Path) -> dict[str, Any]:
    """Compiles to an artifact in `output`.

    Returns:
        seconds, peak_rss_bytes, program_bytes, weight_bytes, main_memory_bytes (needed), main_memory_size
        (there is), fits (false only without weights), artifact, programs, phases.

    Raises:
        UserError: when the checkpoint, the options, a pass or the output directory are at fault.
    """
    start = perf_counter()
    checkpoint = open_checkpoint(
        compilation.model, revision=compilation.revision, local_files_only=compilation.local_files_only
    )
    with ArtifactWriter(output, key=resume_key(compilation, checkpoint)) as writer:
        writer.copy_model_files(checkpoint.root)
        module, buckets = compilation.lowered()
        emit_start = perf_counter()
        compilation._tell("emit")  # pyright: ignore[reportPrivateUsage]
        emitted = emit_programs(module, compilation.target)
        for program in emitted:
            writer.add_program(program.name, program_bytes(program.program))
        weights = _write_weights(module, writer, checkpoint) if compilation.weights else ()
        if is_description(compilation.target):
            writer.add_file(MACHINE_FILE, Path(compilation.target).read_bytes())
        if compilation.debug:
            phase, text = compilation.start
            writer.add_file(debug_file(phase), text.encode())
        manifest = manifest_of(compilation, module, buckets, emitted, weights, checkpoint)
        written = writer.finish(manifest)
        compilation.phases.append(PhaseTime("emit", perf_counter() - emit_start))
    sizes = {entry.path: entry.bytes for entry in written.files}
    available = machine_of(compilation.target).main.size
    return {
        "artifact": str(output),
        "seconds": perf_counter() - start,
        "peak_rss_bytes": peak_rss_bytes(),
        "program_bytes": sum(sizes[p.file] for p in written.programs),
        "weight_bytes": sum(sizes[rank.file] for rank in written.weights),
        "main_memory_bytes": written.main_memory_bytes,
        "main_memory_size": available,
        "fits": written.main_memory_bytes <= available,
        "programs": [
            {"name": p.name, "kind": p.kind, "batch": p.batch, "length": p.length, "bytes": sizes[p.file]}
            for p in written.programs
        ],
        "phases": [{"name": p.name, "seconds": p.seconds} for p in compilation.phases],
        "checks": check_data(compilation.checked),
    }


def peak_rss_bytes() -> int:
    """The most memory that this process has had, in bytes.

    Where Linux tells it, VmHWM: getrusage's figure starts with that of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    kilobytes = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024


def check_data(checked: Sequence[Checked]) -> list[dict[str, Any]]:
    """The steps that were checked, for programs."""
    from npuc.passes.checking import figures_data

    return [
        {
            "name": step.name,
            **figures_data(step.figures),
            "layers": {name: figures_data(figures) for name, figures in step.layers.items()},
        }
        for step in checked
    ]


def compile(
    model: str | PathLike[str],
    output: str | PathLike[str],
    *,
    target: str,
    buckets: Sequence[Bucket] = (),
    dtype: str = "float32",
    max_context: int | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    weights: bool = True,
    quantize: str | None = None,
    tensor_parallel: int = 1,
) -> dict[str, Any]:
    """Compiles a checkpoint to an artifact; `irc compile` as a function.

    Args:
        model: a directory with config.json and safetensors, or a hub id.
        output: the artifact's directory, made or replaced.
        target: a registered NPU, or the path of a machine description.
        buckets: static shapes to compile; empty for those of the model's context.
        dtype: ``float32`` or ``bfloat16``.
        weights: without, the artifact is for timing only and config.json is enough.
        quantize: ``w8a16`` rounds the weights of linear layers, except the head, to 8 bits.
        tensor_parallel: how many cores, of a chip or of whole chips, share every layer.

    Returns:
        As `compile_model`.

    Raises:
        UserError: when the checkpoint, an option or the output directory is at fault.
    """
    compilation = Compilation(
        fspath(model),
        target,
        buckets,
        dtype=dtype,
        max_context=max_context,
        revision=revision,
        local_files_only=local_files_only,
        weights=weights,
        quantize=None if quantize is None else Quantize(quantize),
        tensor_parallel=tensor_parallel,
    )
    return compile_model(compilation, Path(output))


def _write_weights(
    module: ModuleOp, writer: ArtifactWriter, checkpoint: Checkpoint
) -> tuple[RankWeights, ...]:
    """Reads, packs and writes the weights of every rank; returns where they go."""
    base, _ = memory_map(module)["weights"]
    found: list[RankWeights] = []
    for rank in range(ranks_of(module)):
        weights = ModuleWeights(module, checkpoint.root, rank)
        weight_writer = writer.weights(weights.plan(), rank, recipe=weights.recipe())
        weights.write(weight_writer)
        header = weight_writer.close()
        found.append(RankWeights(rank, rank_file(rank), header, weights.placements(base)))
    return tuple(found)
