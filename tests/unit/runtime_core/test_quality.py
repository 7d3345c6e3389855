"""Qualities: what they are written as, and when they are met."""

from __future__ import annotations

import math

import pytest
import torch
from npuc.ir.errors import UserError
from npuc.runtime.quality import METRICS, Quality, assess


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cosine=0.9999", "cosine at least 0.9999"),
        ("cosine >= 0.5", "cosine at least 0.5"),
        ("kl=1e-3", "kl at most 0.001"),
        ("perplexity_increase<=0.01", "perplexity_increase at most 0.01"),
    ],
)
def test_spellings(text: str, shown: str) -> None:
    assert str(Quality.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "cosine", "cosine<=0.9", "kl>=1", "kl=x", "kl=nan", "bleu=1"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"is no quality") as error:
        Quality.parse(text)
    assert all(metric in error.value.remedy for metric in METRICS)


def test_figures_by_hand() -> None:
    tokens = torch.tensor([0, 1, 0])
    exact, logits = torch.zeros(3, 2), torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [0.0, 0.0]])
    found = assess([(tokens, logits, exact)])
    assert found["reference_perplexity"] == pytest.approx(2)
    assert found["perplexity"] == pytest.approx(math.sqrt(4 / 3 * 2))  # token 1 with 3/4, token 0 with 1/2
    assert found["perplexity_increase"] == pytest.approx(math.sqrt(8 / 3) / 2 - 1)
    assert found["kl"] == pytest.approx(math.log(2) / 3 - math.log(3) / 6, rel=1e-5)
    for text, met in (("kl=0.05", True), ("kl=0.04", False), ("perplexity_increase=0", True)):
        quality = Quality.parse(text)
        assert quality.meets(quality.score(found)) is met
