"""Predict the time of an artifact's programs with the timing model; no weights are read.

Each program runs its entry `last` with all rows at their last positions. The roofline is the least time in
which the model's bytes could be moved and its products made. --trace writes a timeline for Perfetto
(https://ui.perfetto.dev) or chrome://tracing. --why follows the chain of commands that each waited for the
one before: what bounds the program, and what its busiest queue waits for while it idles.
"""

from __future__ import annotations

import argparse
from typing import Any

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, duration, quiet_libraries, size, table, too_large
from npuc.tools.paths import existing, writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc profile`."""
    parser.add_argument("artifact", metavar="ARTIFACT", type=existing)
    parser.add_argument("--program", metavar="NAME", help="this program only, e.g. decode_1x256")
    parser.add_argument("--why", action="store_true", help="what bounds each program, and where it idles")
    parser.add_argument("--trace", metavar="FILE.json", type=writable, help="write the program's timeline")


def execute(arguments: argparse.Namespace) -> Outcome:
    """Profile."""
    from npuc.runtime.artifact import Artifact
    from npuc.runtime.simulator import write_chrome_trace
    from npuc.tools.roofline import model_sizes

    quiet_libraries()
    artifact = Artifact(arguments.artifact)
    manifest = artifact.manifest
    name = arguments.program
    chosen = list(manifest.programs) if name is None else [manifest.program(name)]
    if arguments.trace is not None and len(chosen) != 1:
        listed = ", ".join(program.name for program in chosen)
        raise UserError(
            "no-program", "a trace is of one program", where="--trace", remedy=f"--program: {listed}"
        )
    machine, sizes = artifact.machine, model_sizes(artifact.model_path, manifest)
    timelines = [time_ranks(artifact, program, machine) for program in chosen]
    if arguments.trace is not None:
        write_chrome_trace(timelines[0], arguments.trace)
    found = [data_of(p, t[0], machine, sizes, manifest) for p, t in zip(chosen, timelines, strict=True)]
    for program, ranks in zip(found, timelines, strict=True):
        program["link_bytes"] = sum(rank.link_bytes for rank in ranks)
    text = _text(found)
    needed, available = manifest.main_memory_bytes, machine.main.size
    if needed > available:
        text += f"\n\n{too_large(needed, available)}"
    if arguments.why:
        from npuc.tools import why

        for program, ranks in zip(found, timelines, strict=True):
            program["why"] = why.explain(ranks[0])
            text += "\n\n" + "\n".join(why.lines(program["name"], program["why"]))
    return Outcome({"programs": found, "fits": needed <= available}, text)


def time_program(artifact: Any, program: Any, machine: Any) -> Any:
    """The first rank's timeline of a program's entry `last`, all rows at their last positions."""
    return time_ranks(artifact, program, machine)[0]


def time_ranks(artifact: Any, program: Any, machine: Any) -> list[Any]:
    """The timelines of all ranks, which run together, as of `time_program`."""
    from npuc.backends.elf import parse_program
    from npuc.runtime.device import parameters
    from npuc.runtime.simulator.program import load_program
    from npuc.runtime.simulator.timing import simulate

    elf = parse_program(artifact.read_file(program.file), str(artifact.path / program.file))
    start = program.length - program.new_tokens
    rows = [(slot, start, program.new_tokens) for slot in range(program.batch)]
    loaded, ranks = load_program(machine, elf), artifact.manifest.parallel.tensor_parallel
    cores = machine.cores_per_chip
    runs = [(loaded, "last", parameters(rows, rank, rank // cores)) for rank in range(ranks)]
    return simulate(runs, chip_bytes=cores * artifact.manifest.rank_stride)


def data_of(program: Any, timeline: Any, machine: Any, sizes: Any, manifest: Any) -> dict[str, Any]:
    """A program's figures, for programs: times of a rank, bytes of all ranks, which do the same."""
    from npuc.tools.roofline import roofline_cycles, work_of

    work, ranks = work_of(program, sizes, manifest), manifest.parallel.tensor_parallel
    cycles = timeline.cycles
    return {
        "name": program.name,
        "kind": program.kind,
        "batch": program.batch,
        "length": program.length,
        "cycles": cycles,
        "roofline_cycles": roofline_cycles(work, machine, ranks),
        "seconds": timeline.seconds,
        "tokens_per_second": program.batch * program.new_tokens / timeline.seconds,
        "dram_bytes": ranks * timeline.dram_bytes,
        "least_dram_bytes": work.bytes,
        "macs": work.macs,
        "utilization": {queue: timeline.busy(queue) / cycles for queue in timeline.queues},
        "stages": {stage: spent / cycles for stage, spent in timeline.stages.items()},
    }


def _rate(tokens: float) -> str:
    return f"{tokens:,.0f}" if tokens >= 10 else f"{tokens:.2f}"


def _text(programs: list[dict[str, Any]]) -> str:
    header = ["program", "cycles", "roofline", "time", "tokens/s", "moved", "must move", "busy"]
    between = any(p["link_bytes"] for p in programs)
    header[-1:-1] = ["between chips"] * between
    rows = [
        [
            p["name"],
            f"{p['cycles']:,}",
            f"{p['roofline_cycles']:,.0f}",
            duration(p["seconds"]),
            _rate(p["tokens_per_second"]),
            size(p["dram_bytes"]),
            size(p["least_dram_bytes"]),
            *[size(p["link_bytes"])] * between,
            ", ".join(f"{queue} {100 * share:.0f} %" for queue, share in p["utilization"].items()),
        ]
        for p in programs
    ]
    return table(rows, header, right=range(1, len(header) - 1))
