"""The timelines of all programs of an artifact as one Chrome trace."""

from __future__ import annotations

from typing import Any

from npuc.runtime.artifact import Artifact
from npuc.runtime.simulator.trace import chrome_trace
from npuc.tools.commands.profile import time_program


def trace_of(artifact: Artifact) -> dict[str, Any]:
    """A process per program, each in a call of its own; needs no IR."""
    programs = artifact.manifest.programs
    timelines = [time_program(artifact, program, artifact.machine) for program in programs]
    return chrome_trace(timelines, [program.name for program in programs])
