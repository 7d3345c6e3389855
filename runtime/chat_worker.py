"""Renders one chat template in a process of its own, whose memory and time the system limits.

Run as a script: reads ``{"template", "variables", "limits"}`` from standard input, writes ``{"text"}`` or
``{"error"}`` to standard output. Imports nothing of this project. The environment is that of transformers'
``apply_chat_template``: whitespace control, ``tojson``, ``raise_exception``, ``strftime_now``, loop controls
and ``generation`` blocks.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class GenerationBlock(Extension):
    """``{% generation %}…{% endgeneration %}`` marks what the assistant says; it renders as its body."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox that templates are rendered in."""
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    env.filters["tojson"] = _to_json
    functions: dict[str, Any] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    env.globals.update(functions)
    return env


def render(template: str, variables: dict[str, Any], max_characters: int) -> str:
    """The rendered text.

    Raises:
        TemplateError: for a wrong template, one that refuses the messages, or too much text.
    """
    pieces: list[str] = []
    length = 0
    for piece in environment().from_string(template).generate(**variables):
        length += len(piece)
        if length > max_characters:
            raise TemplateError(f"the text is longer than {max_characters} characters")
        pieces.append(piece)
    return "".join(pieces)


def main() -> None:
    """Answers one request."""
    request = json.load(sys.stdin)
    limits = request["limits"]
    resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"], limits["seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_AS, (limits["bytes"], limits["bytes"]))
    try:
        answer = {"text": render(request["template"], request["variables"], limits["characters"])}
    except MemoryError:
        answer = {"error": f"it needs more than {limits['bytes'] >> 20} MiB of memory"}
    except Exception as error:  # a template can raise whatever the methods of its values raise
        answer = {"error": f"{error or type(error).__name__}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
