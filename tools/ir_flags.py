"""The flags of `irc opt` and `irc compile` about dumps, times and reproducers, declared once."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from npuc.tools.environment import DEBUG
from npuc.tools.paths import directory, writable

if TYPE_CHECKING:
    from npuc.ir.printing import TextForm
    from npuc.passes.instrumentation import Instrument


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _boolean(text: str) -> bool:
    """MLIR's spellings of a boolean option."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "1")


def _limit(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of elements or characters")
    return int(text)


def add_ir_flags(parser: argparse.ArgumentParser, verify_each: bool) -> None:
    """Declares the flags, in groups.

    Args:
        verify_each: the default of --verify-each.
    """
    _add_dumps(parser.add_argument_group("dumps of the IR, on stderr"))
    _add_form(parser.add_argument_group("form of printed IR"))
    group = parser.add_argument_group("watching passes")
    flag = group.add_argument
    switch = partial(flag, action="store_true")
    switch("--mlir-timing", help="report each pass's time on stderr")
    switch("--mlir-pass-statistics", help="report the operations added and removed")
    switch("--dump-pass-pipeline", help="print the pipeline on stderr before it runs")
    flag(
        "--verify-each",
        type=_boolean,
        nargs="?",
        const=True,
        default=verify_each,
        metavar="BOOL",
        help=f"verify the IR after each pass; default {str(verify_each).lower()}",
    )
    flag(
        "--mlir-pass-pipeline-crash-reproducer",
        type=writable,
        metavar="FILE",
        help="when a pass fails, write the IR before the pipeline, and the pipeline",
    )
    switch(
        "--mlir-pass-pipeline-local-reproducer",
        help="write the IR before the pass that fails, and that pass alone",
    )


def _add_dumps(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]
    flag = group.add_argument
    switch, passes = (
        partial(flag, action="store_true"),
        partial(flag, metavar="PASS,…", type=_names, default=()),
    )
    passes("--mlir-print-ir-before", help="before these passes; globs")
    switch("--mlir-print-ir-before-all", help="before each pass")
    passes("--mlir-print-ir-after", help="after these passes; globs")
    switch("--mlir-print-ir-after-all", help="after each pass")
    switch("--mlir-print-ir-after-change", help="after a pass only if it changed the IR")
    switch("--mlir-print-ir-after-failure", help="after a pass that failed")
    flag("--mlir-print-ir-tree-dir", metavar="DIR", type=directory, help="a file per dump there, not stderr")
    flag(
        "--dump-filter",
        metavar="GLOB",
        default="",
        help="only functions, programs or checkpoint modules, e.g. 'model.layers.0.mlp'",
    )
    switch("--mlir-print-ir-module-scope", help="the whole module around what --dump-filter finds")


def _add_form(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]
    flag = group.add_argument
    switch = partial(flag, action="store_true")
    switch("--mlir-print-op-generic", help="the generic form of every operation")
    switch("--mlir-print-debuginfo", help="with locations")
    flag("--mlir-elide-elementsattrs-if-larger", metavar="N", type=_limit, help="no constants beyond N")
    flag(
        "--mlir-elide-resource-strings-if-larger",
        metavar="N",
        type=_limit,
        help="no lists of weight sources beyond N characters",
    )
    switch("--no-type-aliases", help="every type in full")


FILE_FLAGS = ("--split-input-file", "--verify-diagnostics", "--run-reproducer")
"""How a file of IR is read; `irc opt` has the first two from xDSL."""


def add_file_flags(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]
    """Declares them for `irc compile`."""
    switch = partial(group.add_argument, action="store_true")
    switch("--split-input-file", help="each piece between // ----- by itself")
    switch("--verify-diagnostics", help="check comments like // expected-error @+1 {{…}}")
    switch("--run-reproducer", help="run the pipeline that the file itself holds")


def file_flags(arguments: argparse.Namespace) -> list[str]:
    """Those that were given."""
    return [flag for flag in FILE_FLAGS if getattr(arguments, flag[2:].replace("-", "_"))]


def text_form(arguments: argparse.Namespace) -> TextForm:
    """How the flags want IR printed."""
    from npuc.ir.printing import TextForm

    return TextForm(
        generic=arguments.mlir_print_op_generic,
        locations=arguments.mlir_print_debuginfo,
        aliases=not arguments.no_type_aliases,
        max_elements=arguments.mlir_elide_elementsattrs_if_larger,
        max_resource=arguments.mlir_elide_resource_strings_if_larger,
    )


def instruments(arguments: argparse.Namespace) -> list[Instrument]:
    """What the flags and IRC_DEBUG want passes to be watched by; the nearest to the passes comes last."""
    from npuc.passes.instrumentation import PipelineDump, Statistics, Timing, Verification

    level = DEBUG.level
    chosen: list[Instrument] = [PipelineDump()] if arguments.dump_pass_pipeline else []
    chosen += _dumps(arguments, level)
    if arguments.mlir_pass_statistics or level >= 2:
        chosen.append(Statistics())
    chosen += _reproducers(arguments)
    if arguments.verify_each:
        chosen.append(Verification())
    chosen.append(Timing(report=arguments.mlir_timing or level >= 1))
    return chosen


def _dumps(arguments: argparse.Namespace, level: int) -> list[Instrument]:
    from npuc.passes.ir_dumps import IRDumps

    wants_all = arguments.mlir_print_ir_after_all or level >= 4
    only_changed = (arguments.mlir_print_ir_after_change or level == 3) and level < 4
    every = wants_all or (only_changed and not arguments.mlir_print_ir_after)
    dumps = IRDumps(
        before=("*",) if arguments.mlir_print_ir_before_all or level >= 4 else arguments.mlir_print_ir_before,
        after=("*",) if every else arguments.mlir_print_ir_after,
        only_changed=only_changed,
        after_failure=arguments.mlir_print_ir_after_failure,
        folder=arguments.mlir_print_ir_tree_dir,
        form=text_form(arguments),
        only=arguments.dump_filter,
        whole=arguments.mlir_print_ir_module_scope,
    )
    return [dumps] if dumps.before or dumps.after or dumps.after_failure else []


def _reproducers(arguments: argparse.Namespace) -> list[Instrument]:
    from npuc.passes.reproducer import CrashReproducer

    file = arguments.mlir_pass_pipeline_crash_reproducer
    if file is None:
        return []
    return [CrashReproducer(file, arguments.mlir_pass_pipeline_local_reproducer, arguments.verify_each)]
