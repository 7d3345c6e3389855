"""Repeated layers of a model: where they are, which of them are alike, and how they are called.

A model is run once without data (`Layers.discovering`): every layer call is recorded, and layers of
equal structure, attributes and arguments share one `LayerKind`. When the outer graph is traced
(`Layers.opaque`), operators ``npuc::layers`` take the place of the calls (`layer_chains`).
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from npuc.frontends.layer_chains import CallRecorder, ChainTracer, LayerCall, Link
from npuc.frontends.trace_ops import STATE
from npuc.ir.errors import UserError
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

_PLAIN = (bool, int, float, str, type(None), torch.dtype)


@dataclass
class LayerKind:
    """Layers that one traced body serves.

    Attributes:
        name: the symbol of the body, e.g. ``layer_kind0``.
        path: module path with ``{}`` for the index, e.g. ``model.layers.{}``.
        index: the layer that is traced.
        spec: tree of the arguments; ``leaves`` has None where a tensor goes.
        inputs: the tensors of the traced call, and their names in it.
        outputs: which tensor results continue: those that replace an input.
        carried: for each of them, the position of that input.
        out_spec: tree of the results; ``out_leaves`` has None where no tensor continues.
        cache: (heads, key size, value size, dtype) when the layer updates a cache.
        attentions: calls of the attention interface.
    """

    name: str
    path: str
    index: int
    module: nn.Module
    spec: pytree.TreeSpec
    leaves: list[Any]
    inputs: list[Tensor]
    names: list[str]
    outputs: list[int] = field(default_factory=list)
    carried: list[int] = field(default_factory=list)
    out_spec: pytree.TreeSpec | None = None
    out_leaves: list[Any] = field(default_factory=list)
    cache: tuple[int, int, int, torch.dtype] | None = None
    attentions: int = 0
    members: list[int] = field(default_factory=list)

    def arguments(self, tensors: Sequence[Tensor], cache: Cache) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of the layer for these tensors."""
        rest = iter(tensors)
        leaves = [
            next(rest) if leaf is _TENSOR else cache if leaf is _CACHE else leaf for leaf in self.leaves
        ]
        return pytree.tree_unflatten(leaves, self.spec)

    def results(self, tensors: Sequence[Tensor]) -> Any:
        """What the layer returns, with these tensors in it."""
        assert self.out_spec is not None
        rest = iter(tensors)
        leaves = [next(rest) if leaf is _TENSOR else leaf for leaf in self.out_leaves]
        return pytree.tree_unflatten(leaves, self.out_spec)


class _Marker:
    """Stands for a tensor or the cache among constant arguments."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


_TENSOR, _CACHE = _Marker("<tensor>"), _Marker("<cache>")


def _split(tree: Any) -> tuple[list[Any], list[Tensor], pytree.TreeSpec]:
    """Leaves with markers for tensors and caches, the tensors, and the tree."""
    leaves, spec = pytree.tree_flatten(tree, is_leaf=lambda x: isinstance(x, Cache))
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    marked = [_TENSOR if isinstance(x, Tensor) else _CACHE if isinstance(x, Cache) else x for x in leaves]
    return marked, tensors, spec


def find_layer_lists(model: nn.Module) -> list[str]:
    """Paths of the outermost module lists that hold repeated layers."""
    no_split: set[str] = set(getattr(model, "_no_split_modules", None) or ())
    found: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        if any(path.startswith(outer + ".") for outer in found):
            continue
        layers = list(module)
        if all(isinstance(m, GradientCheckpointingLayer) or type(m).__name__ in no_split for m in layers):
            found.append(path)
    return found


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What decides a module tree's behaviour, by path: classes, plain attributes, shapes, buffer values."""
    facts: dict[str, Any] = {}
    for path, part in module.named_modules():
        facts[f"{path}:class"] = type(part).__qualname__
        for name, value in vars(part).items():
            if name == "training" or name.startswith("_"):
                continue
            items = value if isinstance(value, tuple | list) else (value,)
            if all(isinstance(v, _PLAIN) for v in items):
                facts[f"{path}:{name}"] = value if isinstance(value, _PLAIN) else tuple(value)
            elif callable(value) and hasattr(value, "__qualname__"):
                facts[f"{path}:{name}"] = value.__qualname__
    for path, tensor in module.named_parameters():
        facts[path] = (tuple(tensor.shape), tensor.dtype)
    for path, tensor in module.named_buffers():
        facts[path] = (tuple(tensor.shape), tensor.dtype, _digest(tensor))
    return facts


def _digest(tensor: Tensor) -> str:
    """Identifies the values of a real buffer; fake ones have none."""
    if type(tensor) is not Tensor or tensor.is_meta:
        return ""
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()


def _signatures(layers: Sequence[nn.Module], config: Any) -> list[str]:
    """A text per layer, equal for layers of one kind.

    An attribute that merely counts the layers (its value is the index in every layer) does not
    separate them. Lists of the configuration with one entry per layer do.
    """
    facts = [_attributes(layer) for layer in layers]
    counting = {
        key
        for key, value in facts[0].items()
        if type(value) is int
        and value == 0
        and len(layers) > 1
        and all(f.get(key) == i for i, f in enumerate(facts))
    }
    per_layer = {
        key: value
        for key, value in config.to_dict().items()
        if isinstance(value, list | tuple) and len(value) == len(layers)
    }
    texts: list[str] = []
    for i, fact in enumerate(facts):
        rows = [f"{k}={v!r}" for k, v in sorted(fact.items()) if k not in counting]
        rows += [f"config.{k}={v[i]!r}" for k, v in sorted(per_layer.items())]
        texts.append("\n".join(rows))
    return texts


class Layers:
    """The repeated layers of a model and the kinds they fall into, in order of their calls.

    Attributes:
        calls: those of the discovery.
        chains: what each ``npuc::layers`` of the outer graph stands for.
    """

    def __init__(self, model: nn.Module, config: Any) -> None:
        self.kinds: list[LayerKind] = []
        self.calls: list[LayerCall] = []
        self.chains: list[list[Link]] = []
        self._by_key: dict[Any, LayerKind] = {}
        self._members: list[tuple[str, int, nn.Module, str]] = []
        for path in find_layer_lists(model):
            layers = list(model.get_submodule(path))  # pyright: ignore[reportArgumentType]
            texts = _signatures(layers, config)
            self._members += [(path, i, m, t) for i, (m, t) in enumerate(zip(layers, texts, strict=True))]

    @contextmanager
    def _hooked(self, wrap: Callable[[str, int, nn.Module, str], Callable[..., Any]]) -> Generator[None]:
        try:
            for path, index, module, text in self._members:
                module.forward = wrap(path, index, module, text)
            yield
        finally:
            for _, _, module, _ in self._members:
                module.__dict__.pop("forward", None)

    @contextmanager
    def discovering(self) -> Generator[None]:
        """Layers of a new kind run, others only return tensors of the right shapes."""
        recorder = CallRecorder()

        def wrap(path: str, index: int, module: nn.Module, text: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                with recorder.inside():
                    found = self._discover(path, index, module, text, args, kwargs)
                recorder.add(found)
                return found.kind.results(found.results)

            return call

        with self._hooked(wrap), recorder:
            yield
        self.calls = recorder.calls

    @contextmanager
    def opaque(self) -> Generator[None]:
        """Layer calls become ``npuc::layers``; the calls are those of the discovery, in order.

        The layers' parameters are out of sight: tracing would make inputs of all of them.
        """
        tracer = ChainTracer(self.calls)

        def wrap(path: str, index: int, module: nn.Module, text: str) -> Callable[..., Any]:
            return lambda *args, **kwargs: tracer.call(index, _inputs(args, kwargs)[1])

        with self._hooked(wrap), self._without_tensors():
            yield
        self.chains = tracer.chains

    @contextmanager
    def _without_tensors(self) -> Generator[None]:
        held = ("_parameters", "_buffers")
        places = [vars(part) for _, _, module, _ in self._members for part in module.modules()]
        saved = [{name: place[name] for name in held} for place in places]
        try:
            for place in places:
                place.update({name: {} for name in held})
            yield
        finally:
            for place, tensors in zip(places, saved, strict=True):
                place.update(tensors)

    def _discover(
        self, path: str, index: int, module: nn.Module, text: str, args: Any, kwargs: Any
    ) -> LayerCall:
        leaves, tensors, spec = _inputs(args, kwargs)
        metas = tuple((tuple(t.shape), t.dtype) for t in tensors)
        constants = tuple(repr(leaf) for leaf in leaves)
        key = (path, text, str(spec), constants, metas)
        kind = self._by_key.get(key)
        if kind is None:
            kind = LayerKind(
                f"layer_kind{len(self.kinds)}", f"{path}.{{}}", index, module, spec, leaves, tensors,
                [*_names(module, args, kwargs), "positions"],
            )  # fmt: skip
            self._first_call(kind, args, kwargs)
            self._by_key[key] = kind
            self.kinds.append(kind)
        kind.members.append(index)
        return LayerCall(kind, index, tensors, [torch.empty_like(tensors[i]) for i in kind.carried])

    def _first_call(self, kind: LayerKind, args: Any, kwargs: Any) -> None:
        """Runs the layer to learn what it returns and whether it has a cache."""
        seen, attentions = len(STATE.updates), STATE.attentions
        out = type(kind.module).forward(kind.module, *args, **kwargs)
        kind.attentions = STATE.attentions - attentions
        leaves, results, kind.out_spec = _split(out)
        _match(kind, results)
        order = iter(range(len(results)))
        kind.out_leaves = [
            (_TENSOR if next(order) in kind.outputs else None) if leaf is _TENSOR else leaf for leaf in leaves
        ]
        updates = STATE.updates[seen:]
        where = kind.path.format(kind.index)
        if len(updates) > 1 or any(update[0] != kind.index for update in updates):
            raise UserError(
                "unsupported-cache",
                f"the layer updates caches {[u[0] for u in updates]}, expected only its own, {kind.index}",
                where=where,
            )
        if updates:
            kind.cache = updates[0][1:]


def _inputs(args: Any, kwargs: Any) -> tuple[list[Any], list[Tensor], pytree.TreeSpec]:
    """Arguments of a layer call; the positions come last, for masks that layers make themselves."""
    leaves, tensors, spec = _split((args, kwargs))
    return leaves, tensors if STATE.positions is None else [*tensors, STATE.positions], spec


def _names(module: nn.Module, args: Any, kwargs: Any) -> list[str]:
    """A name for each tensor of a layer call: its parameter's, with the place in a tuple."""
    parameters = list(inspect.signature(type(module).forward).parameters)[1:]
    named = dict(zip(parameters, args, strict=False)) | dict(kwargs)
    found: list[str] = []
    for name, value in named.items():
        leaves = pytree.tree_leaves(value, is_leaf=lambda x: isinstance(x, Cache))
        several = len(leaves) > 1
        found += [f"{name}_{i}" if several else name for i, x in enumerate(leaves) if isinstance(x, Tensor)]
    return found


def _match(kind: LayerKind, results: Sequence[Tensor]) -> None:
    """Finds for each result the first input of the same type that no other result replaces.

    Other results (attention weights, which some layers return unasked) are dropped; a model that
    uses one finds None.
    """
    for output, result in enumerate(results):
        for i, value in enumerate(kind.inputs):
            if i not in kind.carried and value.shape == result.shape and value.dtype == result.dtype:
                kind.outputs.append(output)
                kind.carried.append(i)
                break
    if not kind.carried:
        found = ", ".join(f"{r.dtype}{list(r.shape)}" for r in results) or "no tensor"
        raise UserError(
            "unsupported-layer",
            f"the layer returns {found}, which replaces none of its inputs",
            where=kind.path.format(kind.index),
            remedy="only layers that replace their inputs can be repeated",
        )
