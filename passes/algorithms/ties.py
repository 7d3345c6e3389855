"""Classes of things that must be treated alike: union-find with what is known of each class."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Ties(Generic[K]):
    """Disjoint classes of keys; a key not seen before is a class of its own.

    A class that holds a blocked key is blocked, for the first reason given.
    """

    def __init__(self) -> None:
        self._parent: dict[K, K] = {}
        self._reason: dict[K, str] = {}

    def root(self, key: K) -> K:
        """The key that stands for a key's class."""
        parent = self._parent.setdefault(key, key)
        if parent == key:
            return key
        found = self._parent[key] = self.root(parent)
        return found

    def tie(self, a: K, b: K) -> None:
        """Join the classes of two keys."""
        a, b = self.root(a), self.root(b)
        if a != b:
            self._parent[b] = a
            if b in self._reason:
                self._reason.setdefault(a, self._reason.pop(b))

    def block(self, key: K, reason: str) -> None:
        """Block a key's class."""
        self._reason.setdefault(self.root(key), reason)

    def reason(self, key: K) -> str:
        """Why a key's class is blocked, "" if it is not."""
        return self._reason.get(self.root(key), "")

    def classes(self) -> list[list[K]]:
        """All classes, in the order of their first keys."""
        found: dict[K, list[K]] = {}
        for key in self._parent:
            found.setdefault(self.root(key), []).append(key)
        return list(found.values())
