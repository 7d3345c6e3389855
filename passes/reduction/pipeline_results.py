"""What a pipeline makes of a module, as a smaller module to go on with.

A pass that spoils the operations it makes mostly spoils those as well that are there already. Of a pattern of
many operations then remains the one that it becomes, with an attribute put back that the pass has spoilt.
Small patterns stay: they show what the pass does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from npuc.passes.pipeline import context, run_passes
from npuc.passes.reduction.modules import inner, size, tidy
from npuc.passes.reduction.transformations import Transformation
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, ModuleOp
from xdsl.ir import Operation

SMALL = 5
"""Modules of so many operations are left as they are."""


def pipeline_result(pipeline: str) -> Transformation:
    """Candidates: what the pipeline makes of a module if that is smaller; the same with one number as 0."""

    def made(module: ModuleOp) -> ModuleOp | None:
        before, copy = size(module), module.clone()
        if before <= SMALL:
            return None
        try:
            run_passes(context(), copy, pipeline)
            tidy(copy)
        except Exception:  # it is what goes wrong
            return None
        return copy if size(copy) < before else None

    def candidates(module: ModuleOp) -> int:
        result = made(module)
        return 0 if result is None else 1 + len(list(_numbers(result)))

    def apply(module: ModuleOp, number: int) -> bool:
        result = made(module)
        if result is None:
            return False
        if number:
            list(_numbers(result))[number - 1]()
        module.detach_region(module.body)
        module.add_region(result.detach_region(result.body))
        module.attributes = dict(result.attributes)
        return True

    return Transformation("what the pipeline makes", candidates, apply)


def _numbers(module: ModuleOp) -> Iterator[Callable[[], None]]:
    """Makes one number after the other 0, of all attributes of operations."""
    for op in inner(module):
        for name, attr in op.attributes.items():
            if isinstance(attr, IntegerAttr) and attr.value.data:
                yield _setter(op, name, IntegerAttr(0, attr.type))
            elif isinstance(attr, FloatAttr) and attr.value.data:
                yield _setter(op, name, FloatAttr(0.0, attr.type))


def _setter(op: Operation, name: str, value: IntegerAttr | FloatAttr) -> Callable[[], None]:
    def change() -> None:
        op.attributes[name] = value

    return change
