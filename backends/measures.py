"""The builtin measures of machine descriptions: the closed set of functions that expressions may call."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from npuc.backends.view import Selector, View

Result = float | str | bool


class Measure(NamedTuple):
    """A builtin.

    Attributes:
        arguments: kinds of the arguments, separated by spaces: port, field, number and, at the end,
            selectors; or one of ``ports`` (ports, then selectors) and ``names`` (a field, then quoted names).
        function: takes the view, then the arguments.
        doc: what it measures, for the manual.
    """

    arguments: str
    function: Callable[..., Result]
    doc: str


def access_width(length: float, widest: float) -> int:
    """The largest power of two, at most ``widest`` bytes, that divides ``length`` bytes."""
    width = 1
    while width * 2 <= widest and int(length) % (width * 2) == 0:
        width *= 2
    return width


def _access(view: View, length: float, widest: float) -> int:
    return access_width(length, widest)


def _slices(view: View) -> int:
    return view.machine.slices


def _queue(view: View) -> str:
    return view.instruction.queue


def _chain_length(view: View) -> int:
    return len(view.chain_ops())


def _extent(view: View, field: str) -> int:
    dim = view.dimension(field)
    return view.sizes[dim] if 0 <= dim < len(view.sizes) else 1


def _memory(view: View, port: str) -> str:
    return view.memory(port).name


def _granule(view: View, port: str) -> int:
    return view.memory(port).write_granule


def _read_alignment(view: View, port: str) -> int:
    return view.memory(port).read_alignment


def _run(view: View, ports: tuple[str, ...], selectors: tuple[Selector, ...]) -> int:
    return view.run(*ports, selectors=selectors)


def _constant(view: View, field: str) -> bool:
    return not isinstance(view.value(field), tuple)


def _min(view: View, a: float, b: float) -> float:
    return min(a, b)


def _max(view: View, a: float, b: float) -> float:
    return max(a, b)


def _ceil(view: View, a: float) -> int:
    return math.ceil(a)


def _floor(view: View, a: float) -> int:
    return math.floor(a)


MEASURES: dict[str, Measure] = {
    "steps": Measure("", View.size, "product of all extents"),
    "slices": Measure("", _slices, "slices of a core"),
    "queue": Measure("", _queue, "name of the queue"),
    "narrow": Measure("", View.narrow, "whether the chain uses a half-width unit"),
    "accumulators": Measure("", View.accumulators, "results inside the outermost reduced dimension"),
    "chain_length": Measure("", _chain_length, "operations of the chain"),
    "size": Measure("selectors", View.size, "product of the extents of the selected dimensions"),
    "extent": Measure("field", _extent, "extent of the dimension that the field names; 1 for none"),
    "used": Measure("port", View.used, "whether the port has an element type"),
    "bits": Measure("port", View.bits, "bits of the port's elements; 0 where unused"),
    "macs": Measure("port", View.macs, "multiply-accumulates per cycle and slice in the port's type"),
    "elements": Measure("port", View.elements, "distinct elements of the port"),
    "alignment": Measure(
        "port", View.alignment,
        "greatest common divisor of base and the strides outside the contiguous run, in bytes",
    ),
    "first": Measure("port", View.first, "lowest byte address of the port"),
    "last": Measure("port", View.last, "highest byte address of the port"),
    "space": Measure("port", View.space, "bytes of the address space of the port"),
    "memory": Measure("port", _memory, "memory that the port addresses"),
    "type": Measure("port", View.type_name, "element type of the port"),
    "granule": Measure("port", _granule, "write granule of the port's memory, in bytes"),
    "read_alignment": Measure("port", _read_alignment, "read alignment of the port's memory, in bytes"),
    "run": Measure(
        "ports", _run,
        "elements at the inner end of the (selected) nest that are contiguous in all the ports; "
        "those of the stream end inside the ring",
    ),
    "behind": Measure(
        "port number selectors", View.behind,
        "how many runs of so many elements, the port's innermost, lie one behind the other over dimensions "
        "that are selected",
    ),
    "fetches": Measure(
        "port number number", View.fetches,
        "elements fetched by a port; a fetch is not repeated for loops whose inside fits in so many bytes, "
        "nor for so many lanes side by side",
    ),
    "bytes": Measure("port number", View.bytes, "bytes of so many elements of the port"),
    "access": Measure("number number", _access, "largest power of two up to the second dividing the first"),
    "count": Measure("names", View.count, "entries of the field that are among the names"),
    "constant": Measure("field", _constant, "whether no register is added to the field"),
    "min": Measure("number number", _min, "the smaller"),
    "max": Measure("number number", _max, "the larger"),
    "ceil": Measure("number", _ceil, "rounded up"),
    "floor": Measure("number", _floor, "rounded down"),
}  # fmt: skip
TRUTHS = frozenset({"used", "narrow", "constant"})
TEXTS = frozenset({"queue", "memory", "type"})
SELECTORS: dict[str, Selector] = {
    "reduced": lambda v, d: d in v.reduced,
    "kept": lambda v, d: d not in v.reduced,
}
