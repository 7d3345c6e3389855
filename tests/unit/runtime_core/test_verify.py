"""Verification: an exact device has no error, a wrong one is caught, and perplexities are the known ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from npuc.ir.errors import UserError
from npuc.runtime.buckets import Pending, takes
from npuc.runtime.comparison import Comparison, Likelihood
from npuc.runtime.llm import LLM
from npuc.runtime.manifest import Program
from npuc.runtime.reference import Reference
from npuc.runtime.teacher_forcing import Split, split
from npuc.runtime.verify import encode_documents, read_documents, verify
from transformers import LlamaForCausalLM

Make = Callable[..., LLM]

KEYS = {
    "max_abs_error", "max_rel_error", "cosine", "min_cosine", "kl", "top1_agreement", "perplexity",
    "reference_perplexity", "positions",
}  # fmt: skip
BUCKETS = [
    ("prefill", 1, 8, 8),
    ("prefill", 2, 16, 16),
    ("extend", 3, 4, 40),
    ("decode", 1, 1, 16),
    ("decode", 4, 1, 40),
]


def test_an_exact_device_agrees(fake_llm: Make, tiny_model: Path) -> None:
    llm = fake_llm(*BUCKETS)
    report = verify(llm.artifact.path, tiny_model, device=llm.device)
    assert report.keys() >= KEYS
    assert report["max_rel_error"] < 1e-5
    assert report["max_abs_error"] < 1e-4
    assert report["min_cosine"] > 0.99999
    assert report["kl"] < 1e-6
    assert report["top1_agreement"] == 1.0
    assert report["perplexity"] == pytest.approx(report["reference_perplexity"], rel=1e-5)
    assert report["tokens"] == 4 * 39
    assert {p["name"] for p in report["programs"]} == {p.name for p in llm.device.programs}
    entries = {(name, entry) for name, entry, _ in llm.device.calls}  # pyright: ignore
    assert entries == {(p.name, entry) for p in llm.device.programs for entry in ("last", "all")}
    rows = {name: max(sum(map(bool, v)) for n, _, v in llm.device.calls if n == name) for name, _ in entries}  # pyright: ignore
    assert rows == {p.name: p.batch for p in llm.device.programs}, "every row of every program is used"


@pytest.mark.parametrize("kind", ["prefill", "extend", "decode"])
@pytest.mark.parametrize("entry", ["last", "all"])
def test_a_wrong_program_is_caught(fake_llm: Make, tiny_model: Path, kind: str, entry: str) -> None:
    llm = fake_llm(*BUCKETS)
    forward = llm.device.forward

    def wrong(program: Any, *args: Any) -> torch.Tensor:
        logits = forward(program, *args)
        if program.kind == kind and args[-1] == entry:
            logits[-1 if program.batch < 3 else 0] += 0.01
        return logits

    llm.device.forward = wrong  # pyright: ignore
    report = verify(llm.artifact.path, tiny_model, device=llm.device)
    assert report["max_abs_error"] == pytest.approx(0.01, rel=0.01)
    faulty = {p["name"].split("_")[0] for p in report["programs"] if p["max_rel_error"] > 1e-4}
    assert faulty == {kind}


@pytest.mark.parametrize(
    "buckets",
    [[("prefill", 1, 8, 8)], [("decode", 1, 1, 12)], [("extend", 2, 5, 12)], BUCKETS[:2] + BUCKETS[3:]],
)
def test_any_set_of_buckets_can_be_verified(fake_llm: Make, tiny_model: Path, buckets: list[Any]) -> None:
    llm = fake_llm(*buckets)
    report = verify(llm.artifact.path, tiny_model, device=llm.device)
    assert report["max_rel_error"] < 1e-5
    assert len(report["programs"]) == len(buckets)
    longest = max(length for _, _, _, length in buckets)
    assert report["tokens"] == 4 * (longest - 1)


def test_damage_and_wrong_references_are_errors(fake_llm: Make, tiny_model: Path, tmp_path: Path) -> None:
    llm = fake_llm(*BUCKETS)
    with pytest.raises(UserError) as caught:
        verify(llm.artifact.path, tmp_path / "nothing", device=llm.device)
    assert caught.value.kind == "missing-file"
    with pytest.raises(UserError) as caught:
        verify(llm.artifact.path, tiny_model, tmp_path / "nothing.txt", device=llm.device)
    assert caught.value.kind == "bad-text"
    path = llm.artifact.path / "weights/rank0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        verify(llm.artifact.path, tiny_model, device=llm.device)
    assert caught.value.kind == "damaged-artifact"


def test_nan_logits_are_an_error(fake_llm: Make, tiny_model: Path) -> None:
    llm = fake_llm(*BUCKETS)
    forward = llm.device.forward
    llm.device.forward = lambda *args: forward(*args) * float("nan")  # pyright: ignore
    with pytest.raises(UserError) as caught:
        verify(llm.artifact.path, tiny_model, device=llm.device)
    assert caught.value.kind == "non-finite-logits"


def bucket(kind: str, batch: int, new_tokens: int, length: int) -> Program:
    return Program(kind, kind, batch, length, new_tokens, "f", ("all",), {})


def test_splits() -> None:
    programs = [bucket("prefill", 1, 16, 16), bucket("decode", 1, 1, 64)]
    assert split(programs, 10, 4) == (6, 6, 10)
    assert split(programs, 3, 4) == (1, 1, 3)
    assert split(programs, 60, 4) == (16, 16, 60)
    assert split(programs, 100, 4) == (16, 16, 64)
    extended = [*programs, bucket("extend", 1, 8, 64)]
    assert split(extended, 10, 4) == (3, 6, 10)
    assert split(extended, 100, 4) == (16, 60, 64)


@example([("prefill", 1, 12, 0), ("extend", 1, 1, 0)], 12, 0)
@given(
    st.lists(
        st.tuples(st.sampled_from(Split._fields), st.integers(1, 3), st.integers(1, 12), st.integers(0, 20)),
        min_size=1,
    ),
    st.integers(1, 40),
    st.integers(0, 8),
)
def test_splits_can_be_run(sizes: list[tuple[str, int, int, int]], tokens: int, decoded: int) -> None:
    """Each kind of program takes a document as far as its part of the split says."""
    programs = [
        bucket(kind, batch, 1 if kind == "decode" else new, new + (0 if kind == "prefill" else more))
        for kind, batch, new, more in sizes
    ]
    parts, cached = split(programs, tokens, decoded), 0
    for kind, target in parts._asdict().items():
        usable = [program for program in programs if program.kind == kind]
        while cached < target:
            rest = 1 if kind == "decode" else target - cached
            taken = max((takes(program, Pending(cached, rest)) for program in usable), default=0)
            assert taken, f"{kind} stops at {cached} of {target}"
            cached += taken
    assert cached > 0


def test_comparison_by_hand() -> None:
    comparison = Comparison()
    comparison.add(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [4.0, 0.0]]))
    figures = comparison.figures()
    assert (figures["max_abs_error"], figures["max_rel_error"], figures["positions"]) == (4.0, 1.0, 2)
    assert (figures["cosine"], figures["min_cosine"], figures["top1_agreement"]) == (0.5, 0.0, 0.5)
    p = math.exp(4) / (math.exp(4) + 1)
    q = 1 / (1 + math.exp(2))
    assert figures["kl"] == pytest.approx((p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))) / 2)
    likelihood = Likelihood()
    assert likelihood.perplexity is None
    likelihood.add(torch.zeros(3, 5), torch.tensor([0, 1, 2]))
    assert likelihood.perplexity == pytest.approx(5.0)


def test_documents(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("  one\n\ntwo <|endoftext|>\n<|endoftext|> three")
    assert read_documents(path) == ["one\n\ntwo", "three"]
    path.write_text(" <|endoftext|> ")
    with pytest.raises(UserError):
        read_documents(path)


@pytest.mark.parametrize(("model", "expected"), [("stories260K", 3.436), ("stories3M", 3.302)])
def test_known_perplexities(shared: Path, model: str, expected: float) -> None:
    """Scoring is that of the published figures, which transformers alone reproduces."""
    from npuc.runtime.tokenizer import Tokenizer

    path = shared / "models" / model
    texts = read_documents(shared / "text" / "tinystories_valid.txt")
    documents = encode_documents(Tokenizer(path).encode, texts, 512)
    reference, likelihood = Reference(path, torch.float32), Likelihood()
    for tokens in documents:
        likelihood.add(reference.logits(tokens)[:-1], torch.tensor(tokens[1:]))
    assert likelihood.perplexity == pytest.approx(expected, abs=6e-4)


def test_a_diverged_checkpoint_is_one_error(tiny_model: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    torch.nn.init.constant_(model.model.norm.weight, math.nan)
    model.save_pretrained(tmp_path / "nan")
    with pytest.raises(UserError) as caught:
        Reference(tmp_path / "nan", torch.float32)
    assert caught.value.kind == "non-finite-logits"
