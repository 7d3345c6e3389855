"""How good logits must be: a figure of a comparison with exact ones, and its limit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from npuc.ir.errors import UserError
from npuc.runtime.comparison import Comparison, Likelihood
from torch import Tensor

LEAST = ("cosine", "min_cosine", "top1_agreement")
MOST = ("kl", "max_rel_error", "perplexity_increase")
METRICS = (*LEAST, *MOST)


@dataclass(frozen=True)
class Quality:
    """A limit of a metric.

    Attributes:
        metric: a figure of `irc verify`: ``cosine`` (mean over positions), ``min_cosine``, ``top1_agreement``
            must be at least the limit; ``kl`` (mean, in nats), ``max_rel_error`` (of the largest logit) and
            ``perplexity_increase`` (a share of the reference's) at most.
        limit: the value.
    """

    metric: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Quality:
        """From ``METRIC=LIMIT``; ``>=`` and ``<=`` are understood where they say what is meant.

        Raises:
            UserError: ``quality``.
        """
        found = re.fullmatch(r"(\w+)(>=|<=|=)([-+.\w]+)", text.replace(" ", ""))
        metric, sign, number = found.groups() if found else ("", "", "")
        try:
            limit = float(number)
        except ValueError:
            limit = float("nan")
        wrong = sign == "<=" if metric in LEAST else sign == ">="
        if metric not in METRICS or limit != limit or wrong:
            remedy = f"write METRIC=LIMIT, e.g. cosine=0.9999, with one of {', '.join(METRICS)}"
            raise UserError("quality", f"{text!r} is no quality", remedy=remedy)
        return cls(metric, limit)

    def __str__(self) -> str:
        return f"{self.metric} {'at least' if self.metric in LEAST else 'at most'} {self.limit:g}"

    def score(self, figures: Mapping[str, Any]) -> float:
        """The metric, such that larger is better."""
        value = float(figures[self.metric])
        return value if self.metric in LEAST else -value

    def meets(self, score: float) -> bool:
        """Whether a score is good enough."""
        return score >= (self.limit if self.metric in LEAST else -self.limit)


@dataclass
class Assessment:
    """Figures over documents, of which exact logits are known."""

    overall: Comparison = field(default_factory=Comparison)
    ours: Likelihood = field(default_factory=Likelihood)
    theirs: Likelihood = field(default_factory=Likelihood)

    def add(self, tokens: Tensor, logits: Tensor, exact: Tensor) -> None:
        """Counts a document: tokens [n], logits and exact ones [n, V]."""
        self.overall.add(logits, exact)
        self.ours.add(logits[:-1], tokens[1:])
        self.theirs.add(exact[:-1], tokens[1:])

    def figures(self) -> dict[str, Any]:
        """All metrics, and both perplexities."""
        return with_increase(
            {
                **self.overall.figures(),
                "perplexity": self.ours.perplexity,
                "reference_perplexity": self.theirs.perplexity,
            }
        )


def with_increase(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with the share by which the perplexity is above the reference's."""
    mine, reference = figures["perplexity"], figures["reference_perplexity"]
    increase = 0.0 if mine is None or not reference else mine / reference - 1
    return {**figures, "perplexity_increase": increase}


def assess(documents: Iterable[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Any]:
    """The figures of documents: tokens, logits, exact logits."""
    found = Assessment()
    for tokens, logits, exact in documents:
        found.add(tokens, logits, exact)
    return found.figures()
