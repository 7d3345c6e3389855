"""Sampling agrees with transformers' logits processors on the same logits, and with its ``generate``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.ir.errors import UserError
from npuc.runtime.sampling import Sampler, SamplingParams, filter_scores
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

scores_of_tokens = st.lists(
    st.one_of(st.floats(-30, 30, width=32), st.sampled_from([0.0, 1.0, -1.0, float("-inf")])),
    min_size=1,
    max_size=40,
).filter(lambda values: max(values) > float("-inf"))


def reference_scores(logits: torch.Tensor, seen: list[int], p: SamplingParams) -> torch.Tensor:
    """What transformers makes of the same logits, its processors in the order of its ``generate``."""
    chosen: list[Any] = []
    if p.repetition_penalty is not None and p.repetition_penalty != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(p.repetition_penalty))
    if p.temperature:
        chosen.append(TemperatureLogitsWarper(p.temperature))
        chosen += [TopKLogitsWarper(p.top_k)] if p.top_k else []
        chosen += [TopPLogitsWarper(p.top_p)] if p.top_p is not None and p.top_p < 1.0 else []
        chosen += [MinPLogitsWarper(p.min_p)] if p.min_p else []
    return LogitsProcessorList(chosen)(torch.tensor([seen]), logits[None].clone())[0]


@settings(deadline=None)
@given(
    scores_of_tokens,
    st.lists(st.integers(0, 39), min_size=1, max_size=20),
    st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    st.integers(0, 45),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.sampled_from([0.5, 1.0, 1.3]),
)
def test_scores_equal_those_of_transformers(
    values: list[float],
    seen: list[int],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
) -> None:
    logits = torch.tensor(values)
    seen = [token % len(values) for token in seen]
    params = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
    )
    ours = filter_scores(logits, seen, params)
    assert torch.equal(ours, reference_scores(logits, seen, params))
    assert torch.isfinite(ours).any()


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_sampled_tokens_equal_generate_of_transformers(seed: int) -> None:
    """The same seed draws the same tokens as transformers' own sampling loop."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    settings_ = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2}
    torch.manual_seed(seed)
    generation = GenerationConfig(
        do_sample=True, max_new_tokens=12, pad_token_id=0, eos_token_id=None, **settings_
    )
    expected = model.generate(torch.tensor([[1, 2, 3]]), generation_config=generation)[0].tolist()
    sampler = Sampler(SamplingParams(seed=seed, **settings_))
    tokens = [1, 2, 3]
    with torch.no_grad():
        for _ in range(12):
            tokens.append(sampler.next_token(model(torch.tensor([tokens])).logits[0, -1], tokens))
    assert tokens == expected


def test_greedy_takes_the_first_maximum() -> None:
    assert Sampler(SamplingParams(temperature=0.0)).next_token(torch.tensor([0.0, 2.0, 2.0]), [0]) == 1


def test_seeds_repeat_and_differ() -> None:
    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed))
        return [sampler.next_token(torch.zeros(1000), [0]) for _ in range(8)]

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert draw(None) != draw(None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_logits_are_an_error(bad: float) -> None:
    with pytest.raises(UserError) as caught:
        Sampler(SamplingParams(temperature=0.0)).next_token(torch.tensor([0.0, bad]), [0])
    assert caught.value.kind == "non-finite-logits"


@pytest.mark.parametrize(
    ("given_", "config", "expected"),
    [
        ({}, {}, (0.0, 0, 1.0)),
        ({}, {"do_sample": False, "temperature": 0.5, "top_k": 5}, (0.0, 0, 1.0)),
        ({}, {"do_sample": True}, (1.0, 50, 1.0)),
        ({}, {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}, (0.6, 20, 0.95)),
        ({}, {"do_sample": True, "top_k": None}, (1.0, 0, 1.0)),
        ({"temperature": 0.0}, {"do_sample": True, "top_p": 0.5}, (0.0, 50, 0.5)),
        ({"temperature": 0.7}, {}, (0.7, 0, 1.0)),
        ({"top_p": 0.9}, {}, (1.0, 0, 0.9)),
    ],
)
def test_unset_parameters_come_from_the_generation_config(
    given_: dict[str, Any], config: dict[str, Any], expected: tuple[float, int, float]
) -> None:
    filled = SamplingParams(**given_).filled_from(config)
    assert (filled.temperature, filled.top_k, filled.top_p) == expected
    assert filled.min_p == 0.0
    assert filled.repetition_penalty == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 1.01},
        {"top_k": -1},
        {"top_k": True},
        {"min_p": "0.1"},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"stop": ""},
        {"stop": ["a", ""]},
        {"stop_token_ids": ["x"]},
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        SamplingParams(**wrong)
    assert caught.value.kind == "bad-parameter"
    assert caught.value.where == next(iter(wrong))


def test_what_would_be_right_is_said() -> None:
    with pytest.raises(UserError, match=r"max_tokens is 0 \(use a whole number of at least 1\)"):
        SamplingParams(max_tokens=0)
    with pytest.raises(UserError, match=r"top_p is 1.5 \(use a number from 0 to 1\)"):
        SamplingParams(top_p=1.5)
