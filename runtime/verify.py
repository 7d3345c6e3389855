"""Comparing an artifact's logits with those of transformers, and its perplexity on a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from npuc.frontends.checkpoint import open_checkpoint
from npuc.ir.errors import UserError
from npuc.ir.files import read_text
from npuc.runtime.artifact import Artifact
from npuc.runtime.comparison import Comparison, Likelihood, check_finite
from npuc.runtime.device import Device
from npuc.runtime.element_types import element_type
from npuc.runtime.llm import LLM
from npuc.runtime.manifest import Manifest
from npuc.runtime.reference import Reference
from npuc.runtime.teacher_forcing import Logits, TeacherForcing, reach, split

SEPARATOR = "<|endoftext|>"
MAX_TEXT = 64 << 20
SAMPLED_DOCUMENTS, SAMPLED_TOKENS = 4, 96
Progress = Callable[[str], None]


def read_documents(path: Path | str) -> list[str]:
    """The documents of a text file, which ``<|endoftext|>`` separates, without surrounding space.

    Raises:
        UserError: ``bad-text`` when the file cannot be read or holds no document.
    """
    text = read_text(path, "bad-text")
    if len(text) > MAX_TEXT:
        raise UserError("bad-text", f"the text has more than {MAX_TEXT} characters", where=str(path))
    documents = [part.strip() for part in text.split(SEPARATOR)]
    documents = [document for document in documents if document]
    if not documents:
        raise UserError("bad-text", "the file holds no text", where=str(path))
    return documents


@dataclass
class _Verification:
    """The state of one verification: logits of the reference, and figures so far."""

    device: Device
    reference: Reference
    documents: list[list[int]]
    overall: Comparison = field(default_factory=Comparison)
    ours: Likelihood = field(default_factory=Likelihood)
    theirs: Likelihood = field(default_factory=Likelihood)
    programs: dict[str, Comparison] = field(default_factory=dict[str, Comparison])
    seen: set[str] = field(default_factory=set[str])

    def run(self, decoded: int, progress: Progress | None) -> None:
        """Runs all documents, then every program that they left out."""
        slots = self.device.slots
        for start in range(0, len(self.documents), slots):
            group = self.documents[start : start + slots]
            if progress:
                progress(f"documents {start + 1} to {start + len(group)} of {len(self.documents)}")
            forcing = self._forcing(group, scored=True)
            forcing.run([split(self.device.programs, len(tokens), decoded) for tokens in group])
        for program in self.device.programs:
            if program.name not in self.seen:
                if progress:
                    progress(program.name)
                rows = [self.documents[row % len(self.documents)] for row in range(program.batch)]
                self._forcing(rows, scored=False).probe(program)

    def _forcing(self, documents: list[list[int]], *, scored: bool) -> TeacherForcing:
        expected = [self.reference.document(tokens) for tokens in documents]

        def compare(found: Logits) -> None:
            check_finite(found.values, f"program {found.program.name}")
            tokens, stop = documents[found.document], found.start + len(found.values)
            wanted = expected[found.document].logits(found.begin, found.start, stop)
            self.overall.add(found.values, wanted)
            self.programs.setdefault(found.program.name, Comparison()).add(found.values, wanted)
            if scored and found.entry == "all":
                following = torch.tensor(tokens[found.start + 1 : stop + 1])
                self.ours.add(found.values[: len(following)], following)
                self.theirs.add(wanted[: len(following)], following)

        return TeacherForcing(self.device, documents, compare, self.seen)

    def figures(self) -> dict[str, Any]:
        """What was found: see `verify`."""
        return {
            **self.overall.figures(),
            "perplexity": self.ours.perplexity,
            "reference_perplexity": self.theirs.perplexity,
            "documents": len(self.documents),
            "tokens": self.ours.tokens,
            "programs": [
                {"name": name, "positions": figures.positions, "max_rel_error": figures.max_rel_error}
                for name, figures in sorted(self.programs.items())
            ],
        }


def verify(
    artifact: Path | str,
    against_model: Path | str,
    text_file: Path | str | None = None,
    *,
    max_documents: int | None = None,
    decoded: int = 8,
    device: Device | None = None,
    progress: Progress | None = None,
    exact: bool = False,
) -> dict[str, Any]:
    """Compares the logits of every program of an artifact with transformers' eager ones in the same type.

    Each document is scored alone: with the special tokens that the tokenizer adds, cut at the artifact's
    context, run through prefill, extend and decode programs. Programs that the documents leave out run once.

    Args:
        artifact: the artifact's directory; the hashes of all its files are checked first.
        against_model: the checkpoint, a directory or hub id.
        text_file: documents separated by ``<|endoftext|>``; without it, documents sampled from the reference.
        max_documents: use only so many.
        decoded: tokens at the end of each document to leave for decode programs.
        device: where to run; by default a simulator of the artifact's target.
        progress: told what is being run.
        exact: the reference is the checkpoint in float32, whatever the artifact was rounded to.

    Returns:
        max_abs_error, max_rel_error (of the largest reference logit), cosine (mean over positions),
        min_cosine, kl (mean, in nats, of the artifact from the reference), top1_agreement, positions,
        perplexity and reference_perplexity (per token, over the same tokens), documents, tokens, dtype,
        quantization (None, or the ``scheme`` and whether ``inputs`` are rounded too), and for each program
        its name, positions and max_rel_error.

    Raises:
        UserError: for a damaged artifact, an unsuitable reference or text, or logits that are not finite.
    """
    opened = Artifact(artifact)
    opened.check()
    llm = LLM(artifact, device=device)
    reference = _reference(against_model, opened.manifest, exact)
    state = _Verification(llm.device, reference, _documents(llm, reference, text_file, max_documents))
    state.run(decoded, progress)
    recipe = opened.manifest.recipe
    quantization = recipe and {"scheme": recipe["scheme"] or "checkpoint", "inputs": recipe["inputs"]}
    return {**state.figures(), "dtype": opened.manifest.dtype, "quantization": quantization}


def _reference(model: Path | str, manifest: Manifest, exact: bool) -> Reference:
    """The reference in the artifact's type, with its rounded weights; or the checkpoint's own in float32.

    Raises:
        UserError: ``bad-reference`` when it is another model; as `open_checkpoint`.
    """
    dtype, recipe = element_type(manifest.dtype).torch_type, manifest.recipe
    if exact:
        dtype, recipe = torch.float32, recipe and {**recipe, "weights": []}
    reference = Reference(open_checkpoint(model).root, dtype, recipe)
    if reference.vocab_size != manifest.vocab_size:
        raise UserError(
            "bad-reference",
            f"the reference has {reference.vocab_size} tokens, the artifact {manifest.vocab_size}",
            where=str(model),
            remedy="give the checkpoint that was compiled",
        )
    return reference


def _documents(
    llm: LLM, reference: Reference, text_file: Path | str | None, max_documents: int | None
) -> list[list[int]]:
    """Tokens of the documents to run, cut at the artifact's context."""
    manifest = llm.artifact.manifest
    longest = max(reach(manifest.programs, kind) for kind in ("prefill", "extend", "decode"))
    limit = min(manifest.max_context, longest)
    if text_file is None:
        start = llm.start_token
        count = min(SAMPLED_DOCUMENTS, max_documents or SAMPLED_DOCUMENTS)
        return [reference.sample(start, min(limit, SAMPLED_TOKENS), seed) for seed in range(count)]
    texts = read_documents(text_file)[:max_documents]
    return encode_documents(llm.tokenizer.encode, texts, limit)


def encode_documents(encode: Callable[[str], list[int]], texts: Sequence[str], limit: int) -> list[list[int]]:
    """Tokens of each text, cut to ``limit``.

    Raises:
        UserError: ``bad-text`` when none has a token.
    """
    documents = [tokens for tokens in (encode(text)[:limit] for text in texts) if tokens]
    if not documents:
        raise UserError("bad-text", "the text has no tokens")
    return documents
