"""Choosing the next token from logits, as transformers' own logits processors do.

Order, too, is that of transformers' ``generate``: repetition penalty, then temperature, top-k, top-p, min-p,
then a draw. Each function takes float32 scores of shape [V] and returns new ones.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from npuc.ir.errors import UserError

_REMOVED = float("-inf")


@dataclass(frozen=True)
class SamplingParams:
    """What to generate and how to choose tokens; ``None`` means: as the model's generation config says.

    Attributes:
        max_tokens: new tokens at most; None: as many as the largest decode bucket holds.
        temperature: 0 is greedy.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches it.
        min_p: drop tokens less likely than this share of the most likely one.
        repetition_penalty: divides positive and multiplies negative scores of tokens seen before.
        seed: of the draws of each prompt; None draws differently each time.
        stop: strings that end the text; they are not part of it.
        stop_token_ids: token ids that end the text, besides the model's own.
        ignore_eos: go on after the model's end-of-sequence tokens.
        return_logits: keep the logits that each token was chosen from.
    """

    max_tokens: int | None = 16
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    return_logits: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for name, low, high, whole in _RANGES:
            value = getattr(self, name)
            if value is not None and not _within(value, low, high, whole):
                raise _bad_parameter(name, value, low, high, whole)
        if not all(type(text) is str and text for text in self.stop):
            raise UserError("bad-parameter", "stop strings must be non-empty text", where="stop")
        if not all(type(token) is int for token in self.stop_token_ids):
            raise UserError("bad-parameter", "stop token ids must be integers", where="stop_token_ids")

    def filled_from(self, generation_config: Mapping[str, Any]) -> SamplingParams:
        """These parameters with every unset choice taken from a model's ``generation_config.json``.

        As in transformers, a configuration without ``do_sample`` is greedy, and one with it keeps the 50 most
        likely tokens unless it says otherwise. Who sets a filter or a temperature samples in any case.
        """
        penalty = generation_config.get("repetition_penalty")
        configured: Mapping[str, Any] = (
            generation_config if generation_config.get("do_sample") is True else {}
        )
        asks = any(value is not None for value in (self.top_k, self.top_p, self.min_p))
        defaults: dict[str, Any] = {
            "temperature": configured.get("temperature", 1.0 if configured or asks else 0.0),
            "top_k": configured.get("top_k", 50 if configured else 0),
            "top_p": configured.get("top_p", 1.0),
            "min_p": configured.get("min_p", 0.0),
            "repetition_penalty": 1.0 if penalty is None else penalty,
        }
        unset = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return replace(self, **{name: _OFF[name] if v is None else v for name, v in unset.items()})


_OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}

_RANGES: tuple[tuple[str, float, float, bool], ...] = (
    ("max_tokens", 1, 2**31, True),
    ("temperature", 0.0, 1e6, False),
    ("top_p", 0.0, 1.0, False),
    ("top_k", 0, 2**31, True),
    ("min_p", 0.0, 1.0, False),
    ("repetition_penalty", 1e-6, 1e6, False),
    ("seed", 0, 2**63 - 1, True),
)


def _within(value: object, low: float, high: float, whole: bool) -> bool:
    accepted = type(value) is int or (not whole and type(value) is float)
    return accepted and low <= float(value) <= high  # pyright: ignore[reportArgumentType]


def _bad_parameter(name: str, value: object, low: float, high: float, whole: bool) -> UserError:
    number = "a whole number" if whole else "a number"
    within = f"from {low:g} to {high:g}" if high < 2**31 else f"of at least {low:g}"
    message, remedy = f"{name} is {value!r}", f"use {number} {within}"
    return UserError("bad-parameter", message, where=name, remedy=remedy)


def apply_repetition_penalty(scores: torch.Tensor, seen: Sequence[int], penalty: float) -> torch.Tensor:
    """Makes the tokens in ``seen`` (prompt and output so far) less likely, for penalties above 1."""
    tokens = torch.tensor(sorted(set(seen)), dtype=torch.long)
    old = scores[tokens]
    scores = scores.clone()
    scores[tokens] = torch.where(old < 0, old * penalty, old / penalty)
    return scores


def keep_top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Keeps the ``k`` highest scores, and any equal to the lowest of them."""
    threshold = scores.topk(min(k, scores.numel())).values[-1]
    return scores.masked_fill(scores < threshold, _REMOVED)


def keep_top_p(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Keeps the most likely tokens whose probabilities sum up to at least ``p``; always the first."""
    ordered, indices = scores.sort()
    remove = ordered.softmax(-1).cumsum(-1) <= 1 - p
    remove[-1] = False
    return scores.masked_fill(torch.zeros_like(remove).scatter(0, indices, remove), _REMOVED)


def keep_min_p(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Keeps tokens at least ``p`` times as likely as the most likely one."""
    probabilities = scores.softmax(-1)
    return scores.masked_fill(probabilities < p * probabilities.max(), _REMOVED)


def filter_scores(logits: torch.Tensor, seen: Sequence[int], params: SamplingParams) -> torch.Tensor:
    """The scores [V] that a token is drawn from, or whose maximum it is when greedy."""
    scores = logits.float()
    if params.repetition_penalty not in (None, 1.0):
        scores = apply_repetition_penalty(scores, seen, params.repetition_penalty)
    if not params.temperature:
        return scores
    scores = scores / params.temperature
    if params.top_k:
        scores = keep_top_k(scores, params.top_k)
    if params.top_p is not None and params.top_p < 1.0:
        scores = keep_top_p(scores, params.top_p)
    return keep_min_p(scores, params.min_p) if params.min_p else scores


class Sampler:
    """Draws the tokens of one sequence.

    Args:
        params: parameters with nothing unset (:meth:`SamplingParams.filled_from`).
    """

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._generator = torch.Generator()
        self._generator.manual_seed(secrets.randbits(63) if params.seed is None else params.seed)

    def next_token(self, logits: torch.Tensor, seen: Sequence[int]) -> int:
        """The next token after ``seen``, given its logits [V].

        Raises:
            UserError: ``non-finite-logits`` when the model gave NaN or +infinity.
        """
        if bool(torch.isnan(logits).any()) or bool((logits == float("inf")).any()):
            raise UserError(
                "non-finite-logits",
                f"the model's logits after {len(seen)} tokens are not finite",
                remedy="check the checkpoint's weights for NaN or overflow",
            )
        scores = filter_scores(logits, seen, self.params)
        if not self.params.temperature:
            return int(scores.argmax())
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))
