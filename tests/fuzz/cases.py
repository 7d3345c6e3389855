"""What is generated and checked: a module, and what is done to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from differential import (
    TARGETS,
    Compile,
    Fault,
    check_compile,
    check_encoding,
    check_function,
    check_passes,
    check_schedule,
    check_text,
    parse,
)
from graph_functions import functions
from graph_models import models
from hypothesis import strategies as st
from npu_programs import npu_modules
from npuc.ir.errors import UserError
from npuc.ir.printing import print_ir
from npuc.passes.partition import check_ranks
from npuc.passes.pipeline import phase_pipelines
from npuc.passes.target_option import machine_of
from tile_programs import tile_modules
from xdsl.dialects.builtin import ModuleOp

BUCKETS = (
    ("decode_1x1",),
    ("decode_1x5",),
    ("prefill_1x3",),
    ("prefill_2x7", "decode_2x9"),
    ("extend_1x2x9", "decode_3x17"),
    ("prefill_1x16",),
    ("extend_2x3x65",),
    ("prefill_1x1", "extend_1x1x1"),
    ("prefill_1x65",),
)
EVERYWHERE = ("canonicalize", "cse")
"""Passes of xDSL that users run between ours."""


@dataclass(frozen=True)
class Case:
    """A module's text and what is done to it: a compile, or passes one after the other.

    Attributes:
        how: a `Compile` as text; ``passes NAME,…`` of a model, ``function NAME,…`` of a function;
            ``schedule TARGET`` of a `tile` module, ``encode TARGET`` of an `npu` module.
    """

    text: str
    how: str

    def check(self, module: ModuleOp | None = None) -> None:
        """Raises `Fault` or `Refused`; ``module`` takes the place of the text."""
        module = module or parse(self.text)
        word, _, rest = self.how.partition(" ")
        if word == "function":
            check_function(module, rest.split(","))
        elif word == "schedule":
            check_schedule(module, TARGETS[rest])
        elif word == "encode":
            check_encoding(module, TARGETS[rest])
        elif word == "passes":
            check_text(module, "import")
            check_passes(module, rest.split(","), Compile("rngd", ("extend_2x3x9",)).evaluator(module))
        else:
            check_compile(module, Compile.parse(self.how))

    def __repr__(self) -> str:
        return f"{self.how}\n{self.text}"


def anywhere() -> tuple[str, ...]:
    """The passes that take any module of symbolic sizes: those of phase `optimize`, and xDSL's."""
    own = phase_pipelines("rngd", [])["optimize"].split(",")
    return (*own, *EVERYWHERE)


def _runs_ranks(target: str) -> bool:
    try:
        check_ranks(machine_of(TARGETS[target]), 2)
    except UserError:
        return False
    return True


@st.composite
def compiles(draw: st.DrawFn, target: str, *, small: bool = False) -> Case:
    """A model and a compile of it; a small one has one bucket and at most two layers."""
    buckets = draw(st.sampled_from([b for b in BUCKETS if not small or len(b) == 1]))
    ranks = draw(st.sampled_from([1, 1, 1, 2, 4])) if _runs_ranks(target) else 1
    scheme = draw(st.sampled_from(["", "", "", "w8a16"])) if ranks == 1 else ""
    how = Compile(target, buckets, ranks, scheme)
    return Case(print_ir(draw(models(2 if small else 4))), str(how))


@st.composite
def pass_orders(draw: st.DrawFn) -> Case:
    """A model and passes in any order, some of them twice."""
    names = draw(st.lists(st.sampled_from(anywhere()), min_size=1, max_size=6))
    return Case(print_ir(draw(models(2))), f"passes {','.join(names)}")


@st.composite
def function_passes(draw: st.DrawFn, dialect: str) -> Case:
    """A function and passes that take any."""
    names = [*anywhere(), *(("lower-nquant{target=rngd}",) if dialect == "nquant" else ())]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4))
    return Case(print_ir(draw(functions(dialect))), f"function {','.join(chosen)}")


@st.composite
def schedules(draw: st.DrawFn, target: str) -> Case:
    """A `tile` module for a target, through phase `schedule`."""
    return Case(print_ir(draw(tile_modules(target))), f"schedule {target}")


@st.composite
def encodings(draw: st.DrawFn, target: str) -> Case:
    """A program of random instructions of a target."""
    return Case(print_ir(draw(npu_modules(target))), f"encode {target}")


def signature(fault: Fault) -> str:
    """A fault without what differs from module to module: names and numbers."""
    words = re.sub(r"[%@'\"][\w.{}#-]*|\([^()]*\)|-?\d[\w.x]*", "", str(fault))
    return " ".join(words.split())
