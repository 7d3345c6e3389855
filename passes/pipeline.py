"""The whole lowering, top to bottom.

Each phase is a list of passes; after each phase the module says its name in `npuc.phase` and is checked
against that phase's legality table. The printed pipeline re-runs a compile exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from npuc.ir.diagnostics import pipeline_error
from npuc.ir.errors import UserError
from npuc.ir.legality import PHASE_ATTRIBUTE, PHASES, check_phase
from npuc.ir.universe import NPUC_UNIVERSE
from npuc.passes.buckets import Bucket
from npuc.passes.instrumentation import Instrument, run_pipeline
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass, PassPipeline
from xdsl.utils.exceptions import ArgSpecParseError, PassFailedException, VerifyException


def phase_pipelines(
    target: str, buckets: Sequence[Bucket], quantize: Quantize | None = None, tensor_parallel: int = 1
) -> dict[str, str]:
    """The pipeline string of each phase after `import`, in order.

    Args:
        quantize: what to round weights to; without, they stay as the checkpoint has them.
        tensor_parallel: how many ranks share every layer.
    """
    names = ",".join(f'"{bucket.name}"' for bucket in buckets)
    on = f'target="{target}"'
    ranks = f"{{tensor_parallel={tensor_parallel}}}"
    return {
        # Norms, rotary embedding and gated products become single ops while their data flow is plain.
        # Then what attention does per token is gathered, to be run a few tokens at a time. In canonical form
        # the norm before the head sees the rows alone whose logits are wanted.
        "optimize": "fold-constants,hoist-repeats,raise-rms-norm,raise-rope,raise-gated,"
        "outline-rows,canonicalize",
        # Checkpoints may be quantized already; a compile rounds what it was asked to, once raising is done.
        "quantize": "" if quantize is None else quantize.text,
        # Quantized types become what is stored and multiplied, which the machine's types decide, once for all
        # buckets. From here every size is a number; each bucket is a module of its own.
        # Before that, small parameters become one: their copies would cost more than what they bring.
        "specialize": f"lower-nquant{{{on}}},join-parameters,specialize{{{on} buckets={names}}}",
        # Fused layers come apart first, then shares are made equal, then written down, then cut.
        "partition": f"split-linears,pad-shards{ranks},assign-shardings{ranks},partition"
        if tensor_parallel > 1
        else "",
        # Every slice gets rows of its own where there are enough. Where ranks add up, groups of rows take
        # turns, and every rank has a share of each group's sums; what then is too large for the chip all at
        # once is done some rows at a time.
        # Placements before packing: how a weight is packed depends on where its user's operands lie.
        "layout": f"spread-rows{{{on}}},stagger-rows{{{on}}},scatter-rows{{{on}}},"
        f"split-rows{{{on}}},assign-layouts{{{on}}},pack-weights{{{on}}},place-caches{{{on}}}",
        "tile": f"lower-to-tile{{{on}}}",
        # Calls go first: nothing overlaps across one. Commands before their order (costs decide), order
        # before addresses (it decides what is alive at once), addresses before synchronization (reused
        # bytes are dependencies too).
        "schedule": f"inline-calls,select-commands{{{on}}},order-commands{{{on}}},multi-buffer,"
        f"allocate-buffers{{{on}}},insert-sync{{{on}}},lower-to-npu{{{on}}}",
    }


def pipeline_string(
    target: str, buckets: Sequence[Bucket], quantize: Quantize | None = None, tensor_parallel: int = 1
) -> str:
    """The passes of all phases as one string for `irc opt -p`."""
    phases = phase_pipelines(target, buckets, quantize, tensor_parallel)
    return ",".join(text for text in phases.values() if text)


@dataclass(frozen=True)
class Quantize:
    """What a compile rounds weights to: a scheme of `quantize-weights`, but for the layers named."""

    scheme: str
    ignore: tuple[str, ...] = ("lm_head",)

    @classmethod
    def of_recipe(cls, recipe: Mapping[str, Any] | None) -> Quantize | None:
        """What the compile of an artifact was asked for, by the recipe in its manifest."""
        if recipe is None or recipe["scheme"] is None:
            return None
        return cls(recipe["scheme"], tuple(recipe["ignore"]))

    @property
    def text(self) -> str:
        """The pass with its options."""
        ignored = ",".join(f'"{pattern}"' for pattern in self.ignore)
        return f'quantize-weights{{scheme="{self.scheme}"{f" ignore={ignored}" if ignored else ""}}}'


@dataclass(frozen=True)
class Observer:
    """Who is told of a lowering: of each phase when it begins and ends, and of each pass."""

    after_phase: Callable[[str, ModuleOp], None] | None = None
    progress: Callable[[str], None] | None = None
    instruments: Sequence[Instrument] = ()


@dataclass
class FailedPass(Instrument):
    """Remembers the pass that failed."""

    name: str = ""

    def after_failed(self, step: ModulePass, module: ModuleOp, error: Exception) -> None:
        self.name = step.name


@dataclass(frozen=True)
class PhaseTime:
    """How long a phase took, in seconds."""

    name: str
    seconds: float


def lower(
    module: ModuleOp,
    target: str,
    buckets: Sequence[Bucket],
    *,
    quantize: Quantize | None = None,
    until: str = "schedule",
    tensor_parallel: int = 1,
    observer: Observer = Observer(),
) -> list[PhaseTime]:
    """Runs the phases after the module's own, up to `until`.

    Raises:
        UserError: when a phase is unknown, or a pass or check fails.
    """
    current = phase_of(module)
    if until not in PHASES:
        raise UserError("phase", f"unknown phase {until!r}", remedy=f"phases are {', '.join(PHASES)}")
    ctx = context()
    times: list[PhaseTime] = []
    for name, text in phase_pipelines(target, buckets, quantize, tensor_parallel).items():
        if PHASES.index(name) <= PHASES.index(current) or PHASES.index(name) > PHASES.index(until):
            continue
        if observer.progress:
            observer.progress(name)
        start = perf_counter()
        run_passes(ctx, module, text, observer.instruments)
        finish_phase(module, name)
        for instrument in observer.instruments:
            instrument.after_phase(name, module)
        times.append(PhaseTime(name, perf_counter() - start))
        if observer.after_phase:
            observer.after_phase(name, module)
    return times


def run_passes(ctx: Context, module: ModuleOp, text: str, instruments: Sequence[Instrument] = ()) -> None:
    """Runs a pipeline string.

    Raises:
        UserError: naming the pass that failed.
    """
    if not text:
        return
    failed = FailedPass()
    try:
        run_pipeline(ctx, module, passes_of(text), [*instruments, failed])
    except (PassFailedException, VerifyException) as error:
        raise UserError("pass-failed", str(error), where=f"pass {failed.name}") from error


def passes_of(text: str) -> Sequence[ModulePass]:
    """The passes of a pipeline string: ours and xDSL's.

    Raises:
        UserError: ``pipeline``: it cannot be parsed, or names no pass, or an option that a pass has not.
    """
    from xdsl.transforms import get_all_passes

    try:
        return PassPipeline.parse_spec({**get_all_passes(), **NPUC_UNIVERSE.all_passes}, text).passes
    except (ValueError, ArgSpecParseError) as error:
        raise pipeline_error(error) from error


def finish_phase(module: ModuleOp, name: str) -> None:
    """Marks the phase and checks the module against its legality table.

    Raises:
        UserError: listing the violations.
    """
    module.attributes[PHASE_ATTRIBUTE] = StringAttr(name)
    try:
        module.verify()
        check_phase(module, name)
    except (VerifyException, PassFailedException) as error:
        raise UserError("illegal-ir", str(error), where=f"after phase {name}") from error


def phase_of(module: ModuleOp) -> str:
    """The phase a module is in.

    Raises:
        UserError: when it does not say.
    """
    attr = module.attributes.get(PHASE_ATTRIBUTE)
    if not isinstance(attr, StringAttr) or attr.data not in PHASES:
        raise UserError(
            "phase", "the module has no npuc.phase", remedy="give it one, or use a dump of irc compile"
        )
    return attr.data


def context() -> Context:
    """A context that knows all dialects."""
    from xdsl.dialects.builtin import Builtin
    from xdsl.dialects.func import Func

    ctx = Context()
    ctx.load_dialect(Builtin)
    ctx.load_dialect(Func)
    for factory in NPUC_UNIVERSE.all_dialects.values():
        ctx.load_dialect(factory())
    return ctx
