"""Byte-addressed memories.

A memory that every slice has is one storage: slice s, local address a lies at byte s · slice_distance + a.
Storages start out zero and take real memory only where they are written.
"""

from __future__ import annotations

import numpy as np
import torch
from npuc.backends.model import Memory
from npuc.ir.errors import UserError
from torch import Tensor

PADDING = 4096 + 64  # between slices: at distances of powers of two they would share few cache and TLB sets


def slice_distance(spec: Memory) -> int:
    """Bytes between the same local addresses of two slices in the storage; 0 where there are no slices."""
    return 0 if spec.slices <= 1 else -(-spec.size // 64) * 64 + PADDING


def zero_bytes(count: int) -> Tensor:
    """``count`` zero bytes that are not backed by memory before they are touched."""
    return torch.from_numpy(np.zeros(count, np.uint8))


class SimulatedMemory:
    """One instance of a memory.

    Attributes:
        spec: the memory in the machine description.
        size: bytes of one slice, or of the whole where it has no slices.
        storage: uint8, all slices.
        written: as the storage, 1 where a byte was written; None until `track` is called.
    """

    def __init__(self, spec: Memory, size: int | None = None) -> None:
        self.spec = spec
        self.name = spec.name
        self.slices = spec.slices
        self.size = spec.size if size is None else size
        self.distance = slice_distance(spec)
        self.storage = zero_bytes(self.slices * self.distance or self.size)
        self.written: Tensor | None = None
        self._host_writes: list[tuple[int, int]] | None = []  # None: anything may have been written
        self._flats: dict[torch.dtype, Tensor] = {}

    def flat(self, dtype: torch.dtype) -> Tensor:
        """The whole storage as elements of a type."""
        found = self._flats.get(dtype)
        if found is None:
            item = torch.empty(0, dtype=dtype).element_size()
            whole = self.storage.numel() // item * item
            found = self._flats[dtype] = self.storage[:whole].view(dtype)
        return found

    def place(self, byte: int) -> tuple[int, int]:
        """Slice and local address of a byte of the storage."""
        return divmod(byte, self.distance) if self.distance else (0, byte)

    def bytes_at(self, address: int, count: int) -> Tensor:
        """The bytes [address, address + count) of a memory without slices.

        Raises:
            UserError: out-of-bounds.
        """
        if not 0 <= address <= address + count <= self.size:
            raise out_of_bounds(self, address, address + count)
        return self.storage[address : address + count]

    def note_host_write(self, address: int, count: int) -> None:
        """Remember that the host wrote bytes."""
        if self.written is not None:
            self.written[address : address + count] = 1
        elif self._host_writes is not None:
            self._host_writes.append((address, count))

    def forget(self) -> None:
        """A program ran unobserved: from now on every byte may have been written."""
        self._host_writes = None
        if self.written is not None:
            self.written.fill_(1)

    def track(self, *, afresh: bool) -> Tensor:
        """Start or go on keeping ``written``; ``afresh`` forgets what was written so far."""
        if self.written is None or afresh:
            self.written = zero_bytes(self.storage.numel())
            if not afresh and self._host_writes is None:
                self.written.fill_(1)
            for address, count in (self._host_writes or ()) if not afresh else ():
                self.written[address : address + count] = 1
        return self.written


def out_of_bounds(memory: SimulatedMemory, low: int, high: int) -> UserError:
    """The error of an access to [low, high) of a memory."""
    return UserError(
        "out-of-bounds",
        f"bytes {low:#x} to {high - 1:#x} of {memory.name} do not all exist, it has {memory.size:#x}",
    )
