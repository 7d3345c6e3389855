"""Chat messages to text, with a model's own template: untrusted code, rendered in a sandbox with limits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from npuc.ir.errors import UserError

Message = Mapping[str, Any]

MAX_SECONDS = 5
MAX_BYTES = 1 << 30
MAX_CHARACTERS = 16 << 20


def render_chat(template: str, variables: Mapping[str, Any]) -> str:
    """Renders a chat template.

    It runs in Jinja's immutable sandbox in another process, with at most MAX_SECONDS of processor time,
    MAX_BYTES of memory and MAX_CHARACTERS of text.

    Args:
        template: the Jinja template.
        variables: what it can read, values of JSON: ``messages``, ``add_generation_prompt``, ``bos_token``, …

    Raises:
        UserError: ``bad-messages`` when the variables are no JSON values, ``chat-template`` when the template
            is wrong, refuses the messages, or exceeds a limit.
    """
    limits = {"seconds": MAX_SECONDS, "bytes": MAX_BYTES, "characters": MAX_CHARACTERS}
    try:
        request = json.dumps({"template": template, "variables": dict(variables), "limits": limits})
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            "bad-messages", f"the messages are no JSON values: {error}", where="messages"
        ) from error
    answer = _ask_worker(request)
    if "error" in answer:
        raise _failed(str(answer["error"]))
    return str(answer["text"])


def _ask_worker(request: str) -> dict[str, Any]:
    command = [sys.executable, "-I", str(Path(__file__).with_name("chat_worker.py"))]
    try:
        done = subprocess.run(
            command, input=request.encode(), capture_output=True, timeout=4 * MAX_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(f"it took longer than {4 * MAX_SECONDS} seconds") from error
    try:
        return cast("dict[str, Any]", json.loads(done.stdout))
    except ValueError as error:
        reason = f"it took more than {MAX_SECONDS} s of processor time or {MAX_BYTES >> 20} MiB of memory"
        raise _failed(reason) from error


def _failed(reason: str) -> UserError:
    return UserError(
        "chat-template",
        f"the chat template failed: {reason}",
        where="chat template",
        remedy="check the messages, or give another template",
    )


def check_messages(messages: Sequence[Message]) -> None:
    """Checks that messages are a non-empty list of objects with a role.

    Raises:
        UserError: ``bad-messages``.
    """
    if isinstance(messages, str) or not messages:
        raise UserError("bad-messages", "there are no messages", where="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):  # pyright: ignore
            raise UserError(
                "bad-messages",
                f"message {index} has no role",
                where="messages",
                remedy='give objects like {"role": "user", "content": "…"}',
            )


def choose_template(templates: Mapping[str, str], has_tools: bool) -> str:
    """The template to render: the one for tools if there are tools and such a template, else the default.

    Raises:
        UserError: ``no-chat-template``.
    """
    name = "tool_use" if has_tools and "tool_use" in templates else "default"
    if name not in templates:
        raise UserError(
            "no-chat-template",
            "the model has no chat template",
            where="chat template",
            remedy="give one, or a plain prompt",
        )
    return templates[name]
