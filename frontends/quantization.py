"""What a checkpoint's configuration says of quantized linear layers: `quantization_config` as schemes.

Read are AutoFP8's layout (`quant_method` fp8: weight f8e4m3, one `weight_scale`, one `input_scale`) and
compressed-tensors'. A method is a function in `METHODS`; what it finds is, for each group of layers, how
weights and inputs are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex
from npuc.ir.errors import UserError
from npuc.ir.nquant import SchemeAttr
from xdsl.dialects.builtin import Float8E4M3FNType, i8
from xdsl.ir import Attribute

PATTERN = "re:"
LINEAR = "Linear"
MATCH_SECONDS = 1.0  # more than any honest pattern needs for a module path


@dataclass(frozen=True)
class StoredAs:
    """How values are stored: the type, and what shares a scale (`tensor`; `channel`, the first axis)."""

    storage: Attribute
    granularity: str = "tensor"

    def scheme(self, expressed: Attribute) -> SchemeAttr:
        """The scheme of a weight or an input whose values are of type ``expressed``."""
        return SchemeAttr.of(self.storage, expressed, self.granularity)


@dataclass(frozen=True)
class LayerQuantization:
    """A linear layer's weight, and its input where that is quantized, by a scale in the checkpoint."""

    weight: StoredAs
    input: StoredAs | None = None


@dataclass(frozen=True)
class Group:
    """Layers that are quantized alike: the targets are ``Linear``, module paths, or ``re:`` and a pattern."""

    targets: tuple[str, ...]
    layers: LayerQuantization


@dataclass(frozen=True)
class Quantization:
    """The linear layers of a checkpoint: groups, the first that matches counts, and paths left alone."""

    groups: tuple[Group, ...]
    ignored: tuple[str, ...]

    def of(self, path: str) -> LayerQuantization | None:
        """How the linear layer at a module path is quantized; None if it is not."""
        if any(_names(target, path) for target in self.ignored):
            return None
        found = (group.layers for group in self.groups if any(_names(t, path) for t in group.targets))
        return next(found, None)


def _names(target: str, path: str) -> bool:
    """Whether a target names a linear layer: by its class, its path, the end of its path, or a pattern."""
    if target.startswith(PATTERN):
        return _matches(target.removeprefix(PATTERN), path)
    return target in (LINEAR, path) or path.endswith("." + target)


def _matches(pattern: str, path: str) -> bool:
    """Whether a pattern of the checkpoint matches the beginning of a path; it comes from strangers."""
    try:
        return regex.match(pattern, path, timeout=MATCH_SECONDS) is not None
    except TimeoutError as error:
        message = f"the pattern {pattern!r} takes more than {MATCH_SECONDS} s to match {path}"
        where = "config.json: quantization_config"
        raise UserError("bad-quantization", message, where=where, remedy="write a simpler one") from error


def read_quantization(config: Mapping[str, Any], where: str) -> Quantization | None:
    """The quantization that a config.json declares; None where it declares none.

    Raises:
        UserError: ``unsupported-quantization`` or ``bad-quantization``, naming the entry.
    """
    entries = config.get("quantization_config")
    if entries is None:
        return None
    reader = _Entries(entries, f"{where}: quantization_config")
    method = reader.text("quant_method")
    if method not in METHODS:
        raise reader.unsupported("quant_method", method, METHODS)
    return METHODS[method](reader)


@dataclass(frozen=True)
class _Entries:
    """An object of the configuration, whose entries are checked as they are read."""

    values: Any
    where: str

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise UserError("bad-quantization", f"expected an object, got {self.values!r}", where=self.where)

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.bad(f"{key} is {value!r}, expected a name")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.get(key) or []
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.bad(f"{key} is {value!r}, expected a list of names")
        for pattern in (v.removeprefix(PATTERN) for v in value if v.startswith(PATTERN)):
            try:
                regex.compile(pattern)
            except regex.error as error:
                raise self.bad(f"{key} has {pattern!r}, which is no pattern: {error}") from error
        return tuple(value)

    def inside(self, key: str) -> _Entries:
        return _Entries(self.get(key), f"{self.where}.{key}")

    def bad(self, message: str) -> UserError:
        return UserError("bad-quantization", message, where=self.where, remedy="correct config.json")

    def unsupported(self, key: str, value: object, known: Sequence[object] | Mapping[str, Any]) -> UserError:
        names = ", ".join(str(name) for name in known)
        message = f"{key} {value!r} is not supported"
        return UserError("unsupported-quantization", message, where=self.where, remedy=f"supported: {names}")

    def require(self, key: str, *known: object) -> Any:
        """The value of an entry that must be one of those known."""
        value = self.get(key)
        if value not in known:
            raise self.unsupported(key, value, known)
        return value


def _auto_fp8(entries: _Entries) -> Quantization:
    """AutoFP8: every linear layer but those ignored, one scale for its weight and one for its input."""
    entries.require("activation_scheme", "static")
    entries.require("weight_block_size", None)
    entries.require("kv_cache_scheme", None, "")
    stored = StoredAs(Float8E4M3FNType())
    group = Group((LINEAR,), LayerQuantization(stored, stored))
    return Quantization((group,), entries.texts("ignored_layers"))


_FORMATS = ("float-quantized", "naive-quantized", "int-quantized")
_STORAGES: dict[tuple[object, object], Attribute] = {("float", 8): Float8E4M3FNType(), ("int", 8): i8}


def _compressed_tensors(entries: _Entries) -> Quantization:
    """compressed-tensors: groups of targets, with arguments of weights and of inputs."""
    entries.require("quantization_status", "compressed", "frozen", None)
    entries.require("kv_cache_scheme", None)
    for key in ("sparsity_config", "transform_config"):
        if entries.get(key):
            raise entries.unsupported(key, entries.get(key), ["none"])
    named = entries.inside("config_groups")
    groups: list[Group] = []
    for name in named.values:
        group = named.inside(str(name))
        _format(group if group.get("format") else entries)
        if group.get("output_activations") is not None:
            raise group.unsupported("output_activations", "given", ["none"])
        weight = _arguments(group.inside("weights"), "tensor", "channel")
        value = group.get("input_activations")
        inputs = None if value is None else _inputs(group.inside("input_activations"), weight)
        groups.append(Group(group.texts("targets"), LayerQuantization(weight, inputs)))
    return Quantization(tuple(groups), entries.texts("ignore"))


def _format(entries: _Entries) -> None:
    """Values of 8 bits as they are; packed ones are another format."""
    entries.require("format", *_FORMATS)


def _arguments(entries: _Entries, *granularities: str) -> StoredAs:
    """The storage and granularity of a tensor quantized in advance, symmetrically."""
    storage = entries.get("type"), entries.get("num_bits")
    if storage not in _STORAGES:
        known = [f"{kind} of {bits} bits" for kind, bits in _STORAGES]
        raise entries.unsupported("type", f"{storage[0]} of {storage[1]} bits", known)
    entries.require("dynamic", False)
    entries.require("symmetric", True)
    entries.require("actorder", None)
    return StoredAs(_STORAGES[storage], entries.require("strategy", *granularities))


def _inputs(entries: _Entries, weight: StoredAs) -> StoredAs:
    """How inputs are stored: floats, by one scale, multiplied with weights of the same type."""
    stored = _arguments(entries, "tensor")
    if stored.storage != weight.storage or stored.storage == i8:
        raise entries.unsupported("type", entries.get("type"), ["float of 8 bits, with weights of that type"])
    return stored


METHODS: dict[str, Callable[[_Entries], Quantization]] = {
    "fp8": _auto_fp8,
    "compressed-tensors": _compressed_tensors,
}
