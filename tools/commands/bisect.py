"""Find the first pass that changes what a model computes, the operation in it, and in a program the command.

The model is compiled as by irc compile, and modules after passes are run: graphs and buffers with the
interpreters, commands on the simulator, as they are and encoded. What is imported is compared with
transformers first; --against FILE.mlir takes the logits of that IR as right instead. If all values are right,
the programs are searched for hazards, and the step that lost the synchronization is named.

Without buckets a decode program (1x16) and a prefill program (1x8) are compiled. The exit status is 1 if a
fault is found.
"""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npuc.passes.buckets import KINDS, parse_buckets
from npuc.tools.command import Outcome, duration, progress_bar, quiet_libraries, table
from npuc.tools.commands.compile import add_compiled_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from npuc.passes.bisection.findings import Finding
    from npuc.passes.bisection.search import Search
    from npuc.passes.checking import Figures
    from npuc.passes.compile import Compilation

DEFAULT = {"decode": "1x16", "prefill": "1x8"}
TRANSFORMERS = "transformers"
COMPARED = 32  # tokens on which the imported module is compared with transformers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc bisect`."""
    parser.add_argument("model", metavar="MODEL", help="directory of the checkpoint, or hub id")
    parser.add_argument("-t", "--target", required=True, help="the NPU: see irc targets; or a .npu file")
    add_compiled_for(parser)
    parser.add_argument("--compile-from", type=Path, metavar="FILE.mlir", help="begin with an IR file")
    parser.add_argument(
        "--against",
        default=TRANSFORMERS,
        metavar="REFERENCE",
        help="what is right: transformers (default), or an IR file of the same model and buckets",
    )
    parser.add_argument("--tolerance", type=float, metavar="X", help="relative error; 1e-4, bfloat16 5e-2")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="text or token ids; default a fixed prompt"
    )


def execute(arguments: argparse.Namespace) -> Outcome:
    """Search."""
    quiet_libraries()
    start = time.perf_counter()
    with progress_bar(not arguments.json) as bar:
        finding, search = _found(arguments, lambda text: bar(text, None))
    from npuc.passes.checking import figures_data

    seconds = time.perf_counter() - start
    states = [
        {"phase": state.phase, "pass": state.name, **figures_data(search.judge(number).figures)}
        for number, state in enumerate(search.states)
        if number in search.judged
    ]
    common: dict[str, Any] = {"seconds": seconds, "states": len(search.states), "runs": states}
    if finding is None:
        tried = f"{len(search.states)} states agree, no program has a hazard ({duration(seconds)})"
        return Outcome({"found": False, **common}, tried)
    follow = follow_up(finding, arguments)
    data = {"found": True, **finding.data(), "next": follow, **common}
    return Outcome(data, f"{finding_text(finding)}\n\nnext: {follow}", passed=False)


def _found(arguments: argparse.Namespace, progress: Callable[[str], None]) -> tuple[Finding | None, Search]:
    from npuc.passes.bisection.search import Search
    from npuc.passes.bisection.states import State, history_of
    from npuc.passes.check_passes import CheckOptions, tolerance_of
    from npuc.passes.compile import parse_ir
    from npuc.passes.pipeline import phase_of

    compilation = _compilation(arguments)
    progress("import")
    module, buckets = compilation.begun()
    tolerance = tolerance_of(CheckOptions(tolerance=arguments.tolerance), module)
    evaluator = compilation.evaluator(module, buckets, arguments.input)
    history = history_of(module, arguments.target, buckets, progress)
    search = Search(history, evaluator, tolerance, progress)
    if arguments.against == TRANSFORMERS:
        return (_import_fault(arguments, search, progress) or search.run()), search
    reference = parse_ir(Path(arguments.against))
    history.states.insert(0, State(phase_of(reference), None, reference))
    return search.run(), search


def _import_fault(
    arguments: argparse.Namespace, search: Search, progress: Callable[[str], None]
) -> Finding | None:
    """What the importer did wrong; nothing is looked for where the compile began later."""
    from npuc.passes.bisection.reference import import_fault
    from npuc.passes.check_passes import read_prompt
    from npuc.runtime.reference import Reference

    if search.states[0].phase != "import":
        return None
    import torch

    progress(TRANSFORMERS)
    reference = Reference(search.evaluator.root, getattr(torch, arguments.dtype or "float32"))
    prompt = read_prompt(arguments.input, search.evaluator.root, reference.vocab_size)[:COMPARED]
    return import_fault(search.states[0], search.evaluator, reference, prompt, search.tolerance)


def _compilation(arguments: argparse.Namespace) -> Compilation:
    from npuc.passes.compile import Compilation

    buckets = [bucket for kind in KINDS for bucket in getattr(arguments, f"{kind}_buckets")]
    if not buckets and arguments.compile_from is None:
        buckets = [bucket for kind, text in DEFAULT.items() for bucket in parse_buckets(kind, text)]
    return Compilation(
        model=arguments.model,
        target=arguments.target,
        buckets=buckets,
        dtype=arguments.dtype,
        max_context=arguments.max_context,
        revision=arguments.revision,
        local_files_only=arguments.local_files_only,
        compile_from=arguments.compile_from,
    )


def finding_text(finding: Finding) -> str:
    """A finding for people."""
    where = " ".join(part for part in (finding.op, f"({finding.module})" if finding.module else "") if part)
    title = f"fault in {finding.step} (phase {finding.phase}){f': {where}' if where else ''}"
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
    """The command to type next."""
    words = ["irc", "compile", arguments.model, "-t", arguments.target]
    words += ["--dtype", arguments.dtype] if arguments.dtype else []
    given = {kind: getattr(arguments, f"{kind}_buckets") for kind in KINDS}
    texts = {kind: ",".join(str(bucket) for bucket in buckets) for kind, buckets in given.items() if buckets}
    for kind, text in (texts or DEFAULT).items():
        words += [f"--{kind}-buckets", text.removeprefix(f"{kind}_")]
    if finding.kind == "hazard":
        tail = f"&& irc sim out --program {finding.program} --entry {finding.entry} --sanitize"
        return f"{shlex.join([*words, '-o', 'out'])} {tail}"
    if finding.command_offset is not None:
        tail = f"&& irc explain out {finding.program}@{finding.command_offset:#x}"
        return f"{shlex.join([*words, '-o', 'out'])} {tail}"
    if finding.phase == "import":
        return shlex.join([*words, "--compile-to", "import", f"--dump-filter={finding.module}"])
    words += ["--compile-to", finding.phase, "-o", f"{finding.phase}.mlir"]
    words += [f"--mlir-print-ir-before={finding.step}", f"--mlir-print-ir-after={finding.step}"]
    layered = ".".join("*" if part == "{}" else part for part in finding.module.split("."))
    return shlex.join([*words, *([f"--dump-filter={layered}"] if layered else [])])
