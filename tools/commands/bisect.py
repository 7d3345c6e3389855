"""Find the first pass that changes what a model computes, the operation in it, and in a program the command.

A MODEL is compiled as by irc compile, and modules after passes are run: graphs and buffers with the
interpreters, commands on the simulator, as they are and encoded. What is imported, and what a pass leaves
that rounds weights, is compared with transformers. If all values are right, the programs are searched for
hazards, and the step that lost the synchronization is named.

An ARTIFACT is lowered once more from the IR that it keeps, and what its files hold is the last step. Its
checkpoint is needed only to compare with transformers (--against MODEL), or for the real weights (--weights).

  irc bisect MODEL -t rngd                        every step of a compile, transformers is right
  irc bisect MODEL -t rngd --against FILE.mlir    IR of an earlier phase is right
  irc bisect OUT [--against MODEL | FILE.mlir]    the artifact's programs down to their commands
  irc bisect OUT --against OTHER                  the first step after which two artifacts differ
  irc bisect precision MODEL …                    which layers need more precision: … precision --help

Without buckets a decode program (1x16) and a prefill program (1x8) are compiled. The exit status is 1 if a
fault, or a difference, is found.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npuc.ir.errors import UserError
from npuc.passes.buckets import KINDS
from npuc.runtime.manifest import FILE_NAME
from npuc.tools.command import (
    ArgumentParser,
    Outcome,
    UsageError,
    add_json,
    duration,
    progress_bar,
    quiet_libraries,
    table,
)
from npuc.tools.commands import bisect_precision
from npuc.tools.commands.compile import add_compiled_for
from npuc.tools.paths import existing

if TYPE_CHECKING:
    from npuc.passes.bisection.findings import Finding
    from npuc.passes.checking import Figures
    from npuc.runtime.artifact import Artifact

PRECISION = "precision"
DEFAULT = {"decode": "1x16", "prefill": "1x8"}
SETTLED = ("target", "dtype", "quantize", "compile_from", "max_context", "revision")


def execute_words(words: Sequence[str]) -> Outcome:
    """Search for a fault, or for the layers that need more precision."""
    precise = list(words[:1]) == [PRECISION]
    engine = bisect_precision if precise else sys.modules[__name__]
    name = f"irc bisect {PRECISION}" if precise else "irc bisect"
    parser = ArgumentParser(name, (engine.__doc__ or "").strip())
    engine.add_arguments(parser)
    add_json(parser)
    return engine.execute(parser.parse_args(words[precise:]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc bisect`."""
    parser.add_argument(
        "model", metavar="MODEL|ARTIFACT", help="checkpoint: directory or hub id; or artifact"
    )
    parser.add_argument("-t", "--target", help="the NPU, of a MODEL: see irc targets; or a .npu file")
    add_compiled_for(parser)
    parser.add_argument("--compile-from", type=existing, metavar="FILE.mlir", help="begin with an IR file")
    parser.add_argument(
        "--against",
        metavar="REFERENCE",
        help="what is right: an IR file (.mlir) or artifact of the same model, or, of an ARTIFACT, the "
        "checkpoint in transformers. Default: transformers; of an ARTIFACT, the IR that it keeps",
    )
    parser.add_argument(
        "--weights", metavar="MODEL", help="of an ARTIFACT: its checkpoint; without, weights are made up"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="relative error; 1e-4, bfloat16 5e-2, more where inputs are rounded to 8 bits",
    )
    parser.add_argument(
        "--input", type=existing, metavar="FILE", help="text or token ids; default a fixed prompt"
    )


def execute(arguments: argparse.Namespace) -> Outcome:
    """Search."""
    _check(arguments)
    quiet_libraries()
    start = time.perf_counter()
    with progress_bar(not arguments.json) as bar:
        from npuc.tools.bisection import bisect

        found = bisect(arguments, lambda text: bar(text, None))
    from npuc.passes.checking import figures_data

    seconds, search, finding = time.perf_counter() - start, found.search, found.finding
    states = [
        {"phase": state.phase, "pass": state.name, **figures_data(search.judge(number).figures)}
        for number, state in enumerate(search.states)
        if number in search.judged
    ]
    common: dict[str, Any] = {"seconds": seconds, "states": len(search.states), "runs": states}
    common["notes"] = found.notes
    notes = "".join(f"{note}\n" for note in found.notes)
    if finding is None:
        tried = f"{len(search.states)} states agree, no program has a hazard ({duration(seconds)})"
        return Outcome({"found": False, **common}, f"{notes}{tried}")
    follow = follow_up(finding, arguments)
    data = {"found": True, **finding.data(), "next": follow, **common}
    text = f"{notes}{finding_text(finding)}"
    return Outcome(data, f"{text}\n\nnext: {follow}" if follow else text, passed=False)


def is_artifact(path: str | Path) -> bool:
    """Whether there is an artifact, not a checkpoint."""
    return (Path(path) / FILE_NAME).is_file()


def _check(arguments: argparse.Namespace) -> None:
    """Refuses what an artifact settles, and a model without what it needs."""
    message = ""
    if not is_artifact(arguments.model):
        if arguments.target is None:
            _check_directory(arguments.model)
            message = "the following arguments are required: -t/--target"
        elif arguments.weights is not None:
            message = "--weights is about an artifact; MODEL has its own"
    else:
        given = [name for name in SETTLED if getattr(arguments, name) is not None]
        given += [f"{kind}_buckets" for kind in KINDS if getattr(arguments, f"{kind}_buckets")]
        if given:
            message = f"--{given[0].replace('_', '-')}: an artifact was compiled for what it was compiled for"
    if message:
        raise UsageError(message, "usage: irc bisect MODEL|ARTIFACT … | irc bisect --help", "irc bisect")


def _check_directory(path: str) -> None:
    """Refuses what is neither artifact nor checkpoint; a hub id comes with a target."""
    if (Path(path) / "config.json").is_file():
        return
    message = "no such directory"
    if Path(path).exists():
        message = f"neither artifact nor checkpoint: it has no {FILE_NAME} and no config.json"
    remedy = "give an artifact, or a checkpoint and its target: MODEL -t TARGET"
    raise UserError("missing-file", message, where=path, remedy=remedy)


def finding_text(finding: Finding) -> str:
    """A finding for people."""
    where = " ".join(part for part in (finding.op, f"({finding.module})" if finding.module else "") if part)
    what = f"{finding.side}: difference" if finding.side else "fault"
    title = f"{what} in {finding.step} (phase {finding.phase}){f': {where}' if where else ''}"
    if finding.command_offset is not None:
        title += f", command {finding.program}@{finding.command_offset:#x}"
    parts = [title, "", finding.explanation]
    rows = [_row(f"%{finding.value}" if finding.value else "value", finding.error)] if finding.error else []
    rows += [_row("logits", finding.logits)] if finding.logits else []
    if rows:
        shown = f"{finding.program}, entry {finding.entry}" if finding.program else "import"
        parts += ["", table(rows, (shown, "max error", "relative", "cosine"), right=(1, 2, 3))]
    parts += ["", *finding.neighbours] if finding.neighbours else []
    return "\n".join(parts)


def _row(name: str, figures: Figures) -> list[str]:
    return [name, f"{figures.max_abs_error:.3g}", f"{figures.max_rel_error:.3g}", f"{figures.cosine:.8f}"]


def follow_up(finding: Finding, arguments: argparse.Namespace) -> str:
    """The command to type next; "" where a file of an artifact is at fault: nothing tells more."""
    side = finding.side or arguments.model
    if is_artifact(side):
        return _of_artifact(finding, side, arguments.against or "")
    words = ["irc", "compile", arguments.model, *compiled_for(arguments)]
    if finding.kind == "hazard":
        tail = f"&& irc sim out --program {finding.program} --entry {finding.entry} --sanitize"
        return f"{shlex.join([*words, '-o', 'out'])} {tail}"
    if finding.command_offset is not None:
        tail = f"&& irc explain out {finding.program}@{finding.command_offset:#x}"
        return f"{shlex.join([*words, '-o', 'out'])} {tail}"
    if finding.phase == "import":
        return shlex.join([*words, "--compile-to", "import", f"--dump-filter={finding.module}"])
    words += ["--compile-to", finding.phase, "-o", f"{finding.phase}.mlir"]
    return shlex.join([*words, *_dumps(finding)])


def compiled_for(arguments: argparse.Namespace) -> list[str]:
    """The flags of the compile that was searched."""
    words = ["-t", arguments.target, *(["--dtype", arguments.dtype] if arguments.dtype else [])]
    given = {kind: getattr(arguments, f"{kind}_buckets") for kind in KINDS}
    texts = {kind: ",".join(str(bucket) for bucket in buckets) for kind, buckets in given.items() if buckets}
    for kind, text in (texts or DEFAULT).items():
        words += [f"--{kind}-buckets", text.replace(f"{kind}_", "")]
    if arguments.quantize:
        words += ["--quantize", arguments.quantize, "--quantize-ignore", arguments.quantize_ignore]
    return words + (
        ["--tensor-parallel", str(arguments.tensor_parallel)] if arguments.tensor_parallel > 1 else []
    )


def _of_artifact(finding: Finding, artifact: str, against: str) -> str:
    from npuc.runtime.artifact import Artifact

    opened = Artifact(artifact)
    if finding.step == "artifact" and not _is_whole(opened, finding.program):
        return ""
    if finding.kind == "hazard":
        words = ["sim", artifact, "--program", finding.program, "--entry", finding.entry, "--sanitize"]
        return shlex.join(["irc", *words])
    if finding.command_offset is not None:
        return shlex.join(["irc", "explain", artifact, f"{finding.program}@{finding.command_offset:#x}"])
    if finding.step == "artifact":
        return ""
    file = str(opened.path / opened.start_file)
    if finding.phase == "import" and is_artifact(against):
        return shlex.join(["irc", "diff", str(Path(against) / Artifact(against).start_file), file])
    if finding.phase == "import":
        return shlex.join(["irc", "diff", against, file]) if against.endswith(".mlir") else ""
    pipeline = re.sub(rf"(?<={finding.step})(\{{[^}}]*\}})?,.*", r"\1", opened.manifest.pipeline)
    return shlex.join(["irc", "opt", file, "-p", pipeline, "-o", "out.mlir", *_dumps(finding)])


def _is_whole(artifact: Artifact, program: str) -> bool:
    """Whether a program's file is the one that the compile wrote, which other commands insist on."""
    try:
        artifact.read_file(artifact.manifest.program(program).file)
    except UserError:
        return False
    return True


def _dumps(finding: Finding) -> list[str]:
    """The flags that show the IR around the fault."""
    words = [f"--mlir-print-ir-before={finding.step}", f"--mlir-print-ir-after={finding.step}"]
    layered = ".".join("*" if part == "{}" else part for part in finding.module.split("."))
    return words + ([f"--dump-filter={layered}"] if layered else [])
