"""Execute an artifact's programs once on the simulator, with arbitrary tokens as input.

With --sanitize every memory access is checked: out of bounds, reads of bytes that nobody wrote, accesses that
conflict and that no semaphore orders. Any finding makes the exit status 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, duration, progress_bar, table
from npuc.tools.paths import existing

if TYPE_CHECKING:
    from npuc.runtime.device import SimulatorDevice
    from npuc.runtime.manifest import Program
    from npuc.runtime.simulator.program import LoadedProgram


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc sim`."""
    parser.add_argument("artifact", metavar="ARTIFACT", type=existing)
    parser.add_argument("--program", metavar="NAME", help="this program only, e.g. decode_1x256")
    parser.add_argument(
        "--elf",
        metavar="FILE",
        type=existing,
        help="run this file, from irc asm --like, as --program NAME",
    )
    parser.add_argument("--entry", choices=("last", "all"), default="last", help="logits of which rows")
    parser.add_argument("--sanitize", action="store_true", help="look for hazards")
    parser.add_argument("--seed", type=int, default=0, help="of the tokens")


def execute(arguments: argparse.Namespace) -> Outcome:
    """Execute."""
    from npuc.runtime.artifact import Artifact
    from npuc.runtime.device import SimulatorDevice

    artifact = Artifact(arguments.artifact)
    name = arguments.program
    if arguments.elf is not None and name is None:
        raise UserError(
            "argument",
            "it is not said which program the file stands for",
            where="--elf",
            remedy="give --program NAME",
        )
    chosen = list(artifact.manifest.programs) if name is None else [artifact.manifest.program(name)]
    found: list[dict[str, Any]] = []
    with progress_bar(not arguments.json) as bar:
        device = SimulatorDevice(artifact)
        for done, program in enumerate(chosen):
            bar(program.name, done / len(chosen))
            found.append(_run(device, program, arguments))
    hazards = [hazard for program in found for hazard in program["hazards"]]
    rows = [
        [
            p["name"],
            p["entry"],
            f"{p['commands']:,} commands",
            duration(p["host_seconds"]),
            _verdict(p, arguments),
        ]
        for p in found
    ]
    texts = [table(rows, right=(2, 3)), *(f"{h['kind']}: {h['text']}" for h in hazards)]
    return Outcome({"programs": found, "passed": not hazards}, "\n\n".join(texts), not hazards)


def _run(device: SimulatorDevice, program: Program, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from npuc.runtime.device import parameters

    generator = torch.Generator().manual_seed(arguments.seed)
    shape = (program.batch, program.new_tokens)
    position = program.length - program.new_tokens
    inputs = {
        "tokens": torch.randint(device.vocab_size, shape, generator=generator, dtype=torch.int32),
        "positions": torch.arange(position, program.length, dtype=torch.int32).expand(shape),
    }
    for name, place in program.io.items():
        if name in inputs:
            device.simulator.write(place.address, inputs[name].reshape(place.shape))
    rows = [(slot, position, program.new_tokens) for slot in range(program.batch)]
    start = time.perf_counter()
    loaded = _loaded(device, program, arguments.elf)
    result = device.simulator.run_ranks(loaded, arguments.entry, parameters(rows), hazards=arguments.sanitize)
    return {
        "name": program.name,
        "entry": arguments.entry,
        "commands": result.commands,
        "host_seconds": time.perf_counter() - start,
        "hazards": [
            {
                "kind": h.kind,
                "text": h.text,
                "memory": h.memory,
                "low": h.low,
                "high": h.high,
                "slice": h.slice,
            }
            for h in result.hazards
        ],
    }


def _loaded(device: SimulatorDevice, program: Program, file: Path | None) -> LoadedProgram:
    """The artifact's program, or the one that stands in for it."""
    from npuc.backends.elf import read_program

    if file is None:
        return device.load(program)
    elf = read_program(file)
    if elf.target != device.manifest.target:
        raise UserError(
            "wrong-target",
            f"the program is for {elf.target}, the artifact for {device.manifest.target}",
            where=str(file),
            remedy="assemble it with irc asm --like a program of the artifact",
        )
    return device.simulator.load(elf)


def _verdict(program: dict[str, Any], arguments: argparse.Namespace) -> str:
    if not arguments.sanitize:
        return ""
    return f"{len(program['hazards'])} hazards" if program["hazards"] else "no hazard"
