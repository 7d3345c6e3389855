"""Operators that stand for whole mechanisms while a model is traced.

transformers' attention, cache and mask interfaces are pointed here, so that each arrives in the FX
graph as one call: ``npuc::attention``, ``npuc::kv_update``, ``npuc::layers``, ``npuc::select_rows``.
They have shapes (fake implementations) and no kernels: they are never executed by torch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from npuc.ir.errors import UserError
from torch import Tensor
from torch.nn.functional import linear
from transformers import AttentionInterface, Cache
from transformers.integrations.moe import ExpertsInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

IMPLEMENTATION = "npuc"

_LIBRARY = torch.library.Library("npuc", "DEF")
_LIBRARY.define("kv_update(Tensor key, Tensor value, int layer, SymInt ctx) -> (Tensor, Tensor)")
_LIBRARY.define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor? mask, float scale, float softcap) -> Tensor"
)
_LIBRARY.define("select_rows(Tensor x) -> Tensor")
_LIBRARY.define("layers(Tensor[] inputs, int[] carried, int chain) -> Tensor[]")


@torch.library.register_fake("npuc::kv_update")
def _kv_update_shape(key: Tensor, value: Tensor, layer: int, ctx: int) -> tuple[Tensor, Tensor]:
    batch, heads = key.shape[:2]
    return (
        key.new_empty((batch, heads, ctx, key.shape[-1])),
        value.new_empty((batch, value.shape[1], ctx, value.shape[-1])),
    )


@torch.library.register_fake("npuc::attention")
def _attention_shape(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float
) -> Tensor:
    batch, heads, rows, _ = query.shape
    return query.new_empty((batch, rows, heads, value.shape[-1]))


@torch.library.register_fake("npuc::select_rows")
def _select_rows_shape(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.register_fake("npuc::layers")
def _layers_shape(inputs: list[Tensor], carried: list[int], chain: int) -> list[Tensor]:
    return [inputs[i].new_empty(inputs[i].shape) for i in carried]


@dataclass
class TraceState:
    """What the hooks need to know about the trace that is under way.

    Attributes:
        positions: int64 [batch, seq], the position of each new token; None for models without them.
        ctx: the attention length, a symbolic integer; 0 for models without a cache.
        updates: (layer, heads, key size, value size, dtype) of each cache update seen.
        attentions: calls of the attention interface seen.
    """

    positions: Tensor | None = None
    ctx: Any = 0
    updates: list[tuple[int, int, int, int, torch.dtype]] = field(default_factory=list)
    attentions: int = 0


STATE = TraceState()


class UnknownLength:
    """How many tokens the cache holds, for models that ask: it differs between rows and calls.

    Models that ask without need go on; a result that depends on it is refused.
    """

    def _same(self, *_: Any) -> UnknownLength:
        return self

    def _refuse(self, *_: Any) -> Any:
        raise UserError(
            "unsupported-position",
            "the model computes with the number of cached tokens instead of position_ids",
            remedy="only models that take positions as an input can be compiled",
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _same
    __index__ = __int__ = __float__ = __bool__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __eq__ = __ne__ = _refuse  # pyright: ignore[reportAssignmentType]
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @classmethod
    def __torch_function__(cls, *_: Any) -> Any:
        return cls()._refuse()


_OTHER_STATES = (
    "get_conv_state", "update_conv_state", "get_recurrent_state", "update_recurrent_state", "update_indexer",
    "has_previous_state",
)  # fmt: skip


class TraceCache(Cache):
    """A cache whose key index j is position j and whose update is one operator."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def __getattribute__(self, name: str) -> Any:
        if name in _OTHER_STATES:
            raise UserError(
                "unsupported-cache",
                f"the model keeps other states than keys and values ({name})",
                remedy="convolutional and recurrent states are not supported",
            )
        return super().__getattribute__(name)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """``graph.kv_update`` of the layer: new keys and values in, the first ctx positions out."""
        heads, key_size, value_size = key_states.shape[1], key_states.shape[-1], value_states.shape[-1]
        STATE.updates.append((layer_idx, heads, key_size, value_size, key_states.dtype))
        return torch.ops.npuc.kv_update(key_states, value_states, layer_idx, STATE.ctx)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Keys 0 … ctx − 1 are visible."""
        return STATE.ctx, 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Unused: masks are evaluated on positions."""
        return 0

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """Not a number: positions are inputs."""
        return UnknownLength()


# Arguments of attention interfaces that change nothing in inference or are in the mask already.
_IMPLIED = {
    "dropout", "is_causal", "sliding_window", "position_ids", "cache_position", "use_cache", "training",
    "output_attentions", "output_hidden_states", "output_router_logits", "layer_idx", "layer_head_mask",
    "deterministic", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "num_items_in_batch",
    "return_dict", "target_dtype", "attention_mask", "encoder_hidden_states",
}  # fmt: skip


class Bypassed(Exception):
    """The model's attention is more than the attention interface can say."""


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention interface: q [B,Hq,N,D], k, v [B,Hkv,ctx,D] → [B,N,Hq,Dv].

    Raises:
        Bypassed: for a parameter that ``graph.attention`` has not.
    """
    STATE.attentions += 1
    sinks = kwargs.pop("s_aux", None)
    extra = [k for k, v in kwargs.items() if k not in _IMPLIED and isinstance(v, Tensor | float)]
    if extra or (attention_mask is not None and attention_mask.dtype != torch.bool):
        raise Bypassed  # biases: traced as the model's own operations
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is None and causal:
        raise UserError(
            "missing-mask",
            "causal attention without a mask from the mask interface",
            where=f"{type(module).__name__} (layer {getattr(module, 'layer_idx', '?')})",
            remedy="the architecture is not supported",
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    if sinks is not None:
        return _attention_with_sinks(query, key, value, attention_mask, scale, sinks), None
    return torch.ops.npuc.attention(query, key, value, attention_mask, scale, float(softcap or 0.0)), None


def _attention_with_sinks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, sinks: Tensor
) -> Tensor:
    """Attention whose softmax has one more score per head, of no key: exp(s) / (Σ exp(s) + exp(sink)).

    Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023.
    """
    groups = query.shape[1] // key.shape[1]
    keys, values = (x.float().repeat_interleave(groups, 1) for x in (key, value))
    scores = torch.matmul(query.float(), keys.transpose(2, 3)) * scale
    if mask is not None:
        scores = torch.where(mask, scores, torch.finfo(torch.float32).min)
    sink = sinks.float().reshape(1, -1, 1, 1)
    largest = torch.maximum(scores.amax(-1, keepdim=True), sink)
    weights = torch.exp(scores - largest)
    total = weights.sum(-1, keepdim=True) + torch.exp(sink - largest)
    return torch.matmul(weights / total, values).transpose(1, 2).to(query.dtype)


def predicate(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any],
    attention_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor:
    """The mask interface: transformers' own mask function, evaluated on index tensors.

    Query indices are the positions of the new tokens, key indices count from 0 to ctx.

    Returns:
        bool [batch, 1, seq, ctx], true where the query attends to the key.
    """
    batch = torch.arange(batch_size, device=device)[:, None, None, None]
    head = torch.arange(1, device=device)[None, :, None, None]
    if STATE.positions is None:
        rows = torch.arange(q_length, device=device)[None, None, :, None]
    else:
        rows = STATE.positions[:, None, :, None]
    keys = torch.arange(kv_length, device=device)[None, None, None, :]
    return mask_function(batch, head, rows, keys).expand(batch_size, -1, q_length, kv_length)


def additive(dtype: torch.dtype = torch.float32, **kwargs: Any) -> Tensor:
    """The mask of models that compute attention themselves: 0 to attend, else the lowest number."""
    attend = predicate(**kwargs)
    return torch.where(attend, torch.zeros((), dtype=dtype), torch.finfo(dtype).min)


def experts(module: Any, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """The experts interface: tokens x[S,D] through chosen experts, index and weight [S,k] → [S,D].

    All experts together are one gated MLP of E · I hidden values, of which each token keeps those of
    its experts, scaled by their weights: two products, whatever the routing.

    Raises:
        UserError: for a normalization after each expert.
    """
    if getattr(module, "has_post_expert_norm", False):
        raise UserError(
            "unsupported-experts", "experts with a norm of their own", where=type(module).__name__
        )
    up, down = module.gate_up_proj if module.has_gate else module.up_proj, module.down_proj
    if module.is_transposed:
        up, down = up.transpose(1, 2), down.transpose(1, 2)
    count, wide, size = up.shape  # [E, 2I or I, D], and [E, D, I]
    chosen = index[:, :, None] == torch.arange(count, device=x.device)
    share = (chosen.to(weight.dtype) * weight[:, :, None]).sum(1)
    hidden = linear(x, up.reshape(count * wide, size)).reshape(-1, count, wide)
    if module.has_bias:
        hidden = hidden + (module.gate_up_proj_bias if module.has_gate else module.up_proj_bias)
    hidden = module._apply_gate(hidden) if module.has_gate else module.act_fn(hidden)
    hidden = (hidden * share[:, :, None]).to(x.dtype)
    inner = down.shape[-1]
    out = linear(hidden.reshape(-1, count * inner), down.permute(1, 0, 2).reshape(size, count * inner))
    if module.has_bias:
        out = out + linear(share.to(x.dtype), module.down_proj_bias.t())
    return out


@contextmanager
def additive_masks() -> Generator[None]:
    """Lets the implementation ``eager`` build its masks from positions too."""
    ALL_MASK_ATTENTION_FUNCTIONS["eager"] = additive
    try:
        yield
    finally:
        del ALL_MASK_ATTENTION_FUNCTIONS["eager"]


@contextmanager
def tracing(positions: Tensor | None, ctx: Any) -> Generator[None]:
    """Sets what the hooks need to know while a model runs."""
    previous = STATE.positions, STATE.ctx
    STATE.positions, STATE.ctx = positions, ctx
    try:
        yield
    finally:
        STATE.positions, STATE.ctx = previous


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, predicate)
ExpertsInterface.register(IMPLEMENTATION, experts)
