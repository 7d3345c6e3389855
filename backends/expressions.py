"""Compile description expressions to closures over a command's View.

The measures they may call are those of backends/measures.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from npuc.backends.declarations import Expr, fail
from npuc.backends.measures import MEASURES, SELECTORS, TEXTS, TRUTHS
from npuc.backends.model import Field, Number, Port, Truth
from npuc.backends.view import Selector, View

Value = Callable[[View], float | str]


@dataclass(frozen=True)
class Scope:
    """The names an expression may use: fields and ports of its command, parameters, earlier ``let``s."""

    fields: Mapping[str, Field]
    ports: Mapping[str, Port]
    params: Mapping[str, float]
    lets: Mapping[str, Number]


def over_field(expr: Expr, scope: Scope) -> str:
    """The tuple field that an expression mentions by bare name, "" for none; more than one is an error."""
    found = {e.value for e in _walk(expr) if e.kind == "name" and _is_tuple(str(e.value), scope)}
    if len(found) > 1:
        fail(expr.position, f"the limit mentions {len(found)} tuple fields", "write one limit for each")
    return str(found.pop()) if found else ""


def _is_tuple(name: str, scope: Scope) -> bool:
    return name in scope.fields and scope.fields[name].count is not None


def _walk(expr: Expr) -> list[Expr]:
    """The expression's nodes, without the arguments of calls (those are names of a closed set)."""
    inner = [] if expr.kind == "call" else [e for arg in expr.args for e in _walk(arg)]
    return [expr, *inner]


def leaves(expr: Expr, scope: Scope) -> tuple[tuple[str, Value], ...]:
    """The names and calls of an expression, whose values explain why it fails."""
    found = {e.text: e for e in _walk(expr) if e.kind in ("name", "call")}
    return tuple((text, compile_value(e, scope)) for text, e in found.items())


def compile_value(expr: Expr, scope: Scope) -> Value:
    """An expression of any kind; truths become 0 and 1."""
    if _is_truth(expr):
        truth = compile_truth(expr, scope)
        return lambda v: int(truth(v))
    return _text(expr, scope) if _is_text(expr, scope) else compile_number(expr, scope)


def _is_truth(expr: Expr) -> bool:
    return expr.kind in ("and", "or", "not", "compare") or (
        expr.kind in ("call", "name") and expr.value in TRUTHS
    )


def _is_text(expr: Expr, scope: Scope) -> bool:
    if expr.kind == "name" and expr.value in scope.fields:
        return scope.fields[str(expr.value)].kind == "enum"
    return expr.kind == "text" or (expr.kind in ("call", "name") and expr.value in TEXTS)


def _text(expr: Expr, scope: Scope) -> Value:
    if expr.kind == "text":
        text = str(expr.value)
        return lambda v: text
    if expr.value in scope.fields:
        name = str(expr.value)
        return lambda v: v.scalar(name)
    return _call(expr, scope)  # type: ignore[return-value]


def compile_truth(expr: Expr, scope: Scope) -> Truth:
    """An expression that must be true or false.

    Raises:
        UserError: when it is a number or a name, or mentions something that does not exist.
    """
    if expr.kind in ("and", "or"):
        a, b = (compile_truth(arg, scope) for arg in expr.args)
        return (lambda v: a(v) and b(v)) if expr.kind == "and" else (lambda v: a(v) or b(v))
    if expr.kind == "not":
        inner = compile_truth(expr.args[0], scope)
        return lambda v: not inner(v)
    if expr.kind == "compare":
        return _compare(expr, scope)
    if expr.value in TRUTHS:
        return _call(expr, scope)  # type: ignore[return-value]
    fail(expr.position, f"'{expr.text}' is not true or false", "compare it with something, e.g. '> 0'")


def _compare(expr: Expr, scope: Scope) -> Truth:
    a, b = expr.args
    op = str(expr.value)
    if _is_text(a, scope) or _is_text(b, scope):
        if not (_is_text(a, scope) and _is_text(b, scope) and op in ("==", "!=")):
            fail(
                expr.position,
                f"'{expr.text}' compares a name",
                "names allow == and != with a quoted name only",
            )
        x, y = _text(a, scope), _text(b, scope)
        return (lambda v: x(v) == y(v)) if op == "==" else (lambda v: x(v) != y(v))
    p, q = compile_number(a, scope), compile_number(b, scope)
    table: dict[str, Truth] = {
        "==": lambda v: p(v) == q(v),
        "!=": lambda v: p(v) != q(v),
        "<": lambda v: p(v) < q(v),
        "<=": lambda v: p(v) <= q(v),
        ">": lambda v: p(v) > q(v),
        ">=": lambda v: p(v) >= q(v),
    }
    return table[op]


def compile_number(expr: Expr, scope: Scope) -> Number:
    """A numeric expression.

    Raises:
        UserError: when it is no number, or mentions something that does not exist.
    """
    if expr.kind == "literal":
        number = float(expr.value) if isinstance(expr.value, float) else int(expr.value)
        return lambda v: number
    if expr.kind == "name":
        return _name(expr, scope)
    if expr.kind == "call" and expr.value not in TEXTS | TRUTHS:
        return _call(expr, scope)  # type: ignore[return-value]
    if expr.kind == "minus":
        inner = compile_number(expr.args[0], scope)
        return lambda v: -inner(v)
    if expr.kind == "if":
        condition = compile_truth(expr.args[0], scope)
        then, other = (compile_number(arg, scope) for arg in expr.args[1:])
        return lambda v: then(v) if condition(v) else other(v)
    if expr.kind == "arithmetic":
        return _arithmetic(expr, scope)
    fail(expr.position, f"'{expr.text}' is not a number", "use it in a comparison or after 'if'")


def _arithmetic(expr: Expr, scope: Scope) -> Number:
    a, b = (compile_number(arg, scope) for arg in expr.args)
    if expr.value in ("/", "%"):
        where = expr.position

        def divide(view: View) -> float:
            divisor = b(view)
            if divisor == 0:
                fail(where, f"'{expr.args[1].text}' is zero", "guard the division with 'if' or max(..., 1)")
            return a(view) / divisor if expr.value == "/" else a(view) % divisor

        return divide
    table: dict[str, Number] = {
        "+": lambda v: a(v) + b(v),
        "-": lambda v: a(v) - b(v),
        "*": lambda v: a(v) * b(v),
    }
    return table[str(expr.value)]


def _name(expr: Expr, scope: Scope) -> Number:
    name = str(expr.value)
    if name in scope.params:
        constant = scope.params[name]
        return lambda v: constant
    if name in scope.lets:
        return scope.lets[name]
    if name in scope.fields:
        if scope.fields[name].kind == "enum":
            fail(expr.position, f"field '{name}' is a name, not a number", 'compare it, e.g. == "none"')
        return lambda v: v.scalar(name)  # type: ignore[return-value]
    if name in MEASURES and not MEASURES[name].arguments and name not in TEXTS | TRUTHS:
        return _call(expr, scope)  # type: ignore[return-value]
    known = sorted([*scope.params, *scope.lets, *scope.fields])
    fail(
        expr.position, f"unknown name '{name}'", f"declare it before its use; known here: {', '.join(known)}"
    )


def _call(expr: Expr, scope: Scope) -> Callable[[View], float | str | bool]:
    name = str(expr.value)
    if name not in MEASURES:
        fail(expr.position, f"unknown measure '{name}'", f"the measures are {', '.join(sorted(MEASURES))}")
    kinds, function, _ = MEASURES[name]
    if kinds in ("ports", "names"):
        return {"ports": _run_call, "names": _count_call}[kinds](expr, scope)
    wanted = kinds.split()
    if wanted[-1:] == ["selectors"]:
        wanted[-1:] = ["selector"] * (len(expr.args) - len(wanted) + 1)
    if len(wanted) != len(expr.args):
        fail(
            expr.position,
            f"{name} takes {len(wanted)} arguments, {len(expr.args)} are given",
            f"write {name}({', '.join(kinds.split())})",
        )
    if not wanted:
        return lambda v: function(v)
    args = [_argument(kind, arg, scope) for kind, arg in zip(wanted, expr.args, strict=True)]
    if len(args) == 1:
        (one,) = args
        return lambda v: function(v, one(v))
    return lambda v: function(v, *[arg(v) for arg in args])


def _argument(kind: str, arg: Expr, scope: Scope) -> Callable[[View], float | str | Selector]:
    if kind == "number":
        return compile_number(arg, scope)
    if kind == "selector":
        selector = _selector(arg, scope)
        return lambda v: selector
    name = _port(arg, scope) if kind == "port" else _field(arg, scope)
    return lambda v: name


def _port(arg: Expr, scope: Scope) -> str:
    if arg.kind != "name" or arg.value not in scope.ports:
        fail(arg.position, f"'{arg.text}' is not a port", f"the ports here are {', '.join(scope.ports)}")
    return str(arg.value)


def _field(arg: Expr, scope: Scope) -> str:
    if arg.kind != "name" or arg.value not in scope.fields:
        fail(arg.position, f"'{arg.text}' is not a field", f"the fields here are {', '.join(scope.fields)}")
    return str(arg.value)


def _selector(arg: Expr, scope: Scope) -> Selector:
    if arg.kind == "name" and arg.value in SELECTORS:
        return SELECTORS[str(arg.value)]
    if arg.kind == "call" and arg.value in ("moves", "rests") and len(arg.args) == 1:
        port = _port(arg.args[0], scope)
        if arg.value == "moves":
            return lambda v, d: v.stride(port, d) != 0
        return lambda v, d: v.stride(port, d) == 0
    fail(arg.position, f"'{arg.text}' selects no dimensions", "use reduced, kept, moves(PORT) or rests(PORT)")


def _run_call(expr: Expr, scope: Scope) -> Number:
    ports = [str(arg.value) for arg in expr.args if arg.kind == "name" and arg.value in scope.ports]
    selectors = tuple(_selector(arg, scope) for arg in expr.args[len(ports) :])
    if not ports:
        fail(expr.position, "run names no port", "write run(PORT)")
    return lambda v: v.run(*ports, selectors=selectors)


def _count_call(expr: Expr, scope: Scope) -> Number:
    if not expr.args:
        fail(expr.position, "count names no field", 'write count(FIELD, "name", …)')
    field = _field(expr.args[0], scope)
    declared = scope.fields[field]
    for arg in expr.args[1:]:
        if arg.kind != "text" or arg.value not in declared.names:
            fail(
                arg.position,
                f"'{arg.text}' is no value of {field}",
                f"the values are {', '.join(declared.names)}, in quotes",
            )
    wanted = frozenset(str(arg.value) for arg in expr.args[1:])
    return lambda v: v.count(field, wanted)
