"""Targets by name: one lazy line each, and the entry points of third parties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from npuc.backends.machine import Machine, load_machine
from npuc.ir.errors import UserError

ENTRY_POINTS = "npuc.targets"

# Target → its package: PACKAGE/NAME.npu describes the machine, PACKAGE.hooks (optional) holds lowering hooks.
TARGETS: dict[str, str] = {
    "rngd": "npuc.backends.rngd",
}


@dataclass(frozen=True)
class Target:
    """A machine and the Python module of its lowering hooks; None where it has none."""

    name: str
    machine: Machine
    hooks: ModuleType | None


def target_names() -> list[str]:
    """The names of all targets, third parties' included, sorted."""
    return sorted({*TARGETS, *(point.name for point in entry_points(group=ENTRY_POINTS))})


@cache
def load_target(name: str) -> Target:
    """Load a target.

    Third parties register a function without arguments that returns a Target in the entry-point group
    ``npuc.targets``.

    Raises:
        UserError: ``unknown-target``, listing the targets; ``machine-description`` for a faulty description.
    """
    if name in TARGETS:
        return load_package(name, TARGETS[name])
    for point in entry_points(group=ENTRY_POINTS, name=name):
        make: Callable[[], Target] = point.load()
        return make()
    raise UserError(
        "unknown-target",
        f"unknown target '{name}'",
        remedy=f"the targets are {', '.join(target_names())}",
    )


def load_package(name: str, package: str) -> Target:
    """Load the target that a package holds: NAME.npu and, if there is one, the module ``hooks``."""
    folder = Path(str(import_module(package).__file__)).parent
    hooks = f"{package}.hooks"
    module = import_module(hooks) if find_spec(hooks) is not None else None
    return Target(name, load_machine(folder / f"{name}.npu"), module)
