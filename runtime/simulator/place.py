"""Where a core is among those that run a program together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """A core's place.

    Attributes:
        rank: its number among all, runtime parameter 0.
        chip: the number of its chip, runtime parameter 1.
        ranks: how many cores there are.
    """

    rank: int = 0
    chip: int = 0
    ranks: int = 1

    @property
    def alone(self) -> bool:
        """Whether programs run on this core only."""
        return self.ranks == 1

    @property
    def known(self) -> tuple[int, ...]:
        """The runtime parameters that say where a core is; none where programs run alone."""
        return () if self.alone else (self.rank, self.chip)

    def parameters(self, others: Sequence[int]) -> tuple[int, ...]:
        """A program's runtime parameters on this core, from those on any."""
        return (self.rank, self.chip, *others[2:])
