"""How far logits are from reference logits, and how well both predict a text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from npuc.ir.errors import UserError


@dataclass
class Comparison:
    """Running figures over compared positions."""

    positions: int = 0
    max_abs_error: float = 0.0
    largest_reference: float = 0.0
    cosine_sum: float = 0.0
    min_cosine: float = 1.0
    kl_sum: float = 0.0
    agreements: int = 0

    def add(self, logits: torch.Tensor, reference: torch.Tensor) -> None:
        """Counts rows of logits [positions, V], both float32 and finite."""
        ours, theirs = logits.double(), reference.double()
        cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)
        log_ours, log_theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
        self.positions += len(ours)
        self.max_abs_error = max(self.max_abs_error, float((ours - theirs).abs().max()))
        self.largest_reference = max(self.largest_reference, float(theirs.abs().max()))
        self.cosine_sum += float(cosine.sum())
        self.min_cosine = min(self.min_cosine, float(cosine.min()))
        self.kl_sum += float((log_theirs.exp() * (log_theirs - log_ours)).sum())
        self.agreements += int((ours.argmax(-1) == theirs.argmax(-1)).sum())

    @property
    def max_rel_error(self) -> float:
        """The largest error, of the largest reference logit."""
        return self.max_abs_error / self.largest_reference if self.largest_reference else self.max_abs_error

    def figures(self) -> dict[str, Any]:
        """The figures of a report; at least one position must have been added."""
        return {
            "max_abs_error": self.max_abs_error,
            "max_rel_error": self.max_rel_error,
            "cosine": self.cosine_sum / self.positions,
            "min_cosine": self.min_cosine,
            "kl": max(0.0, self.kl_sum / self.positions),
            "top1_agreement": self.agreements / self.positions,
            "positions": self.positions,
        }


@dataclass
class Likelihood:
    """The likelihood of tokens under logits."""

    nats: float = 0.0
    tokens: int = field(default=0)

    def add(self, logits: torch.Tensor, tokens: torch.Tensor) -> None:
        """Counts tokens [n]; ``logits`` [n, V] are those of the positions before each."""
        if len(tokens):
            self.nats += float(torch.nn.functional.cross_entropy(logits.double(), tokens, reduction="sum"))
            self.tokens += len(tokens)

    @property
    def perplexity(self) -> float | None:
        """Per token; None without tokens."""
        return math.exp(min(self.nats / self.tokens, 700.0)) if self.tokens else None


def check_finite(logits: torch.Tensor, where: str) -> None:
    """Checks that logits are finite.

    Raises:
        UserError: ``non-finite-logits``.
    """
    wrong = int((~torch.isfinite(logits)).sum())
    if wrong:
        raise UserError(
            "non-finite-logits",
            f"{wrong} of {logits.numel()} logits are not finite",
            where=where,
            remedy="check the checkpoint's weights for NaN or overflow",
        )
