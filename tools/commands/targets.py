"""List the NPUs that can be compiled for; a name shows a machine's memories, queues and commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from npuc.tools.command import Outcome, size, table

if TYPE_CHECKING:
    from npuc.backends.machine import Machine
    from npuc.backends.model import Memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc targets`."""
    parser.add_argument("name", nargs="?", help="show this target's machine")


def execute(arguments: argparse.Namespace) -> Outcome:
    """List the targets, or show one."""
    from npuc.backends.registry import load_target, target_names

    if arguments.name is not None:
        machine = load_target(arguments.name).machine
        return Outcome({"targets": [_data(machine)]}, _describe(machine))
    machines = [load_target(name).machine for name in target_names()]
    return Outcome(
        {"targets": [_data(m) for m in machines]}, table([[m.name, _summary(m)] for m in machines])
    )


def _summary(machine: Machine) -> str:
    return machine.doc.strip().partition("\n")[0]


def _bytes_per_second(machine: Machine, memory: Memory) -> float:
    return memory.bandwidth * machine.clock_ghz * 1e9


def _data(machine: Machine) -> dict[str, Any]:
    return {
        "name": machine.name,
        "summary": _summary(machine),
        "clock_hz": machine.clock_ghz * 1e9,
        "levels": dict(machine.levels),
        "memories": [
            {
                "name": memory.name,
                "level": memory.level,
                "bytes": memory.size,
                "slices": memory.slices,
                "bytes_per_second": _bytes_per_second(machine, memory),
                "main": memory.main,
            }
            for memory in machine.memories.values()
        ],
        "types": list(machine.element_types),
        "queues": list(machine.queues),
        "commands": [{"name": c.name, "kind": c.kind} for c in machine.commands.values()],
        "registers": machine.registers,
        "semaphores": machine.semaphores,
    }


def _describe(machine: Machine) -> str:
    levels = ", ".join(f"{level} {count}" for level, count in machine.levels.items())
    memories = [
        [
            f"  {memory.name}",
            size(memory.size) + (f" x {memory.slices} slices" if memory.slices > 1 else ""),
            f"{_bytes_per_second(machine, memory) / 1e9:.0f} GB/s",
            memory.doc.strip().partition("\n")[0],
        ]
        for memory in machine.memories.values()
    ]
    commands = [[f"  {c.name}", c.kind] for c in machine.commands.values()]
    return "\n".join(
        [
            machine.doc.strip(),
            "",
            f"clock {machine.clock_ghz} GHz; {levels}; types {', '.join(machine.element_types)}",
            f"sequencer with {machine.registers} registers and {machine.semaphores} semaphores; "
            f"queues {', '.join(machine.queues)}",
            "",
            "Memories:",
            table(memories, right=(1, 2)),
            "",
            "Commands:",
            table(commands),
        ]
    )
