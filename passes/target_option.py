"""The `target` option of passes: a registered target's name, or the path of a machine description."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from npuc.backends.machine import Machine


def is_description(target: str) -> bool:
    """Whether a target is given by the path of its machine description."""
    return target.endswith(".npu")


@cache
def machine_of(target: str) -> Machine:
    """The machine of a target.

    Raises:
        UserError: for an unknown target or a faulty description.
    """
    if is_description(target):
        from npuc.backends.machine import load_machine

        return load_machine(Path(target))
    from npuc.backends.registry import load_target

    return load_target(target).machine
