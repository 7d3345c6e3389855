"""Parser of machine descriptions: ``.npu`` text → the records of backends/declarations.py.

The grammar is machine.lark. Nothing here has a meaning yet: backends/builder.py checks the names and builds
the model. Every record keeps its position, so that later errors can name file, line and column.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NoReturn

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken
from npuc.backends.declarations import (
    CommandDecl,
    CommandItem,
    Description,
    Expr,
    FieldDecl,
    FormatDecl,
    GroupDecl,
    LimitDecl,
    MemoryDecl,
    NamedNumber,
    PortDecl,
    Position,
    StageDecl,
    TypeDecl,
    UnitsDecl,
    fail,
)

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


_EXPR_KINDS = {
    "literal": "literal",
    "text": "text",
    "name": "name",
    "call": "call",
    "conditional": "if",
    "either": "or",
    "both": "and",
    "negation": "not",
    "minus": "minus",
    "comparison": "compare",
    "sum": "arithmetic",
    "product": "arithmetic",
}
_PRECEDENCE = {"==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "+": 4, "-": 4, "*": 5, "/": 5, "%": 5}


class _Node:
    """A parse tree node with typed access to its children."""

    def __init__(self, tree: Tree[Token], file: str) -> None:
        self.tree = tree
        self.file = file
        self.name = str(tree.data)
        meta = tree.meta
        self.position = Position(file, *((1, 1) if meta.empty else (meta.line, meta.column)))

    def __len__(self) -> int:
        return len(self.tree.children)

    def has(self, index: int) -> bool:
        return self.tree.children[index] is not None  # pyright: ignore[reportUnnecessaryComparison]

    def node(self, index: int) -> _Node:
        child = self.tree.children[index]
        assert isinstance(child, Tree)
        return _Node(child, self.file)

    def nodes(self) -> list[_Node]:
        return [_Node(child, self.file) for child in self.tree.children if isinstance(child, Tree)]

    def word(self, index: int) -> str:
        token = self.tree.children[index]
        assert isinstance(token, Token)
        return token[1:-1] if token.type == "STRING" else str(token)

    def words(self, start: int = 0) -> tuple[str, ...]:
        return tuple(str(child) for child in self.tree.children[start:] if isinstance(child, Token))

    def integer(self, index: int) -> int:
        return int(self.word(index), 0)


def _number(node: _Node) -> float:
    text = "".join(node.words())
    return float(text) if "." in text else int(text, 0)


def _cite(node: _Node) -> str:
    if node.name == "cited":
        return node.word(0)
    return f"assumed: {node.word(0)}" if len(node) and node.has(0) else "assumed"


def _optional_cite(node: _Node, index: int) -> str:
    return _cite(node.node(index)) if node.has(index) else ""


def _show(kind: str, value: float | str, args: tuple[Expr, ...]) -> str:
    """Expression text, with parentheses only where needed."""
    texts = [arg.text for arg in args]
    if kind in ("literal", "name"):
        return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
    if kind == "text":
        return f'"{value}"'
    if kind == "call":
        return f"{value}({', '.join(texts)})"
    if kind == "if":
        return f"if {texts[0]} then {texts[1]} else {texts[2]}"
    if kind in ("not", "minus"):
        return f"{'not ' if kind == 'not' else '-'}{_wrap(args[0], 6)}"
    if kind in ("and", "or"):
        level = 2 if kind == "and" else 1
        return f"{_wrap(args[0], level)} {kind} {_wrap(args[1], level + 1)}"
    level = _PRECEDENCE[str(value)]
    return f"{_wrap(args[0], level)} {value} {_wrap(args[1], level + 1)}"


def _wrap(arg: Expr, level: int) -> str:
    own = {"if": 0, "or": 1, "and": 2, "not": 2, "minus": 6}.get(arg.kind)
    if own is None:
        own = _PRECEDENCE.get(str(arg.value), 9) if arg.kind in ("compare", "arithmetic") else 9
    return arg.text if own >= level else f"({arg.text})"


def _expr(node: _Node) -> Expr:
    kind = _EXPR_KINDS[node.name]
    value: float | str = ""
    if kind == "literal":
        value = _number(node.node(0))
    elif kind in ("text", "name", "call"):
        value = node.word(0)
    elif kind in ("compare", "arithmetic"):
        value = node.word(1)
    args = () if kind == "literal" else tuple(_expr(child) for child in node.nodes())
    return Expr(kind, value, args, node.position, _show(kind, value, args))


def _properties(nodes: list[_Node]) -> tuple[dict[str, str], dict[str, NamedNumber]]:
    words: dict[str, str] = {}
    numbers: dict[str, NamedNumber] = {}
    for node in nodes:
        name = node.word(0)
        if name in words or name in numbers:
            fail(node.position, f"property '{name}' is given twice", "remove one of them")
        if node.name == "word_property":
            words[name] = node.word(1)
            continue
        scale = UNITS[node.word(2)] if node.has(2) else 1
        numbers[name] = NamedNumber(name, _number(node.node(1)) * scale, _cite(node.node(3)), node.position)
    return words, numbers


def _memory(node: _Node) -> MemoryDecl:
    words, numbers = _properties(node.nodes())
    return MemoryDecl(node.word(0), node.has(1), node.word(2), words, numbers, node.position)


def _link(node: _Node) -> MemoryDecl:
    words, numbers = _properties(node.nodes())
    ends = (node.word(0), node.word(1))
    return MemoryDecl("-".join(ends), False, node.word(2), words, numbers, node.position, ends)


def _field(node: _Node) -> FieldDecl:
    default: float | str | None = None
    if node.has(4):
        given = node.node(4)
        default = given.word(0) if given.name == "default_name" else _number(given)
    bounds = [_number(node.node(i).node(0)) if node.has(i) else None for i in (5, 6)]
    count = node.integer(1) if node.has(1) else None
    return FieldDecl(
        node.word(0), count, node.word(2), node.has(3), default, bounds[0], bounds[1], node.word(7),
        _optional_cite(node, 8), node.position,
    )  # fmt: skip


def _port(node: _Node) -> PortDecl:
    typed = node.name == "typed_port"
    types = node.node(3).words() if typed else ()
    rest = 4 if typed else 3
    return PortDecl(
        node.word(0), node.word(1), node.node(2).words(), types, node.word(rest), node.word(rest + 1),
        node.word(rest + 2), _optional_cite(node, rest + 3), node.position,
    )  # fmt: skip


def _limit(node: _Node) -> LimitDecl:
    condition = _expr(node.node(1)) if node.has(1) else None
    return LimitDecl(_expr(node.node(0)), condition, node.word(2), _cite(node.node(3)), node.position)


def _group(node: _Node) -> GroupDecl:
    units = tuple((unit.word(0), unit.words(1)) for unit in node.nodes() if unit.name == "unit")
    return GroupDecl(node.word(0), node.has(1), _optional_cite(node, 2), units)


def _units(node: _Node) -> UnitsDecl:
    groups = tuple(_group(group) for group in node.nodes()[1:])
    return UnitsDecl(node.word(0), groups, _cite(node.node(1)), node.position)


def _item(node: _Node) -> CommandItem:
    if node.name == "field":
        return _field(node)
    if node.name == "limit":
        return _limit(node)
    return _units(node) if node.name == "units" else _port(node)


def _stage(node: _Node, command: CommandDecl) -> None:
    name = node.word(0)
    cycles, source = None, ""
    for item in node.nodes():
        if item.name == "cycles":
            cycles, source = _expr(item.node(0)), _optional_cite(item, 1)
        elif item.name in ("field", "limit", "units", "typed_port", "plain_port"):
            command.items.append((name, _item(item)))
    condition = _expr(node.node(2)) if node.has(2) else None
    command.stages.append(
        StageDecl(name, node.word(1), condition, node.word(3), cycles, source, node.position)
    )


def _command(node: _Node) -> CommandDecl:
    command = CommandDecl(node.word(0), node.word(1), node.word(2), node.position)
    for item in node.nodes():
        match item.name:
            case "opcode":
                command.opcode = item.integer(0)
            case "uses_format":
                command.format = item.word(0)
            case "uses_queues":
                command.queues = item.words()
            case "base":
                command.base = _expr(item.node(0))
            case "drain":
                command.drain = _expr(item.node(0))
            case "let":
                command.lets.append((item.word(0), _expr(item.node(1))))
            case "stage":
                _stage(item, command)
            case _:
                command.items.append(("", _item(item)))
    return command


def _named(node: _Node, value: float, cite: int, doc: str = "") -> NamedNumber:
    return NamedNumber(node.word(0), value, _cite(node.node(cite)), node.position, doc)


def _statement(node: _Node, out: Description) -> None:
    match node.name:
        case "machine":
            out.name, out.doc = node.word(0), node.word(1)
        case "clock":
            value = _number(node.node(0))
            out.clock = NamedNumber("clock", value, _cite(node.node(1)), node.position)
        case "level":
            out.levels.append(_named(node, node.integer(1), 2))
        case "memory":
            out.memories.append(_memory(node))
        case "link":
            out.links.append(_link(node))
        case "element_type":
            macs = node.integer(3) if node.has(3) else 0
            source = _cite(node.node(5))
            out.types.append(
                TypeDecl(
                    node.word(0), node.word(1), node.integer(2), macs, node.has(4), source, node.position
                )
            )
        case "queue":
            out.queues.append(
                NamedNumber(node.word(0), node.integer(1), _cite(node.node(3)), node.position, node.word(2))
            )
        case "counts":
            out.counts[node.word(0)] = _named(node, node.integer(1), 2)
        case "param":
            out.params.append(_named(node, _number(node.node(1)), 3, node.word(2)))
        case "format":
            lengths = [node.integer(i) for i in (1, 2, 3)]
            out.formats.append(
                FormatDecl(node.word(0), *lengths, source=_cite(node.node(4)), position=node.position)
            )
        case _:
            out.commands.append(_command(node))


@cache
def _grammar() -> Lark:
    text = Path(__file__).with_name("machine.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", propagate_positions=True, maybe_placeholders=True)


def _syntax_error(error: UnexpectedInput, file: str, text: str) -> NoReturn:
    at = Position(file, error.line, error.column)
    if isinstance(error, UnexpectedEOF) or (
        isinstance(error, UnexpectedToken) and error.token.type == "$END"
    ):
        lines = text.split("\n")
        at = Position(file, len(lines), len(lines[-1]) + 1)
        fail(at, "the file ends inside a declaration", "complete the declaration, or add the missing '}'")
    if isinstance(error, UnexpectedCharacters):
        found = text.split("\n")[error.line - 1][error.column - 1 : error.column]
        fail(at, f"unexpected character '{found}'", "see docs/machine-description.md for the syntax")
    assert isinstance(error, UnexpectedToken)
    expected = sorted(_terminal(name) for name in error.accepts or error.expected)
    shown = ", ".join(expected[:12]) + (", …" if len(expected) > 12 else "")
    fail(at, f"unexpected '{error.token}'", f"write one of: {shown}")


def _terminal(name: str) -> str:
    """A terminal's spelling, for messages."""
    spelled = {"NAME": "a name", "STRING": "a quoted text", "INT": "an integer", "FLOAT": "a number"}
    if name in spelled or name == "$END":
        return spelled.get(name, "the end")
    pattern = _grammar().get_terminal(name).pattern
    words = re.sub(r"\\b$|[()]", "", pattern.value).split("|") if pattern.type == "re" else [pattern.value]
    return " or ".join(f"'{word}'" for word in words)


def parse_description(text: str, file: str) -> Description:
    """Parse machine description text.

    Args:
        text: the description.
        file: the name that errors give.

    Raises:
        UserError: with kind ``machine-description``, naming file, line and column of a syntax error.
    """
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        _syntax_error(error, file, text)
    out = Description(file)
    for node in _Node(tree, file).nodes():
        _statement(node, out)
    return out
