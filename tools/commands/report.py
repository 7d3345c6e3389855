"""Show everything about an artifact in one HTML file that needs no network.

The IR after every pass and what the pass changed, each operation at every level down to its commands and
back, graphs, timelines, memory, roofline, weights. The IR that the artifact keeps is lowered once more to see
it happen; the checkpoint is needed only to compare values (--against).
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from npuc.ir.files import write_atomically
from npuc.tools.command import Outcome, progress_bar, quiet_libraries, size
from npuc.tools.paths import existing, writable

if TYPE_CHECKING:
    from npuc.runtime.artifact import Artifact

FORMATS = {"html": ".report.html", "model-explorer": ".graph.json", "chrome-trace": ".trace.json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc report`."""
    parser.add_argument("artifact", metavar="ARTIFACT", type=existing)
    parser.add_argument("-o", "--output", type=writable, help="default: ARTIFACT.report.html beside it")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="html",
        help="html; graphs for Google's Model Explorer; timelines for Perfetto and chrome://tracing",
    )

    parser.add_argument(
        "--against",
        metavar="MODEL",
        help="the checkpoint: show how far values move after each pass, and by layer",
    )


def execute(arguments: argparse.Namespace) -> Outcome:
    """Write a report."""
    from npuc.runtime.artifact import Artifact

    quiet_libraries()
    artifact = Artifact(arguments.artifact)
    name = artifact.path.resolve()
    output = arguments.output or name.with_name(name.name + FORMATS[arguments.format])
    with progress_bar(not arguments.json) as bar:
        bar("report", None)
        text = _text(artifact, arguments.format, arguments.against)
    write_atomically(output, text.encode())
    written = output.stat().st_size
    data = {"file": str(output), "format": arguments.format, "bytes": written}
    return Outcome(data, f"{output}: {size(written)}")


def _text(artifact: Artifact, form: str, model: str | None) -> str:
    if form == "chrome-trace":
        from npuc.tools.report.traces import trace_of

        return json.dumps(trace_of(artifact), separators=(",", ":"))
    if form == "model-explorer":
        from npuc.tools.report.model_explorer import graphs_data

        return json.dumps(graphs_data(artifact), separators=(",", ":"))
    from npuc.tools.report.document import document
    from npuc.tools.report.facts import report_data

    return document(report_data(artifact, model))
