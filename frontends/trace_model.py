"""A transformers model becomes FX graphs: one for the whole, one per kind of layer.

The model is built on the meta device; parameters become fake CPU tensors (shapes without data),
non-persistent buffers are computed by the model's own ``_init_weights``. Nothing is re-implemented.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from npuc.frontends.layer_kinds import LayerKind, Layers
from npuc.frontends.quantization import Quantization
from npuc.frontends.quantized_linear import replace_linears
from npuc.frontends.trace_ops import IMPLEMENTATION, Bypassed, TraceCache, additive_masks, tracing
from npuc.ir.errors import UserError
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_config
from torch.utils._pytree import tree_leaves
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

# Example sizes: primes that no configuration has by chance, so that a size tells which symbol it is.
SIZES = {"batch": 1009, "seq": 2003, "ctx": 4001}

_KEPT = (
    "linear", "matmul", "silu", "gelu", "layer_norm", "rms_norm", "softmax", "hardtanh", "mish", "softplus",
    "hardswish", "hardsigmoid", "leaky_relu", "elu",
)  # fmt: skip


@dataclass
class TracedGraph:
    """An exported program whose leading inputs are weights.

    Attributes:
        prefix: prepended to module paths and weight names, e.g. ``model.layers.{}``.
        strip: what the wrapper module adds in front of them.
    """

    program: ExportedProgram
    prefix: str
    strip: str


@dataclass
class TracedModel:
    """Everything the importer needs of a model."""

    model: nn.Module
    main: TracedGraph
    bodies: dict[str, TracedGraph]
    layers: Layers
    input_names: list[str]
    uninitialized: set[str] = field(default_factory=set)


def model_class(config: Any) -> type[Any]:
    """The class to trace: the causal language model of the configuration, else its architecture.

    Raises:
        UserError: when transformers has no such class.
    """
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        return found[0] if isinstance(found, tuple) else found
    names = config.architectures or []
    for name in names:
        if hasattr(transformers, name):
            return getattr(transformers, name)
    raise UserError(
        "unknown-architecture",
        f"no model class for architecture {', '.join(names) or 'none'} of type {config.model_type}",
        where="config.json: architectures",
        remedy="use a model that transformers implements",
    )


def build_model(
    config: Any, dtype: torch.dtype, attention: str, quantization: Quantization | None = None
) -> tuple[nn.Module, set[str]]:
    """The model with fake parameters and real non-persistent buffers.

    Args:
        attention: the name of transformers' attention implementation.
        quantization: which linear layers are quantized, and how.

    Returns:
        The model, and the names of buffers that ``_init_weights`` did not fill.
    """
    options = {"attn_implementation": attention, "experts_implementation": IMPLEMENTATION}
    with torch.device("meta"):
        model = model_class(config)._from_config(config, dtype=dtype, **options)
        if quantization is not None:
            replace_linears(model, quantization)
    model.eval()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for module in model.modules():
        transient = module._non_persistent_buffers_set
        for name, parameter in module._parameters.items():
            if parameter is not None:  # tied ones become two: the checkpoint says what they share
                module._parameters[name] = _fake(mode, parameter)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                fake = torch.empty_like(buffer, device="cpu") if name in transient else _fake(mode, buffer)
                module._buffers[name] = fake
        module._is_hf_initialized = not transient  # pyright: ignore
    with torch.no_grad():
        model.initialize_weights()
    missing = {
        name for name, b in model.named_buffers() if type(b) is Tensor and b._version == 0 and b.numel()
    }
    return model, missing


def _fake(mode: FakeTensorMode, like: Tensor) -> Tensor:
    """A tensor of the same type without data, marked so that initialization leaves it alone."""
    with mode:
        fake = torch.empty(like.shape, dtype=like.dtype, device="cpu")
        if isinstance(like, nn.Parameter):
            fake = nn.Parameter(fake, requires_grad=False)
    fake._is_hf_initialized = True  # pyright: ignore[reportAttributeAccessIssue]
    return fake


class _Main(nn.Module):
    """The whole model: tokens, positions and a tensor of length ctx in, logits out."""

    def __init__(self, model: nn.Module, with_keys: bool) -> None:
        super().__init__()
        self.model = model
        self.with_keys = with_keys
        self.parameters_of_forward = inspect.signature(model.forward).parameters

    def forward(self, tokens: Tensor, positions: Tensor, probe: Tensor) -> Tensor:
        optional: dict[str, Any] = {"position_ids": positions, "use_cache": True}
        if self.with_keys:
            optional["attention_mask"] = torch.ones(tokens.shape[0], probe.shape[0], dtype=torch.int64)
        given = {k: v for k, v in optional.items() if k in self.parameters_of_forward}
        with tracing(positions, probe.shape[0]):
            return self.model(input_ids=tokens, past_key_values=TraceCache(), **given).logits


class _Encoder(nn.Module):
    """A model without cache: its main input in, logits or the last hidden state out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.input_name = str(model.main_input_name)

    def forward(self, main_input: Tensor) -> Tensor:
        with tracing(None, 0):
            out = self.model(**{self.input_name: main_input})
        return out.logits if hasattr(out, "logits") else out.last_hidden_state


class _Body(nn.Module):
    """One layer; its inputs are the tensors of its call, after the tensor of length ctx."""

    def __init__(self, kind: LayerKind, has_positions: bool) -> None:
        super().__init__()
        self.layer = kind.module
        self.kind = kind
        self.has_positions = has_positions

    def forward(self, probe: Tensor, *tensors: Tensor) -> list[Tensor]:
        positions = tensors[-1] if self.has_positions else None
        with tracing(positions, probe.shape[0]):
            args, kwargs = self.kind.arguments(tensors, TraceCache())
            out = self.layer(*args, **kwargs)
        results = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        return [results[i] for i in self.kind.outputs]


@contextmanager
def _marking_head(model: nn.Module) -> Generator[None]:
    """Marks what enters the output embedding, the point up to which every row is needed."""
    find: Any = getattr(model, "get_output_embeddings", lambda: None)
    head: nn.Module | None = find()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, args: (torch.ops.npuc.select_rows(args[0]), *args[1:]))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _restored(model: nn.Module) -> Generator[None]:
    """Puts module attributes back that a run without data replaces (caches of frequencies)."""
    saved = [(m, dict(vars(m)), dict(m.__dict__["_buffers"])) for m in model.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            module.__dict__["_buffers"].update(buffers)


def _sizes(*names: str) -> tuple[int, ...]:
    return tuple(SIZES[name] for name in names)


def export_program(wrapper: nn.Module, inputs: list[Tensor], where: str) -> ExportedProgram:
    """torch.export with every dimension of a symbol's size dynamic, decomposed to core ATen."""
    # From 2: a size of 1 takes the same path, for the IR broadcasts only what is 1 in every program.
    symbols = {size: Dim(name, min=2) for name, size in SIZES.items()}
    shapes = [{i: symbols[s] for i, s in enumerate(x.shape) if s in symbols} for x in inputs]
    names = list(inspect.signature(wrapper.forward).parameters)
    variadic = len(names) < len(inputs)
    dynamic = {names[0]: shapes[0], names[1]: tuple(shapes[1:])} if variadic else tuple(shapes)
    sizes_of_one: Any = symbolic_config.patch(  # pyright: ignore[reportAttributeAccessIssue]
        backed_size_oblivious=True
    )  # no guards against sizes of 1
    with _reporting(where), warnings.catch_warnings(), torch.no_grad(), sizes_of_one:
        warnings.simplefilter("ignore")
        program = torch.export.export(wrapper, tuple(inputs), dynamic_shapes=dynamic, strict=False)
        return program.run_decompositions(dict(_decompositions()))


@cache
def _decompositions() -> dict[Any, Any]:
    """torch's table to core ATen, without the operators that the graph dialect has itself."""
    table: dict[Any, Any] = dict(torch.export.default_decompositions().items())
    return {op: f for op, f in table.items() if op._schema.name.removeprefix("aten::") not in _KEPT}


@contextmanager
def _reporting(where: str) -> Generator[None]:
    """Turns whatever a model or torch.export raises into one error that the user sees."""
    try:
        yield
    except (UserError, Bypassed):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise UserError(
            "export-failed",
            f"the model cannot be traced: {type(error).__name__}: {text[:200]}",
            where=where,
            remedy="the architecture is not supported; the cause holds the traceback",
        ) from error


def trace_model(config: Any, dtype: torch.dtype, quantization: Quantization | None = None) -> TracedModel:
    """Traces a causal language model: its layers' kinds, each kind's body, and the rest.

    Models that do not use transformers' attention interface are traced with their own attention, as
    ordinary operations.

    Raises:
        UserError: when the architecture is unknown or cannot be exported.
    """
    attention, with_keys = IMPLEMENTATION, False
    while True:
        own = nullcontext() if attention == IMPLEMENTATION else additive_masks()
        try:
            with own:
                return _trace(copy.deepcopy(config), dtype, attention, with_keys, quantization)
        except Bypassed:
            attention = "eager"
        except UserError as error:
            if error.kind != "unsupported-position" or with_keys:
                raise
            with_keys = True  # the length of a mask of all keys is what some models want to know


def _trace(
    config: Any, dtype: torch.dtype, attention: str, with_keys: bool, quantization: Quantization | None
) -> TracedModel:
    """Traces with one of transformers' attention implementations.

    Args:
        with_keys: pass a padding mask of ones for all keys.

    Raises:
        Bypassed: when the model needs another implementation.
    """
    where = model_class(config).__name__
    with _reporting(where):
        try:
            model, missing = build_model(config, dtype, attention, quantization)
        except (KeyError, ValueError) as error:
            if attention != IMPLEMENTATION or IMPLEMENTATION not in str(error):
                raise
            raise Bypassed from error
    layers = Layers(model, config)
    is_causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    main = _Main(model, with_keys) if is_causal else _Encoder(model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, _reporting(where):
        inputs = _causal_inputs() if is_causal else [_main_input(model, config)]
        with torch.no_grad(), _restored(model), layers.discovering():
            main(*inputs)
    if attention == IMPLEMENTATION and any(k.cache and not k.attentions for k in layers.kinds):
        raise Bypassed
    if is_causal and layers.kinds and not any(kind.cache for kind in layers.kinds):
        raise UserError(
            "no-cache",
            "the model keeps no keys and values, so it cannot generate token by token",
            where=where,
            remedy="only models with keys and values in each layer can be compiled as language models",
        )
    with _restored(model), _marking_head(model), layers.opaque():
        outer = TracedGraph(export_program(main, inputs, where), "", "model")
    bodies: dict[str, TracedGraph] = {}
    for kind in layers.kinds:
        with _restored(model), mode:
            probe = torch.zeros(_sizes("ctx"), dtype=torch.int64)
            tensors = [probe, *(torch.empty(t.shape, dtype=t.dtype) for t in kind.inputs)]
        program = export_program(_Body(kind, is_causal), tensors, kind.path.format(kind.index))
        bodies[kind.name] = TracedGraph(program, kind.path, "layer")
    names = ["tokens", "positions"] if is_causal else [str(model.main_input_name)]
    return TracedModel(model, outer, bodies, layers, names, missing)


def _causal_inputs() -> list[Tensor]:
    """Example tokens, positions and the tensor that carries the size ctx."""
    tokens = torch.zeros(_sizes("batch", "seq"), dtype=torch.int64)
    return [tokens, torch.zeros_like(tokens), torch.zeros(_sizes("ctx"), dtype=torch.int64)]


def _main_input(model: nn.Module, config: Any) -> Tensor:
    """An example of what an encoder reads: tokens, or pixels of the configured size.

    Raises:
        UserError: for other kinds of input.
    """
    if model.main_input_name == "input_ids":
        return torch.zeros(_sizes("batch", "seq"), dtype=torch.int64)
    if model.main_input_name == "pixel_values":
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return torch.zeros(*_sizes("batch"), config.num_channels, height, width, dtype=model.dtype)  # pyright: ignore
    raise UserError(
        "unsupported-input",
        f"the model reads {model.main_input_name}, expected input_ids or pixel_values",
        where=type(model).__name__,
        remedy="only models of text or images can be imported",
    )
