"""What every rewrite keeps: the module path, the location and the name of the value it replaces."""

from __future__ import annotations

from xdsl.ir import Operation


def take_attributes(new: Operation, old: Operation) -> None:
    """Gives an op the module path, location and result names of the one it replaces."""
    if "module" in old.attributes:
        new.attributes["module"] = old.attributes["module"]
    new.location = old.location
    for result, former in zip(new.results, old.results, strict=False):
        result.name_hint = former.name_hint
