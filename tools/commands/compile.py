"""Compile a checkpoint to an artifact: a directory of programs and weights for one NPU.

MODEL is a Hugging Face directory or hub id. With --compile-to the IR after that phase is printed (or written
to -o FILE) instead; it may be edited and compiled further with --compile-from.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npuc.ir.errors import UserError
from npuc.ir.files import write_atomically
from npuc.passes.buckets import EXAMPLE, KINDS, SPELLING, Bucket, parse_buckets
from npuc.tools.command import (
    Outcome,
    UsageError,
    duration,
    engine_imports,
    progress_bar,
    size,
    table,
    too_large,
)
from npuc.tools.ir_flags import add_file_flags, add_ir_flags, file_flags, instruments, text_form
from npuc.tools.paths import directory, existing, writable

if TYPE_CHECKING:
    from npuc.passes.check_passes import CheckOptions
    from npuc.passes.compile import Compilation
    from npuc.passes.instrumentation import Instrument
    from npuc.passes.pipeline import Quantize

QUANTIZATIONS = ("w8a16",)
PHASES = ("import", "optimize", "quantize", "specialize", "partition", "layout", "tile", "schedule", "emit")


def _bucket_list(kind: str, text: str) -> tuple[Bucket, ...]:
    """A flag's buckets; what is wrong with them is a usage error."""
    try:
        return parse_buckets(kind, text)
    except UserError as error:
        raise argparse.ArgumentTypeError(f"{error.message} ({error.remedy})") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc compile`."""
    parser.add_argument("model", metavar="MODEL", help="directory of the checkpoint, or hub id")
    parser.add_argument("-t", "--target", required=True, help="the NPU: see irc targets; or a .npu file")
    parser.add_argument("-o", "--output", type=Path, help="directory of the artifact (of the IR: file)")
    numbers = add_compiled_for(parser)
    numbers.add_argument(
        "--no-weights", action="store_true", help="for timing only: config.json is enough, nothing can be run"
    )
    numbers.add_argument(
        "--no-debug", action="store_true", help="keep no IR in the artifact; irc report needs it"
    )
    phases = parser.add_argument_group("phases", ", ".join(PHASES))
    phases.add_argument(
        "--compile-to", choices=PHASES, default="emit", metavar="PHASE", help="stop after PHASE"
    )
    phases.add_argument("--compile-from", type=existing, metavar="FILE.mlir", help="go on from an IR file")
    phases.add_argument(
        "--dump-compilation-phases-to",
        type=directory,
        metavar="DIR",
        help="write the IR after each phase there",
    )
    add_file_flags(parser.add_argument_group("reading the file of --compile-from", "as irc opt does"))
    _add_check(parser.add_argument_group("checking passes"))
    add_ir_flags(parser, verify_each=False)


def add_compiled_for(
    parser: argparse.ArgumentParser,
) -> argparse._ArgumentGroup:  # pyright: ignore[reportPrivateUsage]
    """Flags about which checkpoint is compiled and for which programs; returns the group of the latter."""
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument("--local-files-only", action="store_true", help="download nothing")
    numbers = parser.add_argument_group("what to compile for")
    numbers.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of weights and activations; default float32"
    )
    for kind in KINDS:
        numbers.add_argument(
            f"--{kind}-buckets",
            type=partial(_bucket_list, kind),
            default=(),
            metavar=f"{SPELLING[kind]},…",
            help=f"shapes of the {kind} programs, e.g. {EXAMPLE[kind]}",
        )
    numbers.add_argument(
        "--tensor-parallel",
        type=int,
        default=1,
        metavar="N",
        help="share every layer among N cores of a chip, or all cores of several",
    )
    numbers.add_argument("--max-context", type=int, metavar="N", help="longest attention length")
    numbers.add_argument(
        "--quantize", choices=QUANTIZATIONS, help="round the weights of linear layers: 8-bit integers"
    )
    numbers.add_argument(
        "--quantize-ignore",
        metavar="PATH,…",
        default="lm_head",
        help="module paths of layers to leave as they are; * matches anything (default: lm_head)",
    )
    return numbers


def _add_check(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]
    group.add_argument(
        "--check",
        nargs="?",
        const="every",
        choices=("every", "phases"),
        help="compare what the IR computes before and after every pass, or phase; fail at the first drift",
    )
    group.add_argument(
        "--check-input", type=existing, metavar="FILE", help="text or token ids; default a fixed prompt"
    )
    group.add_argument(
        "--check-tolerance", type=float, metavar="X", help="relative error; default 1e-4, bfloat16 5e-2"
    )
    group.add_argument(
        "--check-dir",
        type=directory,
        default=Path(),
        metavar="DIR",
        help="where IR that drifts is left; default: here",
    )


def execute(arguments: argparse.Namespace) -> Outcome:
    """Compile."""
    as_file = bool(file_flags(arguments))
    final = arguments.compile_to == "emit" and not as_file
    if final and arguments.output is None:
        raise UsageError(
            "the following arguments are required: -o/--output", "usage: irc compile …", "irc compile"
        )
    if not final and arguments.output is not None:
        writable(str(arguments.output))
    watching = instruments(arguments)
    if as_file:
        return _file(arguments, watching)
    try:
        return _artifact(arguments, watching) if final else _ir(arguments, watching)
    finally:
        for instrument in watching:
            instrument.finish()


def _compilation(
    arguments: argparse.Namespace, watching: list[Instrument], progress: Callable[[str], None]
) -> Compilation:
    from npuc.passes.compile import Compilation

    return Compilation(
        model=arguments.model,
        target=arguments.target,
        buckets=(*arguments.prefill_buckets, *arguments.decode_buckets, *arguments.extend_buckets),
        dtype=arguments.dtype,
        max_context=arguments.max_context,
        revision=arguments.revision,
        local_files_only=arguments.local_files_only,
        compile_to=arguments.compile_to,
        compile_from=arguments.compile_from,
        dump_dir=arguments.dump_compilation_phases_to,
        instruments=watching,
        check=_check(arguments),
        progress=progress,
        weights=not arguments.no_weights,
        tensor_parallel=arguments.tensor_parallel,
        debug=not arguments.no_debug,
        quantize=quantization(arguments),
    )


def quantization(arguments: argparse.Namespace) -> Quantize | None:
    """What the flags ask weights to be rounded to."""
    from npuc.passes.pipeline import Quantize

    if arguments.quantize is None:
        return None
    ignored = (path.strip() for path in arguments.quantize_ignore.split(","))
    return Quantize(arguments.quantize, tuple(path for path in ignored if path))


def _check(arguments: argparse.Namespace) -> CheckOptions | None:
    from npuc.passes.check_passes import CheckOptions

    if arguments.check is None:
        return None
    return CheckOptions(
        arguments.check, arguments.check_input, arguments.check_tolerance, arguments.check_dir
    )


def _artifact(arguments: argparse.Namespace, watching: list[Instrument]) -> Outcome:
    with progress_bar(not arguments.json) as bar:
        with engine_imports():
            from npuc.passes.compile import compile_model

        def phase(name: str) -> None:
            bar(name, PHASES.index(name) / len(PHASES))

        found = compile_model(_compilation(arguments, watching, phase), arguments.output)
    return Outcome(found, summary(found))


def summary(found: dict[str, Any]) -> str:
    """The result of a compile for people."""
    phases = [[f"  {p['name']}", duration(p["seconds"])] for p in found["phases"] if p["seconds"] >= 1e-3]
    programs = [[f"  {p['name']}", size(p["bytes"])] for p in found["programs"]]
    fits, needed, available = found["fits"], found["main_memory_bytes"], found["main_memory_size"]
    return "\n".join(
        [
            f"{found['artifact']}: {len(programs)} programs and {_weights(found)}, "
            f"in {duration(found['seconds'])} with {size(found['peak_rss_bytes'])} of memory",
            *([] if fits else [too_large(needed, available)]),
            "",
            "Phases:",
            table(phases, right=(1,)),
            "",
            "Programs:",
            table(programs, right=(1,)),
        ]
    )


def _weights(found: dict[str, Any]) -> str:
    moved = found["weight_bytes"]
    return f"{size(moved)} of weights" if moved else "no weights (for timing only)"


def _file(arguments: argparse.Namespace, watching: list[Instrument]) -> Outcome:
    from npuc.tools.compile_file import compile_file

    with progress_bar(not arguments.json) as bar:
        compilation = _compilation(arguments, watching, lambda name: bar(name, None))
        return compile_file(arguments, compilation, watching)


def _ir(arguments: argparse.Namespace, watching: list[Instrument]) -> Outcome:
    """Compile up to a phase before the last and print the IR."""
    with progress_bar(not arguments.json) as bar:
        with engine_imports():
            from npuc.ir.printing import print_ir
            from npuc.passes.compile import check_data

        def phase(name: str) -> None:
            bar(name, PHASES.index(name) / len(PHASES))

        compilation = _compilation(arguments, watching, phase)
        module, _ = compilation.lowered()
        text = print_ir(module, form=text_form(arguments))
    phases = [{"name": p.name, "seconds": p.seconds} for p in compilation.phases]
    checks = check_data(compilation.checked)
    data: dict[str, object] = {"phase": arguments.compile_to, "phases": phases, "checks": checks}
    if arguments.output is None:
        return Outcome({**data, "text": text}, text.rstrip("\n"))
    write_atomically(arguments.output, text.encode())
    return Outcome({**data, "file": str(arguments.output)})
