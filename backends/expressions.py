"""Compile description expressions to closures over a command's View.

The builtin measures are a closed set, listed in BUILTINS with the kinds of their arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from npuc.backends.description import Expr, fail
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


def access_width(length: float, widest: float) -> int:
    """The largest power of two, at most ``widest`` bytes, that divides ``length`` bytes."""
    width = 1
    while width * 2 <= widest and int(length) % (width * 2) == 0:
        width *= 2
    return width


# Builtin measures: name → (argument kinds, function of the view and the compiled arguments, meaning).
BUILTINS: dict[str, tuple[str, Callable[..., float | str | bool], str]] = {
    "steps": ("", View.size, "product of all extents"),
    "slices": ("", lambda v: v.machine.slices, "slices of a core"),
    "queue": ("", lambda v: v.instruction.queue, "name of the queue"),
    "narrow": ("", View.narrow, "whether the chain uses a half-width unit"),
    "accumulators": ("", View.accumulators, "results alive at once"),
    "chain_length": ("", lambda v: len(v.chain_ops()), "operations of the chain"),
    "size": ("selectors", View.size, "product of the selected extents"),
    "extent": ("field", lambda v, f: _extent(v, f), "extent of the dimension that the field names, or 1"),
    "used": ("port", View.used, "whether the port is used"),
    "bits": ("port", View.bits, "bits of the port's elements"),
    "macs": ("port", View.macs, "multiply-accumulates per cycle and slice in the port's type"),
    "elements": ("port", View.elements, "distinct elements of the port"),
    "alignment": ("port", View.alignment, "greatest common divisor of base, run and outer strides in bytes"),
    "first": ("port", View.first, "lowest byte address of the port"),
    "last": ("port", View.last, "highest byte address of the port"),
    "space": ("port", View.space, "bytes of the address space of the port"),
    "memory": ("port", lambda v, p: v.memory(p).name, "the memory that the port addresses"),
    "type": ("port", View.type_name, "element type of the port"),
    "granule": ("port", lambda v, p: v.memory(p).write_granule, "write granule of the port's memory"),
    "read_alignment": ("port", lambda v, p: v.memory(p).read_alignment, "read alignment of its memory"),
    "run": (
        "ports",
        lambda v, ports, selectors: v.run(*ports, selectors=selectors),
        "elements at the inner end of the nest that are contiguous in all the ports",
    ),
    "fetches": ("port number number", View.fetches, "elements fetched, for (port, bytes held, lanes)"),
    "bytes": ("port number", View.bytes, "bytes of so many elements of the port"),
    "access": ("number number", lambda v, a, b: access_width(a, b), "largest power of two up to the second "
               "that divides the first"),
    "count": ("names", View.count, "entries of the field that are among the names"),
    "constant": ("field", lambda v, f: not isinstance(v.value(f), tuple), "whether no register is added"),
    "min": ("number number", lambda v, a, b: min(a, b), "the smaller"),
    "max": ("number number", lambda v, a, b: max(a, b), "the larger"),
    "ceil": ("number", lambda v, a: math.ceil(a), "rounded up"),
    "floor": ("number", lambda v, a: math.floor(a), "rounded down"),
}  # fmt: skip
_TRUTHS = {"used", "narrow", "constant"}
_TEXTS = {"queue", "memory", "type"}
_SELECTORS: dict[str, Selector] = {
    "reduced": lambda v, d: d in v.reduced,
    "kept": lambda v, d: d not in v.reduced,
}


def _extent(view: View, field: str) -> int:
    dim = view.dimension(field)
    return view.sizes[dim] if 0 <= dim < len(view.sizes) else 1


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
        expr.kind in ("call", "name") and expr.value in _TRUTHS
    )


def _is_text(expr: Expr, scope: Scope) -> bool:
    if expr.kind == "name" and expr.value in scope.fields:
        return scope.fields[str(expr.value)].kind == "enum"
    return expr.kind == "text" or (expr.kind in ("call", "name") and expr.value in _TEXTS)


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
    if expr.value in _TRUTHS:
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
    if expr.kind == "call" and expr.value not in _TEXTS | _TRUTHS:
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
    if name in BUILTINS and BUILTINS[name][0] == "" and name not in _TEXTS | _TRUTHS:
        return _call(expr, scope)  # type: ignore[return-value]
    known = sorted([*scope.params, *scope.lets, *scope.fields])
    fail(
        expr.position, f"unknown name '{name}'", f"declare it before its use; known here: {', '.join(known)}"
    )


def _call(expr: Expr, scope: Scope) -> Callable[[View], float | str | bool]:
    name = str(expr.value)
    if name not in BUILTINS:
        fail(expr.position, f"unknown measure '{name}'", f"the measures are {', '.join(sorted(BUILTINS))}")
    kinds, function, _ = BUILTINS[name]
    if kinds in ("selectors", "ports", "names"):
        return {"selectors": _size_call, "ports": _run_call, "names": _count_call}[kinds](expr, scope)
    wanted = kinds.split()
    if len(wanted) != len(expr.args):
        fail(
            expr.position,
            f"{name} takes {len(wanted)} arguments, {len(expr.args)} are given",
            f"write {name}({', '.join(wanted)})",
        )
    if not wanted:
        return lambda v: function(v)
    args = [_argument(kind, arg, scope) for kind, arg in zip(wanted, expr.args, strict=True)]
    if len(args) == 1:
        (one,) = args
        return lambda v: function(v, one(v))
    return lambda v: function(v, *[arg(v) for arg in args])


def _argument(kind: str, arg: Expr, scope: Scope) -> Value:
    if kind == "number":
        return compile_number(arg, scope)
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
    if arg.kind == "name" and arg.value in _SELECTORS:
        return _SELECTORS[str(arg.value)]
    if arg.kind == "call" and arg.value in ("moves", "rests") and len(arg.args) == 1:
        port = _port(arg.args[0], scope)
        if arg.value == "moves":
            return lambda v, d: v.stride(port, d) != 0
        return lambda v, d: v.stride(port, d) == 0
    fail(arg.position, f"'{arg.text}' selects no dimensions", "use reduced, kept, moves(PORT) or rests(PORT)")


def _size_call(expr: Expr, scope: Scope) -> Number:
    selectors = [_selector(arg, scope) for arg in expr.args]
    return lambda v: v.size(*selectors)


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
