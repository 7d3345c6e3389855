"""Register values as functions of the runtime parameters.

A program may only add its parameters, multiply them by constants and read them at constant positions, so that
all it computes is `imm + Σ factor · parameter`. Running its sequencer on such values gives what it dispatches
for every setting of the parameters at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class NotAffine(Exception):
    """What a program does depends on its parameters in another way."""


@dataclass(frozen=True)
class Affine:
    """``imm`` + the sum of factor · parameters[index] over ``terms``, which are sorted and not zero.

    It stands in for a register's integer: comparisons say that it fits a register.
    """

    imm: int
    terms: tuple[tuple[int, int], ...]

    @staticmethod
    def parameter(index: int) -> Affine:
        """The value of a runtime parameter."""
        return Affine(0, ((index, 1),))

    def at(self, parameters: Sequence[int]) -> int:
        """The value for these parameters."""
        return self.imm + sum(parameters[index] * factor for index, factor in self.terms)

    def __add__(self, other: Affine | int) -> Affine | int:
        if isinstance(other, int):
            return Affine(self.imm + other, self.terms)
        factors = dict(self.terms)
        for index, factor in other.terms:
            factors[index] = factors.get(index, 0) + factor
        return _simple(self.imm + other.imm, factors)

    def __mul__(self, factor: int) -> Affine | int:
        return _simple(self.imm * factor, {index: f * factor for index, f in self.terms})

    __radd__ = __add__
    __rmul__ = __mul__

    def __ge__(self, other: int) -> bool:
        return True

    def __lt__(self, other: int) -> bool:
        return True

    __le__ = __lt__
    __gt__ = __ge__

    def __index__(self) -> int:
        raise NotAffine("a parameter's position comes from a parameter")


Value = Affine | int


def _simple(imm: int, factors: dict[int, int]) -> Value:
    terms = tuple(sorted((index, factor) for index, factor in factors.items() if factor))
    return Affine(imm, terms) if terms else imm
