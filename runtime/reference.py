"""A checkpoint in transformers: the independent reference of what an artifact computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from npuc.ir.errors import UserError
from npuc.runtime.comparison import check_finite
from npuc.runtime.quantized_reference import load_quantized

if TYPE_CHECKING:
    from transformers import DynamicCache


class Reference:
    """A checkpoint in transformers, with eager attention.

    Attributes:
        scheduled: whether a token's logits depend on how far the run that it was in went.

    Args:
        model: the directory or hub id of the checkpoint.
        dtype: of weights and computation.
        recipe: how an artifact is quantized; the reference then has the values that its weights stand for.

    Raises:
        UserError: ``bad-reference`` when transformers cannot load it.
    """

    def __init__(
        self, model: Path | str, dtype: torch.dtype, recipe: Mapping[str, Any] | None = None
    ) -> None:
        from transformers import AutoModelForCausalLM

        options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "eager", "trust_remote_code": False}
        try:
            load = cast("Any", AutoModelForCausalLM).from_pretrained
            plain = recipe is None
            found: Any = load(model, **options) if plain else load_quantized(model, dtype, recipe)
            self._model: Any = found.eval()
        except UserError:
            raise
        except Exception as error:  # whatever a checkpoint's files make transformers raise
            first = str(error).strip().split("\n")[0]
            raise UserError(
                "bad-reference",
                f"transformers cannot load the reference: {first}",
                where=str(model),
                remedy="give the checkpoint that was compiled",
            ) from error
        self._name = str(model)
        self.scheduled = depends_on_schedule(self._model.config)
        self.vocab_size = self.logits([0]).shape[-1]

    @torch.no_grad()
    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """Float32 logits [positions, V] of a document.

        Raises:
            UserError: ``non-finite-logits``.
        """
        logits = self._model(torch.tensor([list(tokens)]), use_cache=False).logits[0].float()
        check_finite(logits, self._name)
        return logits

    @torch.no_grad()
    def next_logits(self, tokens: Sequence[int], cache: DynamicCache) -> torch.Tensor:
        """Float32 logits [positions, V] of tokens that follow those in the cache, which they are added to.

        Raises:
            UserError: ``non-finite-logits``.
        """
        inputs = torch.tensor([list(tokens)])
        logits = self._model(inputs, past_key_values=cache, use_cache=True).logits[0].float()
        check_finite(logits, self._name)
        return logits

    @torch.no_grad()
    def module_outputs(self, tokens: Sequence[int]) -> dict[str, torch.Tensor]:
        """What each module without children gives for a document, by its path."""
        found: dict[str, torch.Tensor] = {}

        def note(path: str, output: object) -> None:
            if isinstance(output, torch.Tensor):
                found[path] = output

        leaves = [(path, m) for path, m in self._model.named_modules() if not any(m.children())]
        hooks = [
            module.register_forward_hook(lambda m, inputs, output, path=path: note(path, output))
            for path, module in leaves
        ]
        try:
            self._model(torch.tensor([list(tokens)]), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def empty_cache(self) -> DynamicCache:
        """A cache for one document."""
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def document(self, tokens: Sequence[int]) -> ReferenceDocument:
        """A document whose logits are asked for run by run."""
        return ReferenceDocument(self, tokens)

    @torch.no_grad()
    def sample(self, start: int, length: int, seed: int) -> list[int]:
        """A document of ``length`` tokens drawn from the model itself."""
        generator = torch.Generator().manual_seed(seed)
        tokens = [start]
        while len(tokens) < length:
            scores = self.logits(tokens)[-1].softmax(-1)
            tokens.append(int(torch.multinomial(scores, 1, generator=generator)))
        return tokens


class ReferenceDocument:
    """The reference's logits of one document: of one run over all of it or, if need be, of the same runs."""

    def __init__(self, reference: Reference, tokens: Sequence[int]) -> None:
        self._reference, self._tokens = reference, tokens
        self._cache = reference.empty_cache()
        self._run = (0, 0 if reference.scheduled else len(tokens))
        self._logits = torch.empty(0) if reference.scheduled else reference.logits(tokens)

    def logits(self, begin: int, start: int, stop: int) -> torch.Tensor:
        """Logits of positions ``start`` up to ``stop``, where a run ends that began at ``begin``.

        Runs follow each other; of the last one the logits can be had again.
        """
        if self._reference.scheduled and self._run != (begin, stop):
            self._run = begin, stop
            self._logits = self._reference.next_logits(self._tokens[begin:stop], self._cache)
        first = self._run[0]
        return self._logits[start - first : stop - first]


def depends_on_schedule(config: Any) -> bool:
    """Whether a model's rotations depend on the length that a run reaches, as with longrope's two tables."""
    found: dict[str, Any] = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [found, *(value for value in found.values() if isinstance(value, dict))]
    return any(kind.get("rope_type") in ("longrope", "dynamic") for kind in kinds)
