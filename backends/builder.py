"""Build the records of backends/model.py from a parsed description, checking every name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from npuc.backends.declarations import (
    CommandDecl,
    Description,
    Expr,
    FieldDecl,
    FormatDecl,
    LimitDecl,
    MemoryDecl,
    NamedNumber,
    PortDecl,
    Position,
    StageDecl,
    TypeDecl,
    UnitsDecl,
    fail,
)
from npuc.backends.expressions import (
    Scope,
    Value,
    compile_number,
    compile_truth,
    leaves,
    over_field,
)
from npuc.backends.model import (
    CHAIN_OPS,
    CHAIN_SOURCES,
    KERNELS,
    Command,
    ElementType,
    Field,
    Format,
    Limit,
    Link,
    Memory,
    Number,
    Port,
    Queue,
    Stage,
    UnitGroup,
)
from npuc.backends.view import View

LEVELS = ("chip", "cluster", "core", "slice")
_MEMORY_NUMBERS = {
    "size", "banks", "word", "read_alignment", "write_granule", "window", "burst", "bandwidth",
}  # fmt: skip
_LINK_NUMBERS = {"bandwidth", "latency"}
HEADER_BITS = 16  # opcode and queue, 8 bits each
COUNT_BITS = 8  # tokens of a wait or signal


class _Declared(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def position(self) -> Position: ...


D = TypeVar("D", bound=_Declared)


@dataclass(frozen=True)
class Parts:
    """What commands may refer to."""

    memories: Mapping[str, Memory]
    types: Mapping[str, ElementType]
    queues: Mapping[str, Queue]
    formats: Mapping[str, Format]
    params: Mapping[str, float]
    registers: int
    semaphores: int

    @property
    def register_bits(self) -> int:
        """Width of a register number."""
        return bits_for(self.registers)

    @property
    def semaphore_bits(self) -> int:
        """Width of a semaphore number."""
        return bits_for(self.semaphores)


def bits_for(values: int) -> int:
    """Bits that tell so many values apart, at least 1."""
    return max(1, (values - 1).bit_length())


def unique(declared: Iterable[D], what: str) -> dict[str, D]:
    """Declarations by name; a name declared twice is an error."""
    out: dict[str, D] = {}
    for item in declared:
        if item.name in out:
            fail(item.position, f"{what} '{item.name}' is declared twice", "rename or remove one of them")
        out[item.name] = item
    return out


def pick(known: Mapping[str, D] | Iterable[str], name: str, what: str, at: Position) -> str:
    """The name, if it is known.

    Raises:
        UserError: naming what is known.
    """
    names = list(known)
    if name not in names:
        fail(at, f"unknown {what} '{name}'", f"the {what}s are {', '.join(names)}")
    return name


def build_levels(description: Description) -> dict[str, int]:
    """Counts of the hierarchy, outermost first."""
    for level in description.levels:
        pick(LEVELS, level.name, "level", level.position)
    declared = unique(description.levels, "level")
    return {name: int(declared[name].value) if name in declared else 1 for name in LEVELS}


def _properties(decl: MemoryDecl, known: set[str]) -> Callable[[str, float], float]:
    for number in decl.numbers.values():
        pick(sorted(known), number.name, "property", number.position)
    return lambda name, default: decl.numbers[name].value if name in decl.numbers else default


def build_memory(decl: MemoryDecl, levels: Mapping[str, int]) -> Memory:
    """A memory; ``size`` and ``bandwidth`` are required."""
    get = _properties(decl, _MEMORY_NUMBERS)
    level = pick(LEVELS, decl.words.get("level", ""), "level", decl.position)
    for name in sorted({"size", "bandwidth"} - decl.numbers.keys()):
        fail(decl.position, f"memory '{decl.name}' has no {name}", f"add '{name} NUMBER from \"…\"'")
    slices = levels["slice"] if level == "slice" else 1
    return Memory(
        decl.name, level, int(get("size", 0)), slices, int(get("window", 0)), int(get("banks", 1)),
        int(get("word", 1)), int(get("read_alignment", 1)), int(get("write_granule", 1)),
        int(get("burst", 1)), get("bandwidth", 0), decl.main, decl.doc,
        {n.name: n.source for n in decl.numbers.values()},
    )  # fmt: skip


def build_link(decl: MemoryDecl) -> Link:
    """A link; both of its numbers are required."""
    get = _properties(decl, _LINK_NUMBERS)
    for name in sorted(_LINK_NUMBERS - decl.numbers.keys()):
        fail(decl.position, f"link '{decl.name}' has no {name}", f"add '{name} NUMBER from \"…\"'")
    sources = {n.name: n.source for n in decl.numbers.values()}
    return Link(decl.name, decl.ends, get("bandwidth", 0), get("latency", 0), decl.doc, sources)


def build_type(decl: TypeDecl) -> ElementType:
    """An element type."""
    return ElementType(decl.name, decl.kind, decl.bits, decl.macs, decl.simulator_only, decl.source)


def build_queue(decl: NamedNumber) -> Queue:
    """A queue; ``control`` is the sequencer's own."""
    if decl.name == "control":
        fail(decl.position, "'control' is the sequencer's own queue", "choose another name")
    return Queue(decl.name, int(decl.value), decl.doc, decl.source)


def build_format(decl: FormatDecl) -> Format:
    """A command format."""
    if not 4 <= decl.length <= 4096:
        fail(decl.position, f"format '{decl.name}' has {decl.length} bytes", "choose 4 … 4096 bytes")
    return Format(decl.name, decl.length, decl.waits, decl.signals, decl.source)


@dataclass
class _CommandBuilder:
    """Builds one command: fields first, then expressions over them."""

    decl: CommandDecl
    parts: Parts
    format: Format
    offset: int
    fields: dict[str, Field] = field(default_factory=dict[str, Field])
    ports: dict[str, Port] = field(default_factory=dict[str, Port])
    lets: dict[str, Number] = field(default_factory=dict[str, Number])

    def scope(self) -> Scope:
        return Scope(self.fields, self.ports, self.parts.params, self.lets)

    def add_field(self, decl: FieldDecl, stage: str, names: tuple[str, ...] = ()) -> None:
        """Append a field at the next bit."""
        if decl.name in self.fields:
            fail(decl.position, f"field '{decl.name}' is declared twice", "rename or remove one of them")
        if decl.register and decl.count is not None:
            fail(decl.position, f"field '{decl.name}' is a tuple with a register", "make it a scalar")
        kind, bits, signed, found = self._kind(decl, names)
        low, high = _bounds(decl, kind, bits, signed, len(found))
        default = _default(decl, kind, found, low, high)
        self.fields[decl.name] = Field(
            decl.name, kind, decl.kind, decl.count, bits, signed, decl.register, default, low, high, found,
            self.offset, stage, decl.doc, decl.source or "assumed",
        )  # fmt: skip
        width = bits + (self.parts.register_bits if decl.register else 0)
        self.offset += width * (decl.count or 1)
        if self.offset > self.format.length * 8:
            fail(
                decl.position,
                f"field '{decl.name}' ends at bit {self.offset}, format '{self.format.name}' has "
                f"{self.format.length * 8} bits",
                "make the format longer or the fields narrower",
            )

    def _kind(self, decl: FieldDecl, names: tuple[str, ...]) -> tuple[str, int, bool, tuple[str, ...]]:
        """(kind, bits, signed, names) of a written field kind."""
        if names:
            return "enum", bits_for(len(names)), False, names
        enums = {
            "type": ("none", *self.parts.types),
            "op": ("none", *CHAIN_OPS),
            "source": ("none", *CHAIN_SOURCES),
        }
        if decl.kind in enums:
            return "enum", bits_for(len(enums[decl.kind])), False, enums[decl.kind]
        plain = {"reg": self.parts.register_bits, "semaphore": self.parts.semaphore_bits, "label": 40}
        if decl.kind in plain:
            return "int", plain[decl.kind], False, ()
        if decl.kind == "f32":
            return "float", 32, True, ()
        match = re.fullmatch(r"([us])([1-9][0-9]?)", decl.kind)
        if match is None or int(match[2]) > 64:
            fail(
                decl.position,
                f"unknown field kind '{decl.kind}'",
                "use u1 … u64, s1 … s64, f32, reg, semaphore, label, type, op or source",
            )
        return "int", int(match[2]), match[1] == "s", ()

    def add_port(self, decl: PortDecl, stage: str) -> None:
        """Append a port's fields: base, strides, type, and memory where there is a choice."""
        if decl.name in self.ports:
            fail(decl.position, f"port '{decl.name}' is declared twice", "rename or remove one of them")
        for memory in decl.memories:
            found = self.parts.memories[pick(self.parts.memories, memory, "memory", decl.position)]
            if self.decl.kind == "copy" and found.slices > 1 and not found.window:
                fail(decl.position, f"copies cannot address '{memory}'", "give the memory a window")
        for name in decl.types:
            pick(self.parts.types, name, "element type", decl.position)
        if "size" not in self.fields or self.fields["size"].count is None:
            fail(
                decl.position, f"port '{decl.name}' comes before the nest", "declare 'field size[N] …' first"
            )
        nest = self.fields["size"].count
        self.ports[decl.name] = Port(
            decl.name, decl.direction, decl.memories, decl.types, stage, decl.doc, decl.source or "assumed"
        )

        def part(
            suffix: str, kind: str, doc: str, count: int | None = None, register: bool = False
        ) -> FieldDecl:
            name = f"{decl.name}.{suffix}"
            return FieldDecl(name, count, kind, register, None, None, None, doc, decl.source, decl.position)

        if self.decl.kind == "copy" or len(decl.memories) > 1:
            self.add_field(part("memory", "memory", f"memory of {decl.name}"), stage, decl.memories)
        self.add_field(part("base", decl.base, f"byte address of {decl.name}", register=True), stage)
        self.add_field(
            part("strides", decl.strides, f"bytes per step of each nest dimension in {decl.name}", nest),
            stage,
        )
        if decl.types:
            doc = f"element type of {decl.name}; none = unused"
            self.add_field(part("type", "type", doc), stage, ("none", *decl.types))

    def add_lets(self) -> dict[str, str]:
        """Compile the command's lets, each computed once per instruction; their texts."""
        for name, expr in self.decl.lets:
            if name in self.lets or name in self.fields or name in self.parts.params:
                fail(expr.position, f"'{name}' already has a meaning", "choose another name")
            self.lets[name] = _memoized(name, self.number(expr))
        return {name: expr.text for name, expr in self.decl.lets}

    def number(self, expr: Expr) -> Number:
        """Compile a numeric expression that mentions no whole tuple field."""
        if tuple_field := over_field(expr, self.scope()):
            fail(expr.position, f"'{tuple_field}' is a tuple", "only limits look at its elements")
        return compile_number(expr, self.scope())

    def limit(self, decl: LimitDecl, stage: str) -> Limit:
        """Compile a limit."""
        scope = self.scope()
        condition = compile_truth(decl.condition, scope) if decl.condition else None
        shown: tuple[tuple[str, Value], ...] = leaves(decl.expr, scope)
        return Limit(
            decl.expr.text, compile_truth(decl.expr, scope), condition,
            decl.condition.text if decl.condition else "", over_field(decl.expr, scope), shown, decl.reason,
            stage, decl.source,
        )  # fmt: skip

    def units(self, decl: UnitsDecl) -> tuple[UnitGroup, ...]:
        """The vector units, in hardware order."""
        if decl.field != "chain.op" or "chain.op" not in self.fields:
            fail(decl.position, f"units execute '{decl.field}'", "declare 'field chain.op[N] op' and use it")
        for group in decl.groups:
            for _, ops in group.units:
                for op in ops:
                    pick(CHAIN_OPS, op, "chain operation", decl.position)
        return tuple(UnitGroup(g.name, g.narrow, g.units, g.source or decl.source) for g in decl.groups)

    def stage(self, decl: StageDecl) -> Stage:
        """Compile a stage."""
        pick(KERNELS, decl.kernel, "kernel", decl.position)
        condition = compile_truth(decl.condition, self.scope()) if decl.condition else None
        return Stage(
            decl.name, decl.kernel, decl.doc, condition, decl.condition.text if decl.condition else "",
            self.number(decl.cycles) if decl.cycles else None, decl.cycles.text if decl.cycles else "",
            decl.source,
        )  # fmt: skip


def _memoized(name: str, number: Number) -> Number:
    def value(view: View) -> float:
        if name not in view.memo:
            view.memo[name] = number(view)
        return view.memo[name]

    return value


def _bounds(decl: FieldDecl, kind: str, bits: int, signed: bool, names: int) -> tuple[float, float]:
    if kind == "float":
        return (float("-inf"), float("inf"))
    if kind == "enum":
        return (0, names - 1)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    for bound in (decl.low, decl.high):
        if bound is not None and not low <= bound <= high:
            fail(decl.position, f"bound {bound} of '{decl.name}' does not fit {decl.kind}", "widen the field")
    return (low if decl.low is None else decl.low, high if decl.high is None else decl.high)


def _default(
    decl: FieldDecl, kind: str, names: tuple[str, ...], low: float, high: float
) -> int | float | str:
    given = decl.default
    if kind == "enum":
        return pick(names, str(given), "value", decl.position) if given is not None else names[0]
    if isinstance(given, str):
        fail(decl.position, f"default of '{decl.name}' is the name '{given}'", "give a number")
    if kind == "float":
        return float(given or 0.0)
    value = int(given or 0)
    if not low <= value <= high:
        fail(
            decl.position,
            f"default {value} of '{decl.name}' is outside {low:g} … {high:g}",
            "give '= DEFAULT'",
        )
    return value


def build_command(decl: CommandDecl, parts: Parts) -> Command:
    """Build a command with all its expressions compiled.

    Raises:
        UserError: with kind ``machine-description``, for anything undeclared, doubled or too wide.
    """
    format_ = parts.formats[pick(parts.formats, decl.format, "format", decl.position)]
    if not 0 < decl.opcode < 256:
        fail(decl.position, f"opcode of '{decl.name}' is {decl.opcode}", "give 'opcode' from 1 to 255")
    for queue in decl.queues:
        pick((*parts.queues, "control"), queue, "queue", decl.position)
    if not decl.queues:
        fail(decl.position, f"command '{decl.name}' has no queue", "add 'queues NAME'")
    slot = parts.semaphore_bits + COUNT_BITS
    builder = _CommandBuilder(decl, parts, format_, HEADER_BITS + slot * (format_.waits + format_.signals))
    for stage, item in decl.items:
        if isinstance(item, FieldDecl):
            builder.add_field(item, stage)
        elif isinstance(item, PortDecl):
            builder.add_port(item, stage)
    texts = builder.add_lets()
    limits = tuple(builder.limit(i, stage) for stage, i in decl.items if isinstance(i, LimitDecl))
    units = [i for _, i in decl.items if isinstance(i, UnitsDecl)]
    return Command(
        decl.name, decl.kind, decl.doc, decl.opcode, format_, decl.queues, builder.fields, builder.ports,
        limits, builder.units(units[0]) if units else (),
        tuple(builder.stage(s) for s in unique(decl.stages, "stage").values()), texts,
        builder.number(decl.base) if decl.base else None, builder.number(decl.drain) if decl.drain else None,
        decl.base.text if decl.base else "0", decl.drain.text if decl.drain else "0",
    )  # fmt: skip
