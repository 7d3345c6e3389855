"""Make a module on which a pipeline goes wrong as small as possible.

FILE is IR, or a reproducer that holds its pipeline. What goes wrong is found out once and then kept: the
pipeline fails, in the same pass with the same words; or functions compute something else after it, of random
arguments and weights; or the programs it makes have hazards on the simulator. Or --test COMMAND decides: it
is given a file, exit status 0 means interesting.

Programs and functions, layers, operations, results, sizes and symbolic types are dropped or made smaller. The
smallest module so far is always in OUT; after an interruption the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npuc.tools.command import Outcome, UsageError, duration, progress_bar
from npuc.tools.paths import existing, writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdsl.dialects.builtin import ModuleOp

KINDS = ("failure", "values", "hazard")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc reduce`."""
    parser.add_argument("file", metavar="FILE", type=existing, help="IR, or a reproducer")
    parser.add_argument("-o", "--output", metavar="OUT", type=writable, help="default: FILE.reduced.mlir")
    parser.add_argument("-p", "--passes", metavar="PIPELINE", help="what goes wrong; as in irc opt")
    parser.add_argument("--expect", choices=KINDS, help="what to keep; default: what goes wrong first")
    parser.add_argument("--test", metavar="COMMAND", help="given a file, exits 0 if it is interesting")
    parser.add_argument("-t", "--target", help="of values and hazards; default: that of the pipeline")
    parser.add_argument("--restart", action="store_true", help="do not go on with an interrupted reduction")


def execute(arguments: argparse.Namespace) -> Outcome:
    """Reduce."""
    from npuc.passes.reduction.modules import size
    from npuc.passes.reduction.reducer import Reducer, Saved, transformations_for

    start = time.perf_counter()
    module, pipeline = _input(arguments.file, arguments.passes)
    if arguments.test is None and not pipeline:
        message = "one of the arguments -p/--passes and --test is required for a file without a pipeline"
        raise UsageError(message, "usage: irc reduce FILE … | irc reduce --help", "irc reduce")
    kind, interesting = _criterion(arguments, module, pipeline)
    output = arguments.output or arguments.file.with_suffix(".reduced.mlir")
    saved = Saved(output, _key(arguments, pipeline, kind))
    before = size(module)
    with progress_bar(not arguments.json) as bar:
        reducer = Reducer(interesting, transformations_for(pipeline))
        reducer.progress = lambda name, left: bar(f"{left} operations: {name}", None)
        state = None if arguments.restart else saved.read()
        if state is not None:
            module, _ = _input(output, "")
            reducer.step, reducer.idle, reducer.tests = state["step"], state["idle"], state["tests"]
        reducer.accepted = lambda smaller: saved.write(reducer, smaller)
        module = reducer.reduce(module)
    saved.write(reducer, module)
    saved.finish()
    seconds = time.perf_counter() - start
    data: dict[str, Any] = {
        "kind": kind,
        "pipeline": pipeline,
        "operations": [before, size(module)],
        "tests": reducer.tests,
        "resumed": state is not None,
        "file": str(output),
        "seconds": seconds,
    }
    return Outcome(data, _text(data, output.read_text(encoding="utf-8")))


def _input(file: Path, passes: str | None) -> tuple[ModuleOp, str]:
    """The module of a file, and the pipeline: the one given, or the one that the file holds."""
    from npuc.ir.files import read_text
    from npuc.passes.instrumentation import parse_pipeline_text
    from npuc.passes.ir_files import parse_ir
    from npuc.passes.reproducer import split_reproducer

    text = read_text(file)
    if "mlir_reproducer" not in text:
        return parse_ir(file), passes or ""
    ir, own = split_reproducer(text, str(file))
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / file.name
        plain.write_text(ir, encoding="utf-8")
        return parse_ir(plain), passes or parse_pipeline_text(own)


def _criterion(
    arguments: argparse.Namespace, module: ModuleOp, pipeline: str
) -> tuple[str, Callable[[ModuleOp], bool]]:
    from npuc.backends.registry import target_names
    from npuc.passes.pipeline import passes_of
    from npuc.passes.reduction.criteria import Script, find_criterion
    from npuc.passes.target_option import machine_of

    if arguments.test is not None:
        return "test", Script(arguments.test)
    passes_of(pipeline)  # before what it says of them could be taken for the failure to keep
    named = re.search(r'target="([^"]+)"', pipeline)
    target = arguments.target or (named[1] if named else target_names()[0])
    return find_criterion(module, pipeline, machine_of(target), arguments.expect)


def _key(arguments: argparse.Namespace, pipeline: str, kind: str) -> str:
    """What identifies a reduction."""
    parts = [arguments.file.read_text(encoding="utf-8"), pipeline, kind, arguments.test or ""]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _text(data: dict[str, Any], ir: str) -> str:
    before, after = data["operations"]
    what = {
        "failure": "the pipeline fails as before",
        "values": "the pipeline still changes values",
        "hazard": "the programs still have a hazard",
        "test": "the test still finds it interesting",
    }[data["kind"]]
    title = f"{before} operations → {after}, {what} ({data['tests']} tests, {duration(data['seconds'])})"
    lines = [title, "", ir.rstrip()]
    if data["pipeline"]:
        lines += ["", f"next: irc opt {data['file']} -p '{data['pipeline']}'"]
    return "\n".join(lines)
