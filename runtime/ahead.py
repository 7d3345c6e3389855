"""Making values in one thread while they are used in another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
DEPTH = 2
POLL_SECONDS = 0.1


def ahead(values: Iterable[T], depth: int = DEPTH) -> Iterator[T]:
    """The same values, made by another thread, at most ``depth`` before they are asked for.

    What making them raises is raised here; the thread ends when the iterator is exhausted or closed.
    """
    ready: Queue[tuple[T] | BaseException | None] = Queue(depth)
    closed = Event()

    def put(item: tuple[T] | BaseException | None) -> None:
        while not closed.is_set():
            try:
                return ready.put(item, timeout=POLL_SECONDS)
            except Full:
                continue

    def make() -> None:
        try:
            for value in values:
                put((value,))
                if closed.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again where the values are used
            put(error)

    thread = Thread(target=make, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        closed.set()
        thread.join()
