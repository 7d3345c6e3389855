"""Address arithmetic."""

from __future__ import annotations


def align(value: int, unit: int) -> int:
    """The smallest multiple of `unit` that is at least `value`."""
    return -(-value // unit) * unit
