"""The programs of a report: commands with their origins, timelines, buffers, and what bounds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

from npuc.backends.machine import Machine
from npuc.ir.npu import CommandOp, LabelOp, ProgramOp
from npuc.passes.programs import programs as programs_of
from npuc.runtime.artifact import Artifact
from npuc.runtime.manifest import Program
from npuc.runtime.simulator.timeline import Timeline
from npuc.tools.commands.profile import data_of, time_program
from npuc.tools.located_commands import LocatedCommand, located_commands
from npuc.tools.report.memory_map import Span, buffers_of, lives
from npuc.tools.report.recompile import Recompiled
from npuc.tools.report.stages import origin_of
from npuc.tools.roofline import ModelSizes, core_bandwidth
from xdsl.dialects.builtin import ModuleOp

ENTRY = "last"
T = TypeVar("T")
MAX_EVENTS = 400_000
"""Commands of a timeline and lives of buffers that are shown, at most; the page says when there were more."""


@dataclass(frozen=True)
class ProgramFacts:
    """A program of the artifact, run once by the timing model.

    Attributes:
        program: its entry in the manifest.
        commands: in order of the text.
        origins: line of the IR at the start of each command, 0 for none.
        timeline: when what ran.
        offsets: function → offsets of its passes and copies.
    """

    program: Program
    commands: list[LocatedCommand]
    origins: list[int]
    timeline: Timeline
    offsets: dict[str, list[int]] = field(default_factory=dict[str, list[int]])


def facts_of(artifact: Artifact, found: Recompiled, program: Program) -> ProgramFacts:
    """Times a program and finds where each of its commands comes from.

    Raises:
        UserError: ``malformed-program``, or a deadlock.
    """
    from npuc.backends.elf import parse_program

    elf = parse_program(artifact.read_file(program.file), str(artifact.path / program.file))
    timeline = time_program(artifact, program, artifact.machine)
    commands = list(located_commands(program.name, elf, artifact.machine, timeline))
    facts = ProgramFacts(program, commands, [0] * len(commands), timeline)
    op = next(
        op for op in found.module.walk() if isinstance(op, ProgramOp) and op.sym_name.data == program.name
    )
    if found.same:
        _locate(facts, op, artifact.machine)
    return facts


def _locate(facts: ProgramFacts, op: ProgramOp, machine: Machine) -> None:
    """Fills in origins and offsets; the operation is what the program was encoded from."""
    index, label = 0, ""
    for inner in op.body.block.ops:
        if isinstance(inner, LabelOp):
            label = inner.label.data
        elif isinstance(inner, CommandOp):
            command = facts.commands[index]
            facts.origins[index] = origin_of(inner)
            if machine.command(command.instruction).kind != "control":
                facts.offsets.setdefault(label, []).append(command.offset)
            index += 1


def program_data(
    artifact: Artifact, found: Recompiled, facts: ProgramFacts, sizes: ModelSizes
) -> dict[str, Any]:
    """A program for the page."""
    numbers = {command.offset: i for i, command in enumerate(facts.commands)}
    queues = {
        queue: [[numbers[run.offset], run.start, run.end - run.start] for run in shown(runs)[0]]
        for queue, runs in facts.timeline.queues.items()
    }
    return {
        **data_of(facts.program, facts.timeline, artifact.machine, sizes, artifact.manifest),
        "new_tokens": facts.program.new_tokens,
        "commands": [_command(c, origin) for c, origin in zip(facts.commands, facts.origins, strict=True)],
        "queues": queues,
        "dropped": sum(shown(runs)[1] for runs in facts.timeline.queues.values()),
        "modules": modules_data(artifact.machine, facts.commands),
        **_memory(artifact.machine, found, facts),
    }


def shown(events: Sequence[T]) -> tuple[Sequence[T], int]:
    """Those of some events that the page shows, and how many it leaves out."""
    return events[:MAX_EVENTS], max(0, len(events) - MAX_EVENTS)


def _command(command: LocatedCommand, origin: int) -> list[Any]:
    """As a list: the page names the columns."""
    return [
        command.offset,
        command.text,
        command.instruction.queue,
        command.operation,
        command.module,
        command.cycles,
        command.dram_bytes,
        command.runs,
        command.total_cycles,
        origin,
    ]


def modules_data(machine: Machine, commands: list[LocatedCommand]) -> list[dict[str, Any]]:
    """What each checkpoint module does in a call: products, bytes, cycles of its busiest queue."""
    found: dict[str, dict[str, Any]] = {}
    for command in commands:
        if not (command.module and command.runs):
            continue
        entry = found.setdefault(
            command.module, {"module": command.module, "macs": 0, "bytes": 0, "queues": {}, "commands": 0}
        )
        entry["macs"] += command.runs * macs_of(machine, command)
        entry["bytes"] += command.runs * command.dram_bytes
        entry["commands"] += 1
        queue = command.instruction.queue
        entry["queues"][queue] = entry["queues"].get(queue, 0) + command.total_cycles
    return [{**entry, "cycles": max(entry["queues"].values())} for entry in found.values()]


def macs_of(machine: Machine, command: LocatedCommand) -> int:
    """Multiply-accumulates of one run, all slices together, padding included."""
    fields = command.instruction.fields
    if fields.get("stationary.type", "none") == "none":
        return 0
    size = fields["size"]
    assert isinstance(size, tuple)
    return prod(int(n) for n in size if isinstance(n, int)) * machine.slices


def _memory(machine: Machine, found: Recompiled, facts: ProgramFacts) -> dict[str, Any]:
    """On-chip memories: buffers, and their lives in the timed run."""
    program = _scheduled(found, facts.program.name)
    if program is None or not facts.offsets:
        return {"buffers": [], "lives": [], "dropped_lives": 0}
    spans: dict[int, list[Span]] = {}
    for runs in facts.timeline.queues.values():
        for run in runs:
            spans.setdefault(run.offset, []).append(Span(run.start, run.end))
    buffers = buffers_of(machine, program, ENTRY, facts.offsets)
    first, dropped = shown([life for i, buffer in enumerate(buffers) for life in lives(i, buffer, spans)])
    return {
        "buffers": [[b.name, b.memory, b.bytes, b.copies, b.type, b.origin] for b in buffers],
        "lives": [list(life) for life in first],
        "dropped_lives": dropped,
    }


def _scheduled(found: Recompiled, name: str) -> ModuleOp | None:
    scheduled = found.recorder.scheduled
    nested = [] if scheduled is None else programs_of(scheduled)
    return next((m for m in nested if m.sym_name is not None and m.sym_name.data == name), None)


def machine_data(machine: Machine, dtype: str) -> dict[str, Any]:
    """What the page needs to know of the machine."""
    return {
        "name": machine.name,
        "clock_ghz": machine.clock_ghz,
        "slices": machine.slices,
        "bandwidth": core_bandwidth(machine),
        "macs": machine.element_types[dtype].macs * machine.slices,
        "memories": {
            name: {"bytes": memory.size, "slices": memory.slices, "main": memory.main}
            for name, memory in machine.memories.items()
        },
    }
