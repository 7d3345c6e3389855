"""Buckets: the static shapes that programs are compiled for.

A bucket is a batch, a number of new tokens per row and an attention length. The command line spells it
``BxN`` for prefill (attention = new tokens), ``BxL`` for decode (one new token) and ``BxNxL`` for extend.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from npuc.ir.errors import UserError

KINDS = ("prefill", "decode", "extend")
SPELLING = {"prefill": "BxN", "decode": "BxL", "extend": "BxNxL"}
EXAMPLE = {"prefill": "1x128", "decode": "4x1024", "extend": "1x128x512"}

DEFAULT_CONTEXT = 1024  # attention length compiled when nobody asks for one
DEFAULT_CHUNK = 128  # new tokens per call of the default prefill and extend buckets


@dataclass(frozen=True)
class Bucket:
    """One static shape: ``batch`` rows of ``new_tokens`` tokens that attend to ``length`` positions."""

    kind: str
    batch: int
    new_tokens: int
    length: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of its spelling."""
        middle = (self.new_tokens,) if self.kind == "extend" else ()
        return (self.batch, *middle, self.length)

    @property
    def attended(self) -> int:
        """The positions that its programs attend to; two at least, since a dimension of one broadcasts.

        The second of a length of one is never valid.
        """
        return max(2, self.length)

    @property
    def name(self) -> str:
        """``prefill_1x128``, ``decode_4x1024``, ``extend_1x128x512``."""
        return f"{self.kind}_{self}"

    def __str__(self) -> str:
        return "x".join(map(str, self.sizes))


def _flag(kind: str) -> str:
    return f"--{kind}-buckets"


def _refuse(kind: str, message: str, remedy: str = "") -> UserError:
    return UserError("bucket", message, where=_flag(kind), remedy=remedy)


def parse_bucket(kind: str, text: str) -> Bucket:
    """One bucket from its spelling, e.g. ``parse_bucket("decode", "4x1024")``.

    Raises:
        UserError: when the spelling is not that of the kind, or a size makes no sense.
    """
    parts = text.strip().lower().split("x")
    expected = SPELLING[kind]
    if len(parts) != len(expected.split("x")) or not all(p.isascii() and p.isdigit() for p in parts):
        raise _refuse(kind, f"{text!r} is not a bucket {expected}", f"write it like {EXAMPLE[kind]}")
    sizes = [int(part) for part in parts]
    if 0 in sizes:
        raise _refuse(kind, f"bucket {text} has a size of 0", "every size is at least 1")
    batch, length = sizes[0], sizes[-1]
    new_tokens = {"prefill": length, "decode": 1, "extend": sizes[1]}[kind]
    if new_tokens > length:
        raise _refuse(
            kind,
            f"bucket {text} has {new_tokens} new tokens but attends to {length} positions",
            "the last size is the whole attention length, new tokens included",
        )
    return Bucket(kind, batch, new_tokens, length)


def parse_buckets(kind: str, text: str) -> tuple[Bucket, ...]:
    """A comma-separated list of buckets; repeated ones count once. Raises as `parse_bucket`."""
    spellings = [part for part in text.split(",") if part.strip()]
    if not spellings:
        raise _refuse(kind, "the list of buckets is empty", f"write it like {EXAMPLE[kind]}")
    return tuple(dict.fromkeys(parse_bucket(kind, part) for part in spellings))


def default_buckets(context: int) -> tuple[Bucket, ...]:
    """The programs that serve one sequence of up to ``context`` positions.

    Prompts are taken in by a prefill of up to 128 tokens and, where the context is longer, by extends of
    as many; then one decode.
    """
    chunk = min(DEFAULT_CHUNK, context)
    buckets = [Bucket("prefill", 1, chunk, chunk), Bucket("decode", 1, 1, context)]
    if context > chunk:
        buckets.append(Bucket("extend", 1, chunk, context))
    return tuple(buckets)


def choose_buckets(requested: Sequence[Bucket], *, context: int, max_context: int | None) -> list[Bucket]:
    """The buckets to compile, in a fixed order: kind, then sizes.

    Args:
        requested: what the user listed; empty for the default.
        context: positions that the model can tell apart.
        max_context: the user's bound on the attention length, or None.

    Raises:
        UserError: when a bucket, or the bound itself, exceeds what the model can attend to.
    """
    if max_context is not None and not 1 <= max_context <= context:
        raise UserError(
            "bucket",
            f"{max_context} is not between 1 and the model's context of {context}",
            where="--max-context",
            remedy="choose a smaller one" if max_context > context else "choose a larger one",
        )
    limit = context if max_context is None else max_context
    if not requested:
        return sort_buckets(default_buckets(limit if max_context else min(limit, DEFAULT_CONTEXT)))
    for bucket in requested:
        if bucket.length > limit:
            bound = "the model's context" if limit == context else "--max-context"
            raise _refuse(
                bucket.kind,
                f"bucket {bucket} attends to {bucket.length} positions, {bound} is {limit}",
                "choose a shorter bucket",
            )
    return sort_buckets(dict.fromkeys(requested))


def sort_buckets(buckets: Iterable[Bucket]) -> list[Bucket]:
    """In the order in which artifacts list them."""
    return sorted(buckets, key=lambda b: (KINDS.index(b.kind), b.sizes))
