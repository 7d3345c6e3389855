"""Sequencer registers for sums of scaled indices.

A value is a constant plus scaled *atoms* (loop counters, arguments, runtime parameters), each of which has
a register. `Registers` emits the control commands that compute such sums, remembers what is computed, and
forgets it again at the end of the scope (loop body) it was computed in. The registers of one command stay
until `release`, also when others are needed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Emit = Callable[[str, dict[str, int]], None]


Terms = tuple[tuple[object, int], ...]


class OutOfRegisters(Exception):
    """More registers are needed at once than there are."""


@dataclass(frozen=True)
class Parameter:
    """An atom that the sequencer can look up at any time: runtime parameter[``index`` + ``row``]."""

    index: int
    row: Terms = ()


@dataclass(frozen=True)
class Sum:
    """``constant`` + Σ coefficient · atom; atoms are any hashable values, coefficients are not zero."""

    constant: int = 0
    terms: Terms = ()

    @staticmethod
    def of(constant: int, terms: Mapping[object, int]) -> Sum:
        """The sum, without zero terms."""
        return Sum(constant, tuple((atom, c) for atom, c in terms.items() if c))

    def __add__(self, other: Sum) -> Sum:
        terms = dict(self.terms)
        for atom, coefficient in other.terms:
            terms[atom] = terms.get(atom, 0) + coefficient
        return Sum.of(self.constant + other.constant, terms)

    def scaled(self, factor: int) -> Sum:
        """The sum times a number."""
        return Sum.of(self.constant * factor, {atom: c * factor for atom, c in self.terms})


@dataclass
class _Scope:
    atoms: dict[object, int] = field(default_factory=dict[object, int])
    sums: dict[Terms, int] = field(default_factory=dict[Terms, int])


class Registers:
    """Allocates registers ``first`` … ``count`` − 1; register 0 is zero.

    Args:
        emit: receives the control commands, (name, fields), in program order.
        first: registers below belong to callees.
        count: how many registers the machine has.
    """

    def __init__(self, emit: Emit, first: int, count: int) -> None:
        self.emit = emit
        self.count = count
        self.free = list(range(first, count))
        self.top = first
        self.scopes = [_Scope()]
        self.pinned: set[int] = set()

    def enter(self) -> None:
        """Begin a scope."""
        self.scopes.append(_Scope())

    def leave(self) -> None:
        """End the innermost scope; its registers are free again."""
        scope = self.scopes.pop()
        self.free = sorted([*self.free, *scope.atoms.values(), *scope.sums.values()])

    def atom(self, key: object) -> int:
        """A register of this scope for an atom; the caller emits what sets it."""
        register = self._take()
        self.scopes[-1].atoms[key] = register
        return register

    def forget(self, key: object) -> None:
        """Free the register of an atom of this scope."""
        self.free = sorted([*self.free, self.scopes[-1].atoms.pop(key)])

    def release(self) -> None:
        """The command that needed the registers handed out so far is emitted."""
        self.pinned.clear()

    def value(self, wanted: Sum) -> int:
        """A register that holds the sum, its constant included; 0 for a sum that is zero."""
        if not wanted.constant:
            return self.terms(wanted.terms)
        key = (*wanted.terms, (None, wanted.constant))
        known = self._known(key)
        if known is not None:
            return known
        base = self.terms(wanted.terms)
        register = self._remember(key)
        self.emit("add", {"rd": register, "rs": base, "imm": wanted.constant})
        return register

    def terms(self, terms: Terms) -> int:
        """A register that holds the sum of the terms; 0 if there are none."""
        if not terms:
            return 0
        if len(terms) == 1 and terms[0][1] == 1:
            return self._atom(terms[0][0])
        known = self._known(terms)
        if known is not None:
            return known
        rest = self.terms(terms[:-1])
        atom, coefficient = terms[-1]
        source = self._atom(atom)
        register = self._remember(terms)
        if coefficient != 1:
            self.emit("mul", {"rd": register, "rs": source, "imm": coefficient})
            source = register
        if rest:
            self.emit("add", {"rd": register, "rs": source, "rt": rest})
        return register

    def _atom(self, key: object) -> int:
        """The register of an atom; a parameter is looked up first where it is in none."""
        for scope in reversed(self.scopes):
            if key in scope.atoms:
                return scope.atoms[key]
        assert isinstance(key, Parameter)
        known = self._known(((key, 1),))
        if known is not None:
            return known
        row = self.terms(key.row)
        register = self._remember(((key, 1),))
        self.emit("param", {"rd": register, "index": key.index, "rs": row})
        return register

    def _known(self, key: Terms) -> int | None:
        """The register of a computed sum, moved to the end of the order in which they are given up."""
        for scope in reversed(self.scopes):
            if key in scope.sums:
                scope.sums[key] = scope.sums.pop(key)
                self.pinned.add(scope.sums[key])
                return scope.sums[key]
        return None

    def _remember(self, key: Terms) -> int:
        register = self._take()
        self.scopes[-1].sums[key] = register
        self.pinned.add(register)
        return register

    def _take(self) -> int:
        """A free register, or that of the sum of this scope that was used longest ago.

        Sums of outer scopes stay: the code that uses them runs again in the next iteration.
        """
        if not self.free:
            sums = self.scopes[-1].sums
            old = next((key for key, register in sums.items() if register not in self.pinned), None)
            if old is None:
                raise OutOfRegisters(f"more than {self.count - 1} registers are alive at once")
            self.free.append(sums.pop(old))
        register = self.free.pop(0)
        self.top = max(self.top, register + 1)
        return register
