"""The figures of docs/numbers.md, and the page itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PROMPTS = 8  # that are continued greedily
FP32_ERROR, BF16_COSINE, BF16_PERPLEXITY, HELP_SECONDS = 1e-4, 0.9998, 5e-3, 0.3


@dataclass(frozen=True)
class Measured:
    """The figures of one model in one type.

    Attributes:
        compiled: what `irc compile --json` printed.
        found: what `verify` returned.
        runs: entries of programs that were sanitized.
        hazards: found in them.
        equal: how many continuations are transformers' own; None where they were not compared.
        new_tokens: length of a continuation.
    """

    model: str
    compiled: dict[str, Any]
    found: dict[str, Any]
    runs: int
    hazards: int
    equal: int | None = None
    new_tokens: int = 0

    @property
    def perplexity_difference(self) -> float:
        """As a share of the reference's perplexity."""
        return abs(self.found["perplexity"] / self.found["reference_perplexity"] - 1)

    @property
    def kept(self) -> bool:
        """Whether the promises hold."""
        if self.hazards or self.equal not in (None, PROMPTS):
            return False
        if self.found["dtype"] == "f32":
            return self.found["max_rel_error"] <= FP32_ERROR
        return self.found["cosine"] >= BF16_COSINE and self.perplexity_difference <= BF16_PERPLEXITY


Column = tuple[str, Callable[[Measured], str]]
MODEL: Column = ("model", lambda m: m.model)
POSITIONS: Column = ("positions", lambda m: f"{m.found['positions']:,}")
ERROR: Column = ("of the largest logit", lambda m: f"{m.found['max_rel_error']:.1e}")
HAZARDS: Column = ("hazards", lambda m: f"{m.hazards} in {m.runs} entries")
FP32: list[Column] = [
    MODEL,
    POSITIONS,
    ("largest error", lambda m: f"{m.found['max_abs_error']:.1e}"),
    ERROR,
    ("1 − mean cosine", lambda m: f"{max(0.0, 1 - m.found['cosine']):.1e}"),
    ("perplexity", lambda m: f"{m.found['perplexity']:.5f}"),
    ("transformers'", lambda m: f"{m.found['reference_perplexity']:.5f}"),
    ("equal continuations", lambda m: f"{m.equal} of {PROMPTS}, {m.new_tokens} tokens each"),
    HAZARDS,
]
BF16: list[Column] = [
    MODEL,
    POSITIONS,
    ERROR,
    ("mean cosine", lambda m: f"{m.found['cosine']:.6f}"),
    ("least cosine", lambda m: f"{m.found['min_cosine']:.5f}"),
    ("perplexity", lambda m: f"{m.found['perplexity']:.4f}"),
    ("transformers'", lambda m: f"{m.found['reference_perplexity']:.4f}"),
    ("difference", lambda m: f"{m.perplexity_difference:.3%}"),
    ("same likeliest token", lambda m: f"{m.found['top1_agreement']:.1%}"),
    HAZARDS,
]
COST: list[Column] = [
    MODEL,
    ("type", lambda m: m.found["dtype"]),
    ("processor time", lambda m: f"{m.compiled['cpu_seconds']:.1f} s"),
    ("peak memory", lambda m: f"{m.compiled['peak_rss_bytes'] / 2**20:.0f} MiB"),
    ("programs", lambda m: str(len(m.compiled["programs"]))),
    ("their bytes", lambda m: f"{m.compiled['program_bytes'] / 2**10:.0f} KiB"),
    ("weights", lambda m: f"{m.compiled['weight_bytes'] / 2**20:.2f} MiB"),
]


def table(columns: Sequence[Column], measured: Sequence[Measured]) -> str:
    """A Markdown table; all columns but the first are figures."""
    rows = [[name for name, _ in columns], ["---", *("---:" for _ in columns[1:])]]
    rows += [[show(m) for _, show in columns] for m in measured]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


PAGE = """# Numbers

Written by `make numbers`, which compiles the trained models beside the repository for rngd and runs them on
the simulator; do not edit. One model by hand:

    irc compile MODEL -t rngd {flags} [--dtype bfloat16] -o OUT
    irc verify OUT --against MODEL --text {text} --json
    irc sim OUT --sanitize

gpt_nano_sort, with a context of 11, has the buckets {short_flags}.

Perplexities are per token of `{text}`, each story on its own, cut at the context. gpt_nano_sort
knows no text: it is scored on sequences that it samples itself. All programs take part, with both their
entries and with inactive rows. The reference is transformers with eager attention, in the same type.

## fp32

Promised: errors of at most {fp32_error:g} of the largest logit, and the same greedy tokens. Eight prompts of
8 to 85 tokens share four cache slots and the decode programs of one row and of four; transformers' `generate`
continues each prompt alone. A hazard is a read of bytes that nobody wrote, an access out of bounds, or two
conflicting accesses that nothing orders.

{fp32_table}

## bf16

Promised: a mean cosine of at least {cosine} and perplexities that differ by at most {perplexity:.1%}.

{bf16_table}

## The driver

`irc --help`, promised within {promised} s: {help:.2f} s, the best of several runs on two cores. Compiling:

{cost_table}
"""


def page(measured: Sequence[Measured], help_seconds: float, **words: str) -> str:
    """The page.

    Args:
        measured: all models in all types.
        help_seconds: the time of `irc --help`.
        words: ``flags``, ``short_flags`` and ``text``, as commands take them.
    """
    fp32 = [m for m in measured if m.found["dtype"] == "f32"]
    bf16 = [m for m in measured if m.found["dtype"] == "bf16"]
    return PAGE.format(
        fp32_error=FP32_ERROR,
        fp32_table=table(FP32, fp32),
        cosine=BF16_COSINE,
        perplexity=BF16_PERPLEXITY,
        bf16_table=table(BF16, bf16),
        promised=HELP_SECONDS,
        help=help_seconds,
        cost_table=table(COST, [*fp32, *bf16]),
        **words,
    )
