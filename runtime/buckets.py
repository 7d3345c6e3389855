"""Which program runs next, and with which rows: plain functions on sequence lengths.

A program (bucket) takes up to ``batch`` rows of up to ``new_tokens`` new tokens each, and attends to
``length`` positions. Prefill programs start a sequence, extend programs go on with a prompt, decode programs
add one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from npuc.ir.errors import UserError
from npuc.runtime.manifest import Program


class Pending(NamedTuple):
    """What a sequence waits for: ``cached`` tokens are in its cache, ``rest`` more are to be put there."""

    cached: int
    rest: int


class Call(NamedTuple):
    """A run of a program: ``rows[i]`` = (index of the sequence, number of its tokens that row i takes)."""

    program: Program
    rows: tuple[tuple[int, int], ...]


def takes(program: Program, pending: Pending) -> int:
    """How many of the pending tokens one run of ``program`` takes; 0 when it cannot serve the sequence."""
    if program.kind == "prefill" and pending.cached:
        return 0
    return max(0, min(pending.rest, program.new_tokens, program.length - pending.cached))


def _shape(program: Program) -> tuple[bool, int, int]:
    return program.kind == "extend", program.new_tokens, program.length


def _best_shape(programs: Sequence[Program], pending: Pending) -> tuple[bool, int, int] | None:
    """The shape of the smallest program that takes all, or else as much as any; None if none does."""
    most = max((takes(p, pending) for p in programs), default=0)
    return min((_shape(p) for p in programs if takes(p, pending) == most), default=None) if most else None


def prompt_call(programs: Sequence[Program], waiting: Sequence[Pending]) -> Call | None:
    """The next run for the prompts ``waiting``, the first of which gets its smallest fitting bucket.

    Others join it where the bucket's batch has room and serves them as well as any other could.

    Returns:
        None when no prefill or extend program can go on with the first prompt.
    """
    usable = [p for p in programs if p.kind != "decode"]
    shape = _best_shape(usable, waiting[0])
    if shape is None:
        return None
    same = [p for p in usable if _shape(p) == shape and takes(p, waiting[0])]
    joining: list[tuple[int, int]] = []
    for index, pending in enumerate(waiting):
        count = takes(same[0], pending)
        if count and count == max(takes(p, pending) for p in usable):
            joining.append((index, count))
    program = _fitting_batch(same, len(joining))
    return Call(program, tuple(joining[: program.batch]))


def decode_call(programs: Sequence[Program], cached: Sequence[int]) -> Call | None:
    """The next decode run for sequences with ``cached`` tokens; the longest is always among them.

    Returns:
        None when no decode program attends that far.
    """
    order = sorted(range(len(cached)), key=lambda index: -cached[index])
    reaching = [p for p in programs if p.kind == "decode" and p.length > cached[order[0]]]
    if not reaching:
        return None
    program = _fitting_batch(reaching, len(cached))
    return Call(program, tuple((index, 1) for index in order[: program.batch]))


def _fitting_batch(programs: Sequence[Program], rows: int) -> Program:
    """The smallest program with room for ``rows``, or else the one with most; of equal ones the shortest."""
    enough = [p for p in programs if p.batch >= rows]
    if enough:
        return min(enough, key=lambda p: (p.batch, p.length))
    return min(programs, key=lambda p: (-p.batch, p.length))


def capacity(programs: Sequence[Program], prompt_tokens: int) -> int:
    """How many tokens can be generated after a prompt.

    The last one needs no room in the cache: it is never fed back.

    Raises:
        UserError: ``prompt-too-long`` when no prefill and extend programs hold the prompt.
    """
    usable, cached = [p for p in programs if p.kind != "decode"], 0
    while cached < prompt_tokens:
        taken = max((takes(p, Pending(cached, prompt_tokens - cached)) for p in usable), default=0)
        if not taken:
            raise _prompt_too_long(usable, prompt_tokens)
        cached += taken
    longest = max((p.length for p in programs if p.kind == "decode"), default=0)
    return max(1, longest - prompt_tokens + 1)


def _prompt_too_long(programs: Sequence[Program], prompt_tokens: int) -> UserError:
    prefill = max((p.length for p in programs if p.kind == "prefill"), default=0)
    extend = max((p.length for p in programs if p.kind == "extend"), default=0)
    limits = f"the largest prefill bucket holds {prefill}"
    limits += f", the longest extend bucket {extend}" if extend else " and there is no extend bucket"
    return UserError(
        "prompt-too-long",
        f"the prompt has {prompt_tokens} tokens; {limits}",
        where="prompt",
        remedy="shorten the prompt or compile a larger prefill bucket or an extend bucket",
    )


def check_request(programs: Sequence[Program], prompt_tokens: int, max_tokens: int | None) -> int:
    """How many tokens to generate at most; ``max_tokens`` None: as many as fit.

    Raises:
        UserError: ``prompt-too-long``, or ``request-too-long`` when there is no room for so many new tokens.
    """
    room = capacity(programs, prompt_tokens)
    if max_tokens is not None and max_tokens > room:
        longest = max((p.length for p in programs if p.kind == "decode"), default=0)
        limit = f"the longest decode bucket holds {longest}" if longest else "there is no decode bucket"
        raise UserError(
            "request-too-long",
            f"a prompt of {prompt_tokens} tokens and {max_tokens} new ones need "
            f"{prompt_tokens + max_tokens - 1} positions; {limit}",
            where="max_tokens",
            remedy=f"ask for at most {room} new tokens or compile a longer decode bucket",
        )
    return room if max_tokens is None else max_tokens
