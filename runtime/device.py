"""What generation needs of a device, and the device that runs an artifact on the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from npuc.runtime.manifest import Program


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
