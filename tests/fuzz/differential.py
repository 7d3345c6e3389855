"""What must hold of every generated module: it prints and parses back, passes keep what it computes.

A model goes through the whole pipeline to encoded programs on the simulator. After each pass the module
must be legal, print and parse back, and compute the logits of the module that was generated; the programs
must have no hazards. A pass may refuse a module in one line (`Refused`); all else is a `Fault`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from graph_builder import random_root
from npu_programs import lost_by_encoding
from npuc.frontends.weight_reader import WeightReader
from npuc.ir import graph
from npuc.ir.errors import UserError
from npuc.ir.interpret import Interpreter
from npuc.ir.lockstep import Lockstep
from npuc.ir.parsing import IRParser
from npuc.ir.printing import print_ir
from npuc.ir.torch_types import torch_type
from npuc.passes.bisection.states import crash
from npuc.passes.buckets import Bucket, parse_bucket
from npuc.passes.checking import compare_outputs
from npuc.passes.emit import emit_programs
from npuc.passes.evaluation import ENTRIES, Call, Evaluator, vocabulary
from npuc.passes.instrumentation import Instrument
from npuc.passes.pipeline import Observer, Quantize, context, lower, phase_pipelines, run_passes
from npuc.passes.reduction.random_values import random_tensor
from npuc.passes.simulation import Chip, simulated
from tile_programs import tile_outputs
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

TOY = str(Path(__file__).parents[1] / "toy" / "toy.npu")
TARGETS = {"rngd": "rngd", "toy": TOY}
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Of the largest logit."""
NOISE = 4.0
"""Passes may leave out roundings to bf16: what they change at most, over what all roundings of a model do."""
RANKS = 4
"""Ranks that run a function beside each other."""
PROMPT = 37
"""Tokens that the rows of a call start from."""


class Fault(Exception):
    """A compiler fault.

    Attributes:
        kind: ``crash``, ``invalid``, ``text``, ``values`` or ``hazard``.
        step: the pass after which it shows.
    """

    def __init__(self, kind: str, step: str, message: str) -> None:
        super().__init__(f"{kind} after {step}: {' '.join(message.split())[:400]}")
        self.kind, self.step = kind, step


class Refused(Exception):
    """A pass says in one line what it cannot do."""


@dataclass(frozen=True)
class Compile:
    """How a model is compiled.

    Attributes:
        target: a key of `TARGETS`.
        buckets: their names, as ``decode_1x16``.
        ranks: tensor parallelism.
        scheme: what weights are quantized to, "" for nothing.
    """

    target: str
    buckets: tuple[str, ...]
    ranks: int = 1
    scheme: str = ""

    @classmethod
    def parse(cls, text: str) -> Compile:
        """The inverse of `str`."""
        target, buckets, *rest = text.split()
        options = dict(part.split("=") for part in rest)
        return cls(target, tuple(buckets.split(",")), int(options.get("ranks", 1)), options.get("scheme", ""))

    def __str__(self) -> str:
        options = [f"ranks={self.ranks}"] * (self.ranks > 1) + [f"scheme={self.scheme}"] * bool(self.scheme)
        return " ".join([self.target, ",".join(self.buckets), *options])

    @property
    def parsed_buckets(self) -> list[Bucket]:
        return [parse_bucket(*name.split("_")) for name in self.buckets]

    @cached_property
    def quantize(self) -> Quantize | None:
        return Quantize(self.scheme, ()) if self.scheme else None

    def evaluator(self, module: ModuleOp) -> Evaluator:
        """Runs a module in any state of the compile."""
        size = vocabulary(module) or 1
        prompt = [token * 5 % size for token in range(PROMPT)]
        calls = [Call.of(bucket, prompt) for bucket in self.parsed_buckets]
        return Evaluator(random_root(), TARGETS[self.target], calls)


def dtype_of(module: ModuleOp) -> str:
    """The compile type of a model."""
    attribute = module.attributes["npuc.dtype"]
    assert isinstance(attribute, StringAttr)
    return attribute.data


def parse(text: str) -> ModuleOp:
    """A module from its text."""
    module = IRParser(context(), text).parse_module()
    module.verify()
    return module


def check_text(module: ModuleOp, step: str, *, generic: bool = False) -> None:
    """A module prints, parses back, and prints the same, in its own form or the generic one."""
    try:
        text = print_ir(module)
        again = print_ir(parse(print_ir(module, generic=True) if generic else text))
    except Exception as error:  # whatever it is, it must not happen
        raise Fault("text", step, str(crash(error))) from error
    if text != again:
        raise Fault("text", step, "the module prints otherwise after it was parsed")


class EachPass(Instrument):
    """Compares the outputs after each pass with those before all, unless the pass rounds values."""

    running, text = "import", ""

    def __init__(self, evaluator: Evaluator, module: ModuleOp) -> None:
        self.evaluator, self.tolerance = evaluator, TOLERANCE[dtype_of(module)]
        self.expected = self.outputs(module, "import")
        if dtype_of(module) == "bfloat16":
            wide = parse(
                print_ir(module, aliases=False).replace("bf16", "f32").replace("bfloat16", "float32")
            )
            noise = compare_outputs(self.outputs(wide, "import"), self.expected)
            self.tolerance = max(self.tolerance, NOISE * noise.max_rel_error)

    def outputs(self, module: ModuleOp, step: str) -> Mapping[str, Tensor]:
        try:
            return self.evaluator.outputs(module)
        except Exception as error:  # a module that a pass has made must run
            raise Fault("invalid", step, f"cannot be run: {crash(error)}") from error

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        self.running = step.name

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        try:
            module.verify()
        except Exception as error:
            raise Fault("invalid", step.name, str(error)) from error
        text = print_ir(module)
        if text == self.text:
            return
        self.text = text
        found = self.outputs(module, step.name)
        if getattr(step, "rounds_values", False):
            self.expected = found
        self.compare(found, step.name)

    def after_phase(self, phase: str, module: ModuleOp) -> None:
        check_text(module, self.running)

    def compare(self, found: Mapping[str, Tensor], step: str) -> None:
        figures = compare_outputs(found, self.expected)
        if figures.max_rel_error > self.tolerance:
            raise Fault("values", step, f"logits differ by {figures.max_rel_error:.3g} of the largest")


def check_compile(module: ModuleOp, how: Compile) -> None:
    """Compiles a module, which is used up.

    Raises:
        Fault: something is wrong.
        Refused: a pass cannot do it, and says so.
    """
    for generic in (False, True):
        check_text(module, "import", generic=generic)
    watch = EachPass(how.evaluator(module), module)
    target = TARGETS[how.target]
    with judging(watch):
        lower(
            module,
            target,
            how.parsed_buckets,
            quantize=how.quantize,
            tensor_parallel=how.ranks,
            observer=Observer(instruments=[watch]),
        )
    check_programs(module, target, watch)


@contextmanager
def judging(watch: EachPass) -> Generator[None]:
    """Runs passes: what they raise is a fault, or a refusal."""
    try:
        yield
    except Fault:
        raise
    except UserError as error:
        raise judged(error, watch.running) from error
    except Exception as error:  # a pass may fail in any way, but should not
        raise Fault("crash", watch.running, str(crash(error))) from error


def judged(error: UserError, step: str) -> Fault | Refused:
    """A refusal, if a pass says that it cannot; what leaves IR that is not legal is a fault."""
    if error.kind == "pass-failed" and isinstance(error.__cause__, PassFailedException):
        if "\n" not in str(error):
            return Refused(str(error))
    return Fault("invalid", step, str(error))


def check_programs(module: ModuleOp, target: str, watch: EachPass) -> None:
    """Programs encode, decode and run, and have no hazards."""
    try:
        emit_programs(module, target)
        watch.compare(simulated(watch.evaluator, module, encoded=True), "encode")
        hazards = list(hazards_of(module, watch.evaluator))
    except Fault:
        raise
    except Exception as error:  # what the compiler has made must run
        raise Fault("crash", "encode", str(crash(error))) from error
    if hazards:
        raise Fault("hazard", "insert-sync", hazards[0])


def hazards_of(module: ModuleOp, evaluator: Evaluator) -> Iterator[str]:
    """What the sanitizer finds in all calls of all programs."""
    chip = Chip(evaluator, module)
    programs = chip.load()
    for call in evaluator.calls:
        for entry in ENTRIES:
            program, io = programs[call.bucket.name]
            parameters = chip.prepare(call, io)
            for hazard in chip.simulator.run_ranks(program, entry, parameters, hazards=True).hazards:
                yield f"{call.bucket.name} {entry}: {hazard}"


def check_passes(module: ModuleOp, names: Sequence[str], evaluator: Evaluator) -> None:
    """Runs passes that need nothing but a module of phase `import`, each on what the one before left."""
    _run(module, names, EachPass(evaluator, module))


def _run(module: ModuleOp, names: Sequence[str], watch: EachPass) -> None:
    with judging(watch):
        run_passes(context(), module, ",".join(names), [watch])


class EachFunctionPass(EachPass):
    """Of a module with one function of static sizes: its results on random arguments, on every rank."""

    def __init__(self, module: ModuleOp) -> None:
        self.tolerance = 1e-4
        self.expected = self.outputs(module, "import")

    def outputs(self, module: ModuleOp, step: str) -> Mapping[str, Tensor]:
        (function,) = [op for op in module.ops if isinstance(op, FuncOp)]
        together = Lockstep(RANKS)

        def run(rank: int) -> list[Tensor]:
            interpreter = Interpreter(module, WeightReader(random_root()), None, None)
            interpreter.ranks = together, rank
            arguments = [
                random_tensor(f"{i} {rank}", graph.static_shape(a), torch_type(graph.element_of(a)))
                for i, a in enumerate(function.body.block.args)
            ]
            return interpreter.run(function.sym_name.data, arguments, None)

        try:
            results = together.run([partial(run, rank) for rank in range(RANKS)])
        except Exception as error:  # a module that a pass has made must run
            raise Fault("invalid", step, f"cannot be run: {crash(error)}") from error
        return {f"{rank} {i}": x.float() for rank, found in enumerate(results) for i, x in enumerate(found)}


class EachTilePass(EachPass):
    """Of a `tile` module of one program: what it leaves in main memory."""

    def __init__(self, module: ModuleOp, target: str) -> None:
        self.tolerance, self.target = 1e-5, target
        self.expected = self.outputs(module, "tile")

    def outputs(self, module: ModuleOp, step: str) -> Mapping[str, Tensor]:
        try:
            return tile_outputs(module, self.target)
        except AssertionError as error:
            raise Fault("hazard", step, str(error)) from error
        except Exception as error:  # a module that a pass has made must run
            raise Fault("invalid", step, f"cannot be run: {crash(error)}") from error

    def after_pass(self, step: ModulePass, module: ModuleOp) -> None:
        super().after_pass(step, module)
        check_text(module, step.name)


def check_schedule(module: ModuleOp, target: str) -> None:
    """Runs the passes of phase `schedule` on a `tile` module of one program, and the program."""
    for generic in (False, True):
        check_text(module, "tile", generic=generic)
    names = phase_pipelines(target, [])["schedule"]
    _run(module, [names], EachTilePass(module, target))


def check_encoding(module: ModuleOp, target: str) -> None:
    """A program prints and parses back, and is the same once encoded and decoded."""
    for generic in (False, True):
        check_text(module, "npu", generic=generic)
    try:
        lost = lost_by_encoding(module, target)
    except Exception as error:  # all its fields are in range
        raise Fault("crash", "encode", str(crash(error))) from error
    if lost is not None:
        raise Fault("values", "encode", f"{lost.command} is decoded as another instruction")


def check_function(module: ModuleOp, names: Sequence[str]) -> None:
    """Runs passes on a module with one function of static sizes."""
    for generic in (False, True):
        check_text(module, "import", generic=generic)
    _run(module, names, EachFunctionPass(module))
    check_text(module, names[-1])
