"""Generation on a fake device that runs transformers: the same tokens as transformers' own generate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import npuc
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from npuc.ir.errors import UserError
from npuc.runtime.llm import LLM, StreamPiece
from npuc.runtime.sampling import SamplingParams
from npuc.runtime.scheduler import Scheduler
from transformers import AutoModelForCausalLM

Make = Callable[..., LLM]

BUCKETS = [
    ("prefill", 1, 8, 8),
    ("prefill", 4, 8, 8),
    ("extend", 2, 4, 32),
    ("decode", 1, 1, 16),
    ("decode", 4, 1, 16),
    ("decode", 1, 1, 48),
]


def greedy(model: Path, prompt: list[int], count: int) -> list[int]:
    """The greedy tokens of transformers."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.tensor([prompt])
    out = loaded.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, pad_token_id=0
    )
    return out[0, len(prompt) :].tolist()


def test_public_names() -> None:
    assert npuc.LLM is LLM
    assert npuc.SamplingParams is SamplingParams


PROMPTS = [[1, 5, 9], [4], [7] * 8, list(range(4, 24)), [11, 12], [30, 29, 28, 27, 26]]


def test_many_prompts_share_the_device(fake_llm: Make, tiny_model: Path) -> None:
    """Six prompts on four slots, one longer than any prefill bucket, end at different times."""
    llm = fake_llm(*BUCKETS)
    counts = [9, 3, 12, 10, 1, 7]
    params = [SamplingParams(max_tokens=count, ignore_eos=False) for count in counts]
    outputs = llm.generate(PROMPTS, params)
    for prompt, count, output in zip(PROMPTS, counts, outputs, strict=True):
        expected = greedy(tiny_model, prompt, count)
        assert output.token_ids == expected
        assert output.prompt_token_ids == prompt
        assert output.prompt_tokens == len(prompt)
        assert output.finish_reason == ("stop" if expected[-1] in (2, 3) else "length")
        assert output.simulated_seconds > 0
        assert output.logits is None
    names = [name for name, _, _ in llm.device.calls]  # pyright: ignore
    assert "prefill_4x8" in names
    assert "extend_2x4x32" in names
    assert "decode_4x16" in names
    assert "decode_1x48" in names


def test_a_freed_slot_is_used_at_once(fake_llm: Make) -> None:
    """With one slot, prompts run one after the other; with two, the third starts when the first has ended."""
    prompts, params = [[5], [6], [7]], [SamplingParams(max_tokens=n, ignore_eos=True) for n in (2, 6, 2)]
    buckets = [("prefill", 1, 8, 8), ("decode", 1, 1, 16), ("decode", 2, 1, 16)]
    two = fake_llm(*buckets, slots=2)
    outputs = two.generate(prompts, params)
    kinds = [(name.split("_")[0], sum(valid)) for name, _, valid in two.device.calls]  # pyright: ignore
    assert (
        kinds
        == [("prefill", 1)] * 2 + [("decode", 2), ("prefill", 1)] + [("decode", 2)] + [("decode", 1)] * 3
    )
    assert [o.simulated_seconds for o in outputs] == [21.0, 35.0, 11.0]
    one = fake_llm(*buckets[:2], slots=1)
    assert [o.token_ids for o in one.generate(prompts, params)] == [o.token_ids for o in outputs]
    assert len(one.device.calls) == 3 + 1 + 5 + 1  # pyright: ignore


def test_logits_are_those_of_the_model(fake_llm: Make, tiny_model: Path) -> None:
    llm = fake_llm(*BUCKETS)
    output = llm.generate([[5, 6, 7]], SamplingParams(max_tokens=4, ignore_eos=True, return_logits=True))[0]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6, 7, *output.token_ids]])).logits[0, 2:-1]
    assert output.logits is not None
    torch.testing.assert_close(output.logits, expected)


def test_sampling_does_not_depend_on_the_batch(fake_llm: Make) -> None:
    params = SamplingParams(max_tokens=8, temperature=1.5, top_k=9, seed=3, ignore_eos=True)
    llm = fake_llm(*BUCKETS)
    together = [output.token_ids for output in llm.generate(PROMPTS, params)]
    alone = [llm.generate([prompt], params)[0].token_ids for prompt in PROMPTS]
    assert together == alone


def test_the_end_token_stops_and_is_kept(fake_llm: Make) -> None:
    llm = fake_llm(*BUCKETS)
    free = llm.generate([[5]], SamplingParams(max_tokens=12, ignore_eos=True))[0].token_ids
    first = free[3]
    stopped = llm.generate([[5]], SamplingParams(max_tokens=12, ignore_eos=True, stop_token_ids=[first]))[0]
    assert stopped.token_ids == free[: free.index(first) + 1]
    assert stopped.finish_reason == "stop"
    assert llm.end_tokens == {2, 3}


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "kind"),
    [
        ([], 1, "empty-prompt"),
        ([32], 1, "bad-token"),
        ([-1], 1, "bad-token"),
        (["5"], 1, "bad-token"),
        ([5] * 33, 1, "prompt-too-long"),
        ([5] * 8, 42, "request-too-long"),
        ("text", 1, "no-tokenizer"),
    ],
)
def test_refused_before_anything_runs(fake_llm: Make, prompt: list[int], max_tokens: int, kind: str) -> None:
    """One bad request among good ones is refused and nothing runs."""
    llm = fake_llm(*BUCKETS)
    with pytest.raises(UserError) as caught:
        llm.generate([[5, 6], prompt], SamplingParams(max_tokens=max_tokens))
    assert caught.value.kind == kind
    assert llm.device.calls == []  # pyright: ignore


def test_long_prompts_need_an_extend_bucket(fake_llm: Make) -> None:
    llm = fake_llm(("prefill", 1, 8, 8), ("decode", 1, 1, 48))
    with pytest.raises(UserError, match="holds 8 and there is no extend bucket"):
        llm.generate([[5] * 9], SamplingParams(max_tokens=1))


def test_the_whole_bucket_can_be_used(fake_llm: Make, tiny_model: Path) -> None:
    """As the sorting model does: six tokens in, six out, eleven positions."""
    llm = fake_llm(("prefill", 1, 8, 8), ("decode", 1, 1, 11))
    params = SamplingParams(max_tokens=6, ignore_eos=True)
    assert len(llm.generate([[5, 6, 7, 8, 9, 10]], params)[0].token_ids) == 6
    assert len(llm.generate([[5] * 6], SamplingParams(max_tokens=None, ignore_eos=True))[0].token_ids) == 6


def test_pieces_arrive_token_by_token(fake_llm: Make) -> None:
    llm = fake_llm(*BUCKETS)
    pieces: list[StreamPiece] = []
    outputs = llm.generate(PROMPTS[:3], SamplingParams(max_tokens=5), on_piece=pieces.append)
    for index, output in enumerate(outputs):
        mine = [piece for piece in pieces if piece.index == index]
        assert [piece.token_id for piece in mine] == output.token_ids
        assert [piece.finish_reason for piece in mine] == [None] * (len(mine) - 1) + [output.finish_reason]


def test_an_error_of_a_callback_leaves_the_model_usable(fake_llm: Make) -> None:
    llm = fake_llm(*BUCKETS)

    def fail(piece: StreamPiece) -> None:
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        llm.generate(PROMPTS, on_piece=fail)
    assert len(llm.generate([[5]], SamplingParams(max_tokens=3, ignore_eos=True))[0].token_ids) == 3


def test_cancelled_sequences_free_their_slots(fake_llm: Make) -> None:
    device = fake_llm(("prefill", 1, 8, 8), ("decode", 1, 1, 16), slots=1).device
    scheduler = Scheduler(device)
    params = SamplingParams(max_tokens=8).filled_from({})
    first, second, third = (scheduler.admit([token], params) for token in (5, 6, 7))
    for generation in (first, second, third):
        scheduler.add(generation)
    scheduler.step()
    scheduler.cancel(first)
    scheduler.cancel(third)
    while scheduler.busy:
        scheduler.step()
    assert [g.finish_reason for g in (first, second, third)] == ["cancelled", "length", "cancelled"]
    assert [len(g.output) for g in (first, second, third)] == [1, 8, 0]


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 31), min_size=1, max_size=20), st.integers(1, 12)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 4),
)
def test_any_batch_gives_what_each_prompt_gives_alone(
    fake_llm: Make, requests: list[tuple[list[int], int]], slots: int
) -> None:
    buckets = [b for b in BUCKETS if b[1] <= slots] + [("extend", 1, 3, 40)]
    llm = fake_llm(*buckets, slots=slots)
    params = [SamplingParams(max_tokens=count, ignore_eos=True) for _, count in requests]
    together = llm.generate([prompt for prompt, _ in requests], params)
    for (prompt, count), output, each in zip(requests, together, params, strict=True):
        assert output.token_ids == llm.generate([prompt], each)[0].token_ids
        assert len(output.token_ids) == count
