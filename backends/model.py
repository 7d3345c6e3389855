"""The parts of a machine as plain records. backends/machine.py builds them from a description.

Sizes and addresses are bytes, times are cycles, rates are bytes per cycle. ``sources`` of a record maps a
property to the public page that states it, or to ``assumed``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npuc.backends.instruction import FieldValue

if TYPE_CHECKING:
    from npuc.backends.view import View

Number = Callable[["View"], float]
Truth = Callable[["View"], bool]

CHAIN_OPS = (
    "exp", "sqrt", "tanh", "sigmoid", "erf", "log", "sin", "cos", "abs", "floor",
    "add", "sub", "rsub", "mul", "div", "rdiv", "max", "min", "eq", "ne", "lt", "le", "gt", "ge", "and", "or",
    "select", "reduce_add", "reduce_max", "reduce_min", "ring_add", "ring_max", "ring_min",
)  # fmt: skip
CHAIN_SOURCES = ("imm", "stash", "operand", "vrf")
KERNELS = ("fetch", "switch", "contract", "chain", "cast", "store", "copy")
MAX_TOKENS = 255  # tokens of one wait or signal: 8 bits


@dataclass(frozen=True)
class Memory:
    """A memory; ``size`` is that of one slice where ``slices`` > 1, else the whole.

    Attributes:
        level: the level of the hierarchy that owns one instance: chip, core or slice.
        slices: how many slices of one core hold an instance (1 unless level is slice).
        window: distance of two slices' address 0 in the addresses of copies; 0 where there are no slices.
        write_granule: writes cover multiples of it, at multiples of it.
        burst: smallest unit that occupies the memory's bandwidth.
        main: whether it is the machine's main memory (weights, caches, inputs and outputs).
    """

    name: str
    level: str
    size: int
    slices: int
    window: int
    banks: int
    word: int
    read_alignment: int
    write_granule: int
    burst: int
    bandwidth: float
    main: bool
    doc: str
    sources: Mapping[str, str]


@dataclass(frozen=True)
class Link:
    """A connection of two levels or memories: ``bandwidth`` bytes per cycle, ``latency`` cycles."""

    name: str
    ends: tuple[str, str]
    bandwidth: float
    latency: float
    doc: str
    sources: Mapping[str, str]


@dataclass(frozen=True)
class ElementType:
    """An element type; ``macs`` is multiply-accumulates per cycle and slice (0: no contraction).

    ``simulator_only`` means that the real machine cannot contract this type.
    """

    name: str
    kind: str
    bits: int
    macs: int
    simulator_only: bool
    source: str


@dataclass(frozen=True)
class Queue:
    """An in-order queue of commands, bounded by ``depth``."""

    name: str
    depth: int
    doc: str
    source: str


@dataclass(frozen=True)
class Format:
    """A command format: fixed length in bytes, slots for waits and for signals."""

    name: str
    length: int
    waits: int
    signals: int
    source: str


@dataclass(frozen=True)
class Field:
    """A field of a command.

    Attributes:
        kind: ``int``, ``float`` (f32) or ``enum``.
        written: the kind as the description writes it: u17, s40, f32, reg, semaphore, label, type, op, …
        count: None for a scalar, else the length of the tuple.
        bits: width of one element, without the register.
        register: whether a register may be added at dispatch (``Reg``).
        default: value of the field, or of one element, when it is left out.
        names: the values of an enum, in order of their codes.
        offset: first bit in the encoded command.
        stage: the stage it configures; "" where it belongs to the whole command.
    """

    name: str
    kind: str
    written: str
    count: int | None
    bits: int
    signed: bool
    register: bool
    default: int | float | str
    low: float
    high: float
    names: tuple[str, ...]
    offset: int
    stage: str
    doc: str
    source: str

    @property
    def neutral(self) -> FieldValue:
        """The value of the field when it is left out."""
        return self.default if self.count is None else (self.default,) * self.count  # type: ignore[return-value]


@dataclass(frozen=True)
class Port:
    """An operand of a command: the memories it may address and its element types (() = field ``type``)."""

    name: str
    direction: str
    memories: tuple[str, ...]
    types: tuple[str, ...]
    stage: str
    doc: str
    source: str


@dataclass(frozen=True)
class Limit:
    """A constraint: holds when ``condition`` is false or ``holds`` is true.

    ``over`` names the tuple field whose elements are tested one by one ("" for none); ``leaves`` are the
    parts of the expression whose values an error shows.
    """

    text: str
    holds: Truth
    condition: Truth | None
    condition_text: str
    over: str
    leaves: tuple[tuple[str, Callable[[View], float | str]], ...]
    reason: str
    stage: str
    source: str


@dataclass(frozen=True)
class UnitGroup:
    """Units that may run in any order, each at most once a pass; ``narrow`` groups work at half width."""

    name: str
    narrow: bool
    units: tuple[tuple[str, tuple[str, ...]], ...]
    source: str


@dataclass(frozen=True)
class Stage:
    """A stage of a command: takes part when ``condition`` holds, and then takes ``cycles``."""

    name: str
    kernel: str
    doc: str
    condition: Truth | None
    condition_text: str
    cycles: Number | None
    formula: str
    source: str


@dataclass(frozen=True, repr=False)
class Command:
    """A command: its fields in encoding order, its ports, limits, stages and cost.

    Its cost is ``base`` + the slowest stage + ``drain``.
    """

    name: str
    kind: str
    doc: str
    opcode: int
    format: Format
    queues: tuple[str, ...]
    fields: Mapping[str, Field]
    ports: Mapping[str, Port]
    limits: tuple[Limit, ...]
    units: tuple[UnitGroup, ...]
    stages: tuple[Stage, ...]
    lets: Mapping[str, str]
    base: Number | None
    drain: Number | None
    base_formula: str
    drain_formula: str

    def __repr__(self) -> str:
        return f"<Command {self.name}>"


@dataclass(frozen=True)
class Cost:
    """What a command costs on an idle machine.

    Attributes:
        cycles: base + slowest stage + drain.
        stages: cycles of each stage that takes part.
        dram_bytes: bytes moved from and to the main memory, whole bursts.
    """

    cycles: int
    stages: dict[str, int]
    dram_bytes: int
