"""Elementwise `graph` operations as chains of vector steps."""

from __future__ import annotations

from math import pi, sqrt

from npuc.ir.tile import Step

MASKED = -3.0e38
"""Score of what is not attended to: finite, so that a row with nothing to attend to stays finite."""


def imm(op: str, value: float) -> Step:
    """A step with an immediate."""
    return Step(op, "imm", value)


def stash(op: str) -> Step:
    """A step with the value that was fetched."""
    return Step(op, "stash")


# 0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 x³))); Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
_TANH_SCALE = sqrt(2 / pi)

UNARY_STEPS: dict[str, tuple[Step, ...]] = {
    "neg": (imm("mul", -1.0),),
    "abs": (Step("abs"),),
    "exp": (Step("exp"),),
    "log": (Step("log"),),
    "sqrt": (Step("sqrt"),),
    "rsqrt": (Step("sqrt"), imm("rdiv", 1.0)),
    "reciprocal": (imm("rdiv", 1.0),),
    "sin": (Step("sin"),),
    "cos": (Step("cos"),),
    "tanh": (Step("tanh"),),
    "sigmoid": (Step("sigmoid"),),
    "erf": (Step("erf"),),
    "floor": (Step("floor"),),
    "relu": (imm("max", 0.0),),
    "silu": (Step("sigmoid"), stash("mul")),
    "gelu": (imm("mul", sqrt(0.5)), Step("erf"), imm("add", 1.0), stash("mul"), imm("mul", 0.5)),
    "gelu_tanh": (
        stash("mul"),
        imm("mul", 0.044715 * _TANH_SCALE),
        imm("add", _TANH_SCALE),
        stash("mul"),
        Step("tanh"),
        imm("add", 1.0),
        stash("mul"),
        imm("mul", 0.5),
    ),
    "not": (imm("rsub", 1.0),),
}

BINARY_STEP: dict[str, str] = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "maximum": "max", "minimum": "min",
    "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge", "and": "and", "or": "or",
}  # fmt: skip

# op(constant, x) as a step on x.
REVERSED_STEP: dict[str, str] = {
    "add": "add", "sub": "rsub", "mul": "mul", "div": "rdiv", "maximum": "max", "minimum": "min",
    "eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "and": "and", "or": "or",
}  # fmt: skip


def power_steps(exponent: float) -> tuple[Step, ...] | None:
    """x to a constant power, where a few steps give it; None otherwise."""
    if exponent == 1.0:
        return ()
    if exponent == 2.0:
        return (stash("mul"),)
    if exponent == 3.0:
        return (stash("mul"), stash("mul"))
    if exponent == 0.5:
        return (Step("sqrt"),)
    if exponent == -0.5:
        return UNARY_STEPS["rsqrt"]
    if exponent == -1.0:
        return UNARY_STEPS["reciprocal"]
    return None


def constant_steps(op: str, value: float, reversed_: bool) -> tuple[Step, ...] | None:
    """op(x, value), or op(value, x) when reversed, as steps on x; None where there are none."""
    if op == "pow":
        return None if reversed_ else power_steps(value)
    if op == "floordiv" and not reversed_:
        return (imm("div", value), Step("floor"))
    if op == "mod" and not reversed_:
        return (imm("div", value), Step("floor"), imm("mul", value), stash("rsub"))
    table = REVERSED_STEP if reversed_ else BINARY_STEP
    return (imm(table[op], value),) if op in table else None
