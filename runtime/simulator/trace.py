"""Timelines as Chrome trace JSON (the Trace Event Format of chrome://tracing and Perfetto)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from npuc.ir.files import write_atomically
from npuc.runtime.simulator.timeline import Timeline


def chrome_trace(timelines: Sequence[Timeline], names: Sequence[str] = ()) -> dict[str, Any]:
    """The trace: a process per timeline, a thread per queue, an event per command; times are microseconds.

    Args:
        timelines: of cores that ran together, or of programs by themselves.
        names: of the processes; by default those of cores.
    """
    called = names or [f"{t.program.machine.name} core {rank}" for rank, t in enumerate(timelines)]
    return {
        "displayTimeUnit": "ns",
        "traceEvents": [
            event
            for rank, (name, timeline) in enumerate(zip(called, timelines, strict=True))
            for event in _events(rank, name, timeline)
        ],
    }


def write_chrome_trace(timelines: Sequence[Timeline], path: str | Path) -> None:
    """Write the trace of cores that ran together to a file."""
    write_atomically(path, json.dumps(chrome_trace(timelines), separators=(",", ":")).encode())


def _events(rank: int, name: str, timeline: Timeline) -> Iterator[dict[str, Any]]:
    program = timeline.program
    cycle = 1e-3 / program.machine.clock_ghz  # microseconds
    yield _name("process_name", name, rank, 0)
    for thread, (queue, intervals) in enumerate(timeline.queues.items(), start=1):
        yield _name("thread_name", queue, rank, thread)
        for offset, start, end in intervals:
            instruction = program.items[program.index[offset]].instruction
            yield {
                "ph": "X",
                "pid": rank,
                "tid": thread,
                "ts": start * cycle,
                "dur": (end - start) * cycle,
                "name": instruction.location or instruction.command,
                "cat": instruction.command,
                "args": {"command": instruction.command, "offset": offset, "start": start, "end": end},
            }


def _name(kind: str, name: str, rank: int, thread: int) -> dict[str, Any]:
    return {"ph": "M", "pid": rank, "tid": thread, "name": kind, "args": {"name": name}}
