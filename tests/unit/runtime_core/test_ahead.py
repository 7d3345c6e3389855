"""Values made in another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from npuc.runtime.ahead import DEPTH, ahead


def test_the_same_values_from_another_thread() -> None:
    threads: set[int] = set()

    def values() -> Iterator[int]:
        for i in range(20):
            threads.add(threading.get_ident())
            yield i

    assert list(ahead(values())) == list(range(20))
    assert threads
    assert threading.get_ident() not in threads


def test_errors_come_after_the_values_before_them() -> None:
    def values() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    found = ahead(values())
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_closing_ends_the_thread() -> None:
    made: list[int] = []

    def values() -> Iterator[int]:
        for i in range(1_000_000):
            made.append(i)
            yield i

    before = threading.active_count()
    found = ahead(values())
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(made) <= DEPTH + 3
