"""Loop nests cut to a machine's limits: how many entries, how many iterations each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

PLAIN = ""
REDUCED = "reduced"


@dataclass(frozen=True)
class Dim:
    """One entry of a nest.

    Attributes:
        size: its extent.
        strides: what one step adds, per operand.
        role: PLAIN, REDUCED, or the name of a special role: then it stays as it is.
    """

    size: int
    strides: tuple[int, ...]
    role: str = PLAIN

    @property
    def free(self) -> bool:
        """Whether it may be dropped, cut or merged."""
        return self.role in (PLAIN, REDUCED)


def fit(dims: Sequence[Dim], entries: int, iterations: int) -> list[Dim] | None:
    """An equivalent nest within the limits; None if none was found.

    Entries of one step are dropped, long ones are cut in two, and neighbours are merged while there are
    too many.
    """
    kept = [part for dim in dims if dim.size != 1 or not dim.free for part in _cut(dim, iterations)]
    while len(kept) > entries:
        pairs = (i for i in range(len(kept) - 1) if _mergeable(kept[i], kept[i + 1], iterations))
        at = next(pairs, None)
        if at is None:
            return None
        kept[at : at + 2] = [replace(kept[at + 1], size=kept[at].size * kept[at + 1].size)]
    return kept if all(dim.size <= iterations for dim in kept) else None


def _cut(dim: Dim, iterations: int) -> list[Dim]:
    """A long entry as an outer and an inner one; unchanged if it is short, special or has no divisor."""
    if dim.size <= iterations or not dim.free:
        return [dim]
    inner = next((n for n in range(iterations, 1, -1) if dim.size % n == 0), 0)
    if not inner:
        return [dim]
    outer = replace(dim, size=dim.size // inner, strides=tuple(s * inner for s in dim.strides))
    return [*_cut(outer, iterations), replace(dim, size=inner)]


def _mergeable(outer: Dim, inner: Dim, iterations: int) -> bool:
    together = outer.free and outer.role == inner.role and outer.size * inner.size <= iterations
    return together and all(a == b * inner.size for a, b in zip(outer.strides, inner.strides, strict=True))
