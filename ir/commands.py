"""Reference semantics of the two kinds of work an NPU does: a pass and a copy (docs/design.md, section 6).

Both are described without any machine (ir/command_spec.py): a nest of extents, and per port the element type
and the element strides [slice, nest...]. `compile_pass` and `compile_copy` do everything that depends neither
on addresses nor on data, ``bind`` ties the result to tensors, and what bind returns runs it:

    run = compile_pass(spec).bind({"stream": At(flat, 0), "out": At(flat, 4096)})
    run()                                  # or run(mask_limit, limit)

An operand is `At(flat, offset)`: a one-dimensional tensor of the port's type and the position of nest index 0
of slice 0 in it. Bounds are the caller's business beyond what torch checks. Every read of a command happens
before its first write. Sums are f32; products of bf16, fp8 and 8-bit integers are exact.

Where section 6 leaves a choice:

* In mask and limit, *slice* is the slice the stream's element came from: the own slice, or index[ring_dim]
  where the stream walks over the slices.
* Steps behind a contraction or a reduction see no summed dimension: their sources must not vary along one,
  and the stash is available only where nothing was summed.
* Casts to integers round to nearest even and saturate, NaN becomes 0; casts to fp8 are torch's.
* A pass that moves elements without any step between equal types moves them bit for bit.
* Several elements stored to one address are an error, unless the value does not vary along that dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from npuc.ir.command_spec import (
    TORCH_TYPES,
    At,
    Bound,
    CopySpec,
    PassSpec,
    Port,
    Step,
    torch_type,
)
from npuc.ir.copy_kernel import CopyKernel
from npuc.ir.pass_kernel import PassKernel
from torch import Tensor

__all__ = [
    "TORCH_TYPES",
    "At",
    "Bound",
    "CopyKernel",
    "CopySpec",
    "PassKernel",
    "PassSpec",
    "Port",
    "Step",
    "compile_copy",
    "compile_pass",
    "run_copy",
    "run_pass",
    "torch_type",
]


@lru_cache(maxsize=8192)
def compile_pass(spec: PassSpec) -> PassKernel:
    """Prepare a pass: everything that depends neither on addresses nor on data.

    Raises:
        UserError: bad-command: the specification has no meaning.
    """
    return PassKernel(spec)


@lru_cache(maxsize=8192)
def compile_copy(spec: CopySpec) -> CopyKernel:
    """Prepare a copy: everything that depends neither on addresses nor on data.

    Raises:
        UserError: bad-command: the specification has no meaning.
    """
    return CopyKernel(spec)


def run_pass(spec: PassSpec, operands: Mapping[str, At], mask_limit: int = 0, limit: int = 0) -> None:
    """Run a pass once: compile (cached), bind and execute."""
    compile_pass(spec).bind(operands)(mask_limit, limit)


def run_copy(spec: CopySpec, src: At, dst: At, index: Tensor | None = None, limit: int | None = None) -> None:
    """Run a copy once: compile (cached), bind and execute."""
    compile_copy(spec).bind(src, dst, index)(limit)
