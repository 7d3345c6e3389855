"""What a compile can no longer choose, because the IR that it begins with has it already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from npuc.ir.errors import UserError
from npuc.ir.legality import PHASES
from npuc.passes.buckets import Bucket, parse_bucket, sort_buckets
from npuc.passes.partition import ranks_of
from npuc.passes.pipeline import Quantize, phase_of
from xdsl.dialects.builtin import ModuleOp, StringAttr


def settled_buckets(module: ModuleOp) -> list[Bucket] | None:
    """The buckets that a module has been specialized to; None before that phase."""
    fixed = module.attributes.get("npuc.buckets")
    if not isinstance(fixed, StringAttr):
        return None
    named = [name.partition("_") for name in fixed.data.split(",")]
    return [parse_bucket(kind, sizes) for kind, _, sizes in named]


def check_settled(
    module: ModuleOp,
    path: Path,
    *,
    dtype: str | None,
    buckets: Sequence[Bucket],
    quantize: Quantize | None,
    tensor_parallel: int,
) -> None:
    """Checks that what is asked for is what the IR of a file has, where it has passed the phase that chooses.

    Raises:
        UserError: naming the option that would have no effect.
    """

    def refuse(option: str, asked: str, phase: str, found: str = "") -> UserError:
        message = f"{option} {asked} comes too late: the IR {found or f'is past the phase {phase}'}"
        remedy = f"leave {option} out, or begin before the phase {phase}"
        return UserError("settled", message, where=str(path), remedy=remedy)

    passed = PHASES[: PHASES.index(phase_of(module)) + 1]
    own = module.attributes.get("npuc.dtype")
    if dtype is not None and isinstance(own, StringAttr) and own.data != dtype:
        raise refuse("--dtype", dtype, "import", f"computes in {own.data}")
    if quantize is not None and "quantize" in passed:
        raise refuse("--quantize", quantize.scheme, "quantize")
    fixed = settled_buckets(module)
    if buckets and fixed is not None and sort_buckets(set(buckets)) != fixed:
        names = ", ".join(bucket.name for bucket in fixed)
        kind = next(iter(dict.fromkeys(b.kind for b in buckets if b not in fixed)), buckets[0].kind)
        asked = ",".join(str(bucket) for bucket in buckets if bucket.kind == kind)
        raise refuse(f"--{kind}-buckets", asked, "specialize", f"has the programs {names}")
    ranks = ranks_of(module)
    if tensor_parallel not in (1, ranks) and "partition" in passed:
        found = "one rank" if ranks == 1 else f"{ranks} ranks"
        raise refuse("--tensor-parallel", str(tensor_parallel), "partition", f"is for {found}")
