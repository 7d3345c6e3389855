"""Lowers an artifact once more from the IR that it keeps, watching every pass.

The artifact has the IR that its lowering started from, the pipeline and the machine; nothing else is needed,
the checkpoint neither. So artifacts stay small and equal to the byte, and a report has what no file keeps:
times, and where each operation went.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from npuc.ir.errors import UserError
from npuc.ir.parsing import LocatedParser
from npuc.passes.buckets import Bucket, parse_bucket
from npuc.passes.emit import EmittedProgram, emit_programs
from npuc.passes.instrumentation import Instrument
from npuc.passes.pipeline import Observer, Quantize, context, lower, phase_of
from npuc.passes.target_option import machine_of
from npuc.runtime.artifact import MACHINE_FILE, Artifact
from npuc.tools.report.stages import Recorder
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import ParseError, VerifyException


@dataclass(frozen=True)
class Recompiled:
    """What lowering an artifact once more gave.

    Attributes:
        recorder: the stages.
        module: the commands.
        emitted: the programs.
        same: whether they are, to the byte, those of the artifact.
        seconds: of all passes.
    """

    recorder: Recorder
    module: ModuleOp
    emitted: list[EmittedProgram]
    same: bool
    seconds: float


def start_of(artifact: Artifact) -> ModuleOp:
    """The module that an artifact was lowered from; each operation's location is its line in that file.

    Raises:
        UserError: ``no-debug`` without one, ``bad-ir`` when it is none.
    """
    file = artifact.start_file
    where = str(artifact.path / file)
    try:
        module = LocatedParser(context(), artifact.read_file(file).decode("utf-8"), file).parse_module()
        module.verify()
    except (ParseError, VerifyException, UnicodeDecodeError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(
            "bad-ir", f"is no valid IR: {first}", where=where, remedy="compile the artifact again"
        ) from error
    return module


def target_of(artifact: Artifact) -> str:
    """How passes name the artifact's machine."""
    described = any(entry.path == MACHINE_FILE for entry in artifact.manifest.files)
    return str(artifact.path / MACHINE_FILE) if described else artifact.manifest.target


def buckets_of(artifact: Artifact) -> list[Bucket]:
    """The buckets of the artifact's programs, in their order."""
    return [parse_bucket(kind, sizes) for p in artifact.manifest.programs for kind, sizes in [_split(p.name)]]


def _split(name: str) -> tuple[str, str]:
    kind, _, sizes = name.partition("_")
    return kind, sizes


def recompile(artifact: Artifact, instruments: Sequence[Instrument] = ()) -> Recompiled:
    """Lowers the artifact's IR again.

    Args:
        instruments: watch the passes too.

    Raises:
        UserError: when the artifact keeps no IR, or this compiler cannot lower it.
    """
    module, target = start_of(artifact), target_of(artifact)
    recorder = Recorder()
    recorder.begin(phase_of(module), module)
    machine_of(target)  # read once, so that no pass seems to take the time
    start = perf_counter()
    observer = Observer(instruments=[*instruments, recorder])
    quantize, ranks = Quantize.of_recipe(artifact.manifest.recipe), artifact.manifest.parallel.tensor_parallel
    buckets = buckets_of(artifact)
    lower(module, target, buckets, quantize=quantize, tensor_parallel=ranks, observer=observer)
    seconds = perf_counter() - start
    emitted = emit_programs(module, target)
    same = all(_text(artifact, e.name) == e.program.text for e in emitted)
    return Recompiled(recorder, module, emitted, same, seconds)


def _text(artifact: Artifact, name: str) -> bytes:
    from npuc.backends.elf import parse_program

    file = artifact.manifest.program(name).file
    return parse_program(artifact.read_file(file), str(artifact.path / file)).text
