"""What generation needs of a device, and the device that runs an artifact on the simulator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from npuc.backends.elf import parse_program
from npuc.ir.errors import UserError
from npuc.runtime.artifact import Artifact
from npuc.runtime.element_types import element_type
from npuc.runtime.manifest import Program, WeightPlacement
from npuc.runtime.simulator.hazards import Hazard
from npuc.runtime.simulator.program import LoadedProgram
from npuc.runtime.simulator.simulator import Simulator
from npuc.runtime.weights import WeightFile


class Row(NamedTuple):
    """One active row of a run: ``tokens`` go to positions ``position`` … of cache slot ``slot``."""

    slot: int
    position: int
    tokens: Sequence[int]


class Device(Protocol):
    """A machine with the programs and weights of an artifact, and its caches."""

    @property
    def programs(self) -> Sequence[Program]:
        """The programs that can be run."""
        ...

    @property
    def slots(self) -> int:
        """How many sequences the caches hold."""
        ...

    @property
    def vocab_size(self) -> int:
        """The number of logits of a position."""
        ...

    def forward(
        self,
        program: Program,
        tokens: torch.Tensor,
        slots: Sequence[int],
        positions: Sequence[int],
        valid: Sequence[int],
        entry: str = "last",
    ) -> torch.Tensor:
        """Runs a program once.

        Args:
            program: one of ``programs``.
            tokens: int32 token ids [B, N].
            slots: each row's cache slot.
            positions: each row's number of tokens already in the cache.
            valid: each row's number of new tokens; 0 for an inactive row.
            entry: ``last`` for the logits of each row's last new token, ``all`` for those of every position.

        Returns:
            float32 logits, [B, V] or [B, N, V]; unspecified where a row or position is not valid.
        """
        ...

    def seconds(self, program: Program, entry: str = "last") -> float:
        """The simulated time of one run."""
        ...


def run_rows(device: Device, program: Program, rows: Sequence[Row], entry: str = "last") -> torch.Tensor:
    """Runs a program for the first ``len(rows)`` rows of its batch; the others are inactive.

    Returns:
        As :meth:`Device.forward`.
    """
    tokens = torch.zeros(program.batch, program.new_tokens, dtype=torch.int32)
    for index, row in enumerate(rows):
        tokens[index, : len(row.tokens)] = torch.tensor(row.tokens, dtype=torch.int32)
    unused = [0] * (program.batch - len(rows))
    slots = [row.slot for row in rows] + unused
    positions = [row.position for row in rows] + unused
    valid = [len(row.tokens) for row in rows] + unused
    return device.forward(program, tokens, slots, positions, valid, entry)


def parameters(rows: Sequence[Sequence[int]], rank: int = 0, chip: int = 0) -> list[int]:
    """The runtime parameters of a program: rank and chip, then per row slot, position, valid, last and end.

    Args:
        rows: each row's slot, position and valid.
        rank: of the core that runs it.
        chip: that the core is on.
    """
    result = [rank, chip]
    for slot, position, valid in rows:
        result += [slot, position, valid, max(valid - 1, 0), position + valid]
    return result


def upload(
    weights: WeightFile, placement: WeightPlacement, write: Callable[[int, torch.Tensor], None]
) -> None:
    """Writes a tensor to main memory, layer by layer where they lie apart, a few megabytes at a time.

    Raises:
        UserError: ``damaged-weights`` when its CRC differs, after it was written.
    """
    layer_bytes, position = weights.tensors[placement.name].bytes // placement.count, 0
    for piece in weights.pieces(placement.name):
        while len(piece):
            layer, inside = divmod(position, layer_bytes)
            part, piece = piece[: layer_bytes - inside], piece[layer_bytes - inside :]
            write(placement.address + layer * placement.stride + inside, part)
            position += len(part)


class SimulatorDevice:
    """The simulator of an artifact's target, with its weights; caches start zero, programs load when run.

    Attributes:
        sanitize: whether runs look for hazards, which takes longer.
        hazards: those that were found.

    Args:
        artifact: opened.

    Raises:
        UserError: for damaged weights or an unknown target.
    """

    def __init__(self, artifact: Artifact, *, sanitize: bool = False) -> None:
        self.sanitize = sanitize
        self.hazards: list[Hazard] = []
        self._artifact = artifact
        self.manifest = artifact.manifest
        machine = artifact.machine
        ranks, stride = self.manifest.parallel.tensor_parallel, self.manifest.rank_stride
        files = [artifact.weights(rank) for rank in range(ranks)]
        end = self.manifest.main_memory_bytes
        if end > machine.main.size:
            raise UserError(
                "too-large",
                f"the artifact needs {end} bytes of main memory, {machine.name} has {machine.main.size}",
                where=str(artifact.path),
            )
        self.simulator = Simulator(machine, ranks * stride, cores=ranks)
        cache = self.manifest.memory["cache"]
        for rank, (file, weights) in enumerate(zip(files, self.manifest.weights, strict=True)):
            for placement in weights.tensors:
                own = replace(placement, address=placement.address + rank * stride)
                upload(file, own, self.simulator.write)
            self.simulator.zero(rank * stride + cache.base, cache.bytes)
        self._loaded: dict[str, LoadedProgram] = {}
        self._seconds: dict[tuple[str, str], float] = {}

    @property
    def programs(self) -> Sequence[Program]:
        """The programs of the artifact."""
        return self.manifest.programs

    @property
    def slots(self) -> int:
        """How many sequences the caches hold."""
        return self.manifest.slots

    @property
    def vocab_size(self) -> int:
        """The number of logits of a position."""
        return self.manifest.vocab_size

    def load(self, program: Program) -> LoadedProgram:
        """The decoded program.

        Raises:
            UserError: when its file is damaged.
        """
        if program.name not in self._loaded:
            data = self._artifact.read_file(program.file)
            elf = parse_program(data, str(self._artifact.path / program.file))
            self._loaded[program.name] = self.simulator.load(elf)
        return self._loaded[program.name]

    def forward(
        self,
        program: Program,
        tokens: torch.Tensor,
        slots: Sequence[int],
        positions: Sequence[int],
        valid: Sequence[int],
        entry: str = "last",
    ) -> torch.Tensor:
        """See :meth:`Device.forward`."""
        self._write_input(program, "tokens", tokens)
        if "positions" in program.io:
            first = torch.tensor(positions, dtype=torch.int32)[:, None]
            last = torch.tensor([max(n, 1) - 1 for n in valid], dtype=torch.int32)[:, None]
            steps = torch.arange(program.new_tokens, dtype=torch.int32)[None]
            self._write_input(program, "positions", first + torch.minimum(steps, last))
        rows = list(zip(slots, positions, valid, strict=True))
        loaded, params = self.load(program), parameters(rows)
        result = self.simulator.run_ranks(loaded, entry, params, hazards=self.sanitize, straight=True)
        self.hazards += result.hazards
        out = program.io[f"logits_{entry}"]
        found = self.simulator.read(out.address, out.shape, element_type(out.type).torch_type)
        logits = found[:, : self.vocab_size].float()
        return logits if entry == "last" else logits.reshape(program.batch, program.new_tokens, -1)

    def _write_input(self, program: Program, name: str, tensor: torch.Tensor) -> None:
        place = program.io[name]
        self.simulator.write(
            place.address, tensor.to(element_type(place.type).torch_type).reshape(place.shape)
        )

    def seconds(self, program: Program, entry: str = "last") -> float:
        """See :meth:`Device.seconds`; timed once, with all rows valid and at their last positions."""
        key = (program.name, entry)
        if key not in self._seconds:
            start = program.length - program.new_tokens
            full = [(slot, start, program.new_tokens) for slot in range(program.batch)]
            times = self.simulator.time_ranks(self.load(program), entry, parameters(full))
            self._seconds[key] = max(time.seconds for time in times)
        return self._seconds[key]
