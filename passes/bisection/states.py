"""The states of a compile: the module after each pass, and the encoded programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from npuc.ir.errors import UserError
from npuc.passes.bisection.stored import Stored
from npuc.passes.buckets import Bucket
from npuc.passes.emit import emit_programs
from npuc.passes.instrumentation import Instrument
from npuc.passes.pipeline import Observer, Quantize, lower, phase_of
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

ENCODER, ARTIFACT = "encode", "artifact"
"""What stands for a pass in the last states: the encoder, and what an artifact's files hold."""


@dataclass(frozen=True)
class State:
    """A module on its way.

    Attributes:
        phase: that it belongs to.
        step: the pass that made it, None for where the compile begins and for the encoder.
        module: not to be changed.
        encoded: whether the module's programs are to be run as they are encoded.
        stored: the artifact whose programs are to be run instead.
    """

    phase: str
    step: ModulePass | None
    module: ModuleOp
    encoded: bool = False
    stored: Stored | None = None

    @property
    def name(self) -> str:
        """The pass, or what stands for one."""
        if self.stored is not None:
            return ARTIFACT
        return ENCODER if self.encoded else self.phase if self.step is None else self.step.name

    @property
    def rounds(self) -> bool:
        """Whether its pass is meant to change values: those after it are compared with what it leaves."""
        return bool(getattr(self.step, "rounds_values", False))


@dataclass(frozen=True)
class Failure:
    """A pass that does not finish, or leaves a module that is not legal.

    Attributes:
        phase: that it belongs to.
        step: its name.
        error: what it says.
    """

    phase: str
    step: str
    error: UserError


@dataclass
class _Recorder(Instrument):
    """Keeps a copy of the module after each pass."""

    states: list[State]
    phase: str
    running: str = ""
    progress: Callable[[str], None] | None = None

    def enter(self, phase: str) -> None:
        self.phase = phase
        if self.progress:
            self.progress(phase)

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        self.running = step.name

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        self.states.append(State(self.phase, step, module.clone()))


@dataclass
class History:
    """How far a compile came.

    Attributes:
        states: in order; the first is where it began.
        failure: why there are no more.
    """

    states: list[State] = field(default_factory=list[State])
    failure: Failure | None = None


def crash(error: Exception) -> UserError:
    """An error that a pass should not have raised, in one line."""
    return UserError("crash", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def history_of(
    module: ModuleOp,
    target: str,
    buckets: Sequence[Bucket],
    progress: Callable[[str], None] | None = None,
    *,
    quantize: Quantize | None = None,
    tensor_parallel: int = 1,
) -> History:
    """Compiles a module, which is used up, from its phase to encoded programs, as far as that goes."""
    phase = phase_of(module)
    history = History([State(phase, None, module.clone())])
    recorder = _Recorder(history.states, phase, progress=progress)
    observer = Observer(progress=recorder.enter, instruments=[recorder])
    try:
        lower(module, target, buckets, quantize=quantize, tensor_parallel=tensor_parallel, observer=observer)
        recorder.enter("emit")
        recorder.running = ENCODER
        emit_programs(module, target)
        history.states.append(State("emit", None, module, encoded=True))
    except Exception as error:  # a pass may fail in any way
        known = error if isinstance(error, UserError) else crash(error)
        history.failure = Failure(recorder.phase, recorder.running, known)
    return history
