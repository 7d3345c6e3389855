"""A device that looks for hazards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from npuc.runtime.artifact import Artifact
from npuc.runtime.device import SimulatorDevice
from npuc.runtime.manifest import Program


class FirstRunsSanitized(SimulatorDevice):
    """Looks for hazards when an entry of a program runs for the first time."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact)
        self.checked: set[tuple[str, str]] = set()

    def forward(
        self,
        program: Program,
        tokens: torch.Tensor,
        slots: Sequence[int],
        positions: Sequence[int],
        valid: Sequence[int],
        entry: str = "last",
    ) -> torch.Tensor:
        self.sanitize = (program.name, entry) not in self.checked
        self.checked.add((program.name, entry))
        return super().forward(program, tokens, slots, positions, valid, entry)
