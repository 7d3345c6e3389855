"""The kernel table: what every operation computes, as torch functions.

This is the reference semantics of the project. Products of narrow types are exact and accumulate in
f32; results are rounded to the storage type once, to nearest even.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Unary = Callable[[Tensor], Tensor]
Binary = Callable[[Tensor, Tensor], Tensor]

UNARY: dict[str, Unary] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "floor": torch.floor,
    "relu": torch.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "not": lambda x: torch.logical_not(x) if x.dtype == torch.bool else torch.bitwise_not(x),
}

BINARY: dict[str, Binary] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "floordiv": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "mod": torch.remainder,
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
}


def _wide(x: Tensor) -> Tensor:
    """Narrow floats as f32; f32 and integers as they are."""
    return x.float() if x.dtype.is_floating_point and x.dtype != torch.float32 else x


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Conversion, rounding to nearest even; a predicate is 1 or 0."""
    return x.to(dtype)


def reduce(x: Tensor, kind: str, dims: Sequence[int], keepdims: bool) -> Tensor:
    """Reduction over ``dims``, accumulated in f32."""
    dims = list(dims)
    match kind:
        case "sum":
            return _wide(x).sum(dims, keepdim=keepdims).to(x.dtype)
        case "mean":
            return _wide(x).mean(dims, keepdim=keepdims).to(x.dtype)
        case "max":
            return torch.amax(x, dims, keepdim=keepdims)
        case "min":
            return torch.amin(x, dims, keepdim=keepdims)
        case "any":
            return torch.any(x, dims, keepdim=keepdims)
        case "all":
            return torch.all(x, dims, keepdim=keepdims)
        case _:
            raise ValueError(f"unknown reduction {kind}")


def softmax(x: Tensor, dim: int) -> Tensor:
    """exp(x − max) / sum, in f32."""
    return torch.softmax(_wide(x), dim).to(x.dtype)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a[…,M,K] · b[…,K,N], accumulated in f32."""
    return torch.matmul(_wide(a), _wide(b)).to(a.dtype)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """(x[…,K] · weight[N,K]ᵀ) · scale + bias[N], accumulated in f32, rounded once to ``dtype`` or x's."""
    added = None if bias is None else _wide(bias)
    if scale is None:
        return F.linear(_wide(x), _wide(weight), added).to(dtype or x.dtype)
    value = F.linear(x.float(), weight.float()) * scale  # of any types: they may be stored values
    return (value if added is None else value + added).to(dtype or x.dtype)


def embedding(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of table[V,D]."""
    return F.embedding(ids.long(), table)


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · (offset + weight), in f32."""
    wide = _wide(x)
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (scaled * (offset + _wide(weight))).to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """(x − mean) / sqrt(var + eps) · weight + bias, in f32."""
    vectors = [None if v is None else _wide(v) for v in (weight, bias)]
    return F.layer_norm(_wide(x), x.shape[-1:], *vectors, eps=eps).to(x.dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotates pairs of x[B,H,N,D] by cos, sin [B or 1,N,R]; dimensions from R on pass through."""
    size = cos.shape[-1]
    part, rest = _wide(x[..., :size]), x[..., size:]
    if interleaved:
        pairs = part.unflatten(-1, (-1, 2))
        turned = torch.stack((-pairs[..., 1], pairs[..., 0]), -1).flatten(-2)
    else:
        turned = torch.cat((-part[..., size // 2 :], part[..., : size // 2]), -1)
    rotated = part * _wide(cos).unsqueeze(1) + turned * _wide(sin).unsqueeze(1)
    return torch.cat((rotated.to(x.dtype), rest), -1)


def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """activation(gate) · up, rounded once."""
    return (UNARY[activation](_wide(gate)) * _wide(up)).to(gate.dtype)


def attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, softcap: float
) -> Tensor:
    """Scaled dot-product attention in f32: q[B,Hq,N,D], k[B,Hkv,ctx,D], v[B,Hkv,ctx,Dv] → [B,N,Hq,Dv].

    Keys that the mask excludes are selected out, whatever their values; a row without any key is 0.
    """
    batch, heads, rows, size = query.shape
    kv_heads, ctx = keys.shape[1], keys.shape[2]
    grouped = _wide(query).reshape(batch, kv_heads, heads // kv_heads * rows, size)
    scores = (grouped @ _wide(keys).transpose(-1, -2)).reshape(batch, heads, rows, ctx) * scale
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    attended = _wide(values)
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf)
        used = mask.any(2, keepdim=True).any(1, keepdim=True).transpose(-1, -2)  # [B or 1, 1, ctx, 1]
        attended = torch.where(used, attended, 0.0)
    weights = torch.nan_to_num(torch.softmax(scores, -1)) if mask is not None else torch.softmax(scores, -1)
    grouped = weights.reshape(batch, kv_heads, heads // kv_heads * rows, ctx) @ attended
    return grouped.reshape(batch, heads, rows, -1).transpose(1, 2).to(query.dtype)


def kv_update(
    new: Tensor, cache: Tensor, slots: Sequence[int], positions: Sequence[int], valid: Sequence[int], ctx: int
) -> Tensor:
    """Writes new[B,H,N,D] into cache[slots,H,length,D], in place; the first ctx rows [B,H,ctx,D].

    Row b writes its first ``valid[b]`` tokens at ``positions[b]`` of slot ``slots[b]``.
    """
    for b, (slot, position, count) in enumerate(zip(slots, positions, valid, strict=True)):
        cache[slot, :, position : position + count] = new[b, :, :count].to(cache.dtype)
    return cache[list(slots), :, :ctx].to(new.dtype)
