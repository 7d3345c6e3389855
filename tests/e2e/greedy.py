"""What transformers generates greedily, and prompts to begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from npuc.runtime.llm import LLM
from npuc.runtime.sampling import SamplingParams
from npuc.runtime.verify import read_documents

SHORTEST, LONGER = 8, 11  # tokens of the first prompt, and how many each next one is longer


def beginnings(text: Path, encode: Callable[[str], list[int]], count: int) -> list[list[int]]:
    """Beginnings of the documents of a text, each longer than the one before."""
    documents = [encode(document) for document in read_documents(text)]
    return [documents[i % len(documents)][: SHORTEST + LONGER * i] for i in range(count)]


def letters(length: int, vocabulary: int, count: int) -> list[list[int]]:
    """Random prompts of one length, for models of no text."""
    drawn = torch.randint(vocabulary, (count, length), generator=torch.Generator().manual_seed(0))
    return drawn.tolist()


def reference_tokens(folder: Path, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
    """The tokens that transformers' generate adds to each prompt, in fp32, past any end of sequence."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    options = {"do_sample": False, "max_new_tokens": new_tokens, "eos_token_id": None, "pad_token_id": 0}
    found: list[list[int]] = []
    for prompt in prompts:
        tokens = torch.tensor([list(prompt)])
        out = model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
        found.append(out[0, len(prompt) :].tolist())
    return found


def npu_tokens(llm: LLM, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
    """The tokens that an artifact adds to each prompt, all prompts in one call."""
    params = SamplingParams(max_tokens=new_tokens, temperature=0.0, ignore_eos=True)
    return [output.token_ids for output in llm.generate(prompts, params)]
