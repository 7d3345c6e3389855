"""Text generation with an artifact: prompts in, texts out, on the simulated device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import torch
from npuc.ir.errors import UserError
from npuc.runtime.artifact import Artifact
from npuc.runtime.chat import Message, check_messages, choose_template, render_chat
from npuc.runtime.device import Device, SimulatorDevice
from npuc.runtime.sampling import SamplingParams
from npuc.runtime.scheduler import FinishReason, Generation, Scheduler
from npuc.runtime.tokenizer import TextStream, Tokenizer

Prompt = str | Sequence[int]


@dataclass(frozen=True)
class GenerationOutput:
    """What was generated for one prompt.

    Attributes:
        prompt: its text; decoded, for a prompt of token ids ("" without a tokenizer).
        text: the continuation, without stop string and special tokens ("" without a tokenizer).
        token_ids: the new tokens, with the one that ended the sequence.
        prompt_tokens: how many tokens the prompt has.
        finish_reason: ``stop`` (end of sequence or stop string) or ``length``.
        simulated_seconds: device time from getting a cache slot to the last token, with what ran in between
            for other prompts.
        prompt_token_ids: the prompt's tokens.
        logits: float32 [new tokens, V] that the tokens were chosen from, if asked for.
    """

    prompt: str
    text: str
    token_ids: list[int]
    prompt_tokens: int
    finish_reason: FinishReason
    simulated_seconds: float
    prompt_token_ids: list[int]
    logits: torch.Tensor | None = None


@dataclass(frozen=True)
class StreamPiece:
    """News of one prompt while it is generated: a token, the text it made certain, and whether it ended."""

    index: int
    token_id: int
    text: str
    finish_reason: FinishReason | None


OnPiece = Callable[[StreamPiece], None]


class LLM:
    """A compiled model, ready to generate.

    Args:
        artifact: the artifact's directory.
        device: where to run; by default a simulator of the artifact's target.

    Raises:
        UserError: when the artifact is damaged.
    """

    def __init__(self, artifact: Path | str, *, device: Device | None = None) -> None:
        self.artifact = Artifact(artifact)
        self.generation_config = self.artifact.read_json("model/generation_config.json")
        self._config = self.artifact.read_json("model/config.json")
        self._device = device

    @cached_property
    def device(self) -> Device:
        """The device, with the weights on it."""
        return self._device or SimulatorDevice(self.artifact)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            UserError: ``no-tokenizer`` or ``bad-tokenizer``.
        """
        return Tokenizer(self.artifact.model_path)

    @cached_property
    def _optional_tokenizer(self) -> Tokenizer | None:
        try:
            return self.tokenizer
        except UserError as error:
            if error.kind == "no-tokenizer":
                return None
            raise

    @cached_property
    def start_token(self) -> int:
        """A token to start a sequence of nothing with: beginning or end of sequence, or else 0."""
        for key in ("bos_token_id", "eos_token_id"):
            token = self.generation_config.get(key, self._config.get(key))
            if type(token) is int and 0 <= token < self.artifact.manifest.vocab_size:
                return token
        return 0

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """The end-of-sequence tokens of the generation configuration, or else of the configuration."""
        tokens = self.generation_config.get("eos_token_id", self._config.get("eos_token_id"))
        listed = cast("list[Any]", tokens) if isinstance(tokens, list) else [tokens]
        return frozenset(token for token in listed if type(token) is int)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        on_piece: OnPiece | None = None,
        special_tokens: bool = True,
    ) -> list[GenerationOutput]:
        """Generates a continuation of each prompt.

        All requests are checked before anything runs; then they share the device's batch buckets.

        Args:
            prompts: texts or lists of token ids, or one of them.
            params: sampling parameters of all, or a list with those of each; by default those of the model's
                generation configuration.
            on_piece: called with each token as it is made.
            special_tokens: whether the tokenizer adds its special tokens to texts.

        Returns:
            One output per prompt, in order.

        Raises:
            UserError: for requests that no bucket holds, unknown tokens, texts without a tokenizer, or logits
                that are not finite.
        """
        scheduler = Scheduler(self.device, self.end_tokens)
        requests: dict[int, _Request] = {}
        for index, (prompt, unfilled) in enumerate(_with_params(_listed(prompts), params)):
            filled = unfilled.filled_from(self.generation_config)
            tokens = self._encode(prompt, special_tokens)
            generation = scheduler.admit(tokens, filled)
            requests[id(generation)] = _Request(
                index, prompt, generation, self._stream(tokens, filled), on_piece
            )
        for request in requests.values():
            scheduler.add(request.generation)
        while scheduler.busy:
            for generation in scheduler.step():
                requests[id(generation)].report()
        return [self._output(request) for request in requests.values()]

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        template_variables: Mapping[str, Any] | None = None,
        on_piece: OnPiece | None = None,
    ) -> GenerationOutput:
        """Generates the answer to a chat; see :meth:`render` and :meth:`generate`."""
        prompt = self.render(
            messages,
            tools=tools,
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            template_variables=template_variables,
        )
        return self.generate([prompt], params, on_piece=on_piece, special_tokens=False)[0]

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        template_variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt's text for chat messages, by the model's chat template.

        Args:
            messages: objects with ``role``, ``content`` and whatever else the template reads.
            tools: descriptions of tools, for templates that know them.
            chat_template: a template to use instead of the model's.
            add_generation_prompt: whether to open the assistant's answer.
            template_variables: more for the template to read.

        Raises:
            UserError: ``bad-messages``, ``no-chat-template`` or ``chat-template``.
        """
        check_messages(messages)
        template = chat_template or choose_template(self.tokenizer.chat_templates, bool(tools))
        variables = {
            **self.tokenizer.special_tokens,
            **(template_variables or {}),
            "messages": [dict(message) for message in messages],
            "tools": [dict(tool) for tool in tools] if tools else None,
            "add_generation_prompt": add_generation_prompt,
        }
        return render_chat(template, variables)

    def _encode(self, prompt: Prompt, special_tokens: bool) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt, special_tokens)
        if not isinstance(prompt, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError("bad-prompt", f"a {type(prompt).__name__} is no prompt", where="prompt")
        return [int(token) if isinstance(token, Integral) else token for token in prompt]

    def _stream(self, prompt: Sequence[int], params: SamplingParams) -> TextStream | None:
        tokenizer = self.tokenizer if params.stop else self._optional_tokenizer
        return TextStream(tokenizer, prompt, params.stop) if tokenizer else None

    def _output(self, request: _Request) -> GenerationOutput:
        generation, stream = request.generation, request.stream
        prompt, text = list(generation.prompt), request.prompt
        if not isinstance(text, str):
            text = self.tokenizer.decode(prompt) if stream else ""
        return GenerationOutput(
            prompt=text,
            text=stream.text if stream else "",
            token_ids=generation.output,
            prompt_tokens=len(prompt),
            finish_reason=generation.finish_reason or "cancelled",
            simulated_seconds=generation.finished - generation.started,
            prompt_token_ids=prompt,
            logits=torch.stack(generation.logits) if generation.logits else None,
        )


class _Request:
    """A prompt of a call of ``generate``: its generation, its text, and who is told of it."""

    def __init__(
        self,
        index: int,
        prompt: Prompt,
        generation: Generation,
        stream: TextStream | None,
        on_piece: OnPiece | None,
    ) -> None:
        self.index = index
        self.prompt = prompt
        self.generation = generation
        self.stream = stream
        self._on_piece = on_piece
        self._text = ""
        generation.on_token = self._on_token

    def _on_token(self, token: int) -> FinishReason | None:
        if self.stream is None:
            return None
        self._text = self.stream.push(token)
        return "stop" if self.stream.stopped else None

    def report(self) -> None:
        """Tells of the newest token."""
        reason = self.generation.finish_reason
        text, self._text = self._text, ""
        if reason is not None and self.stream is not None:
            text += self.stream.finish()
        if self._on_piece is not None:
            self._on_piece(StreamPiece(self.index, self.generation.output[-1], text, reason))


def _listed(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """A list of prompts from one or many."""
    if isinstance(prompts, str):
        return [prompts]
    many = list(prompts)
    if many and all(isinstance(entry, Integral) for entry in many):
        return [cast("list[int]", many)]
    return cast("list[Prompt]", many)


def _with_params(
    prompts: list[Prompt], params: SamplingParams | Sequence[SamplingParams] | None
) -> list[tuple[Prompt, SamplingParams]]:
    """Each prompt with its parameters.

    Raises:
        UserError: ``bad-parameter`` when there are not as many parameters as prompts.
    """
    if params is None or isinstance(params, SamplingParams):
        return [(prompt, params or SamplingParams()) for prompt in prompts]
    if len(params) != len(prompts):
        raise UserError("bad-parameter", f"{len(params)} sampling parameters for {len(prompts)} prompts")
    return list(zip(prompts, params, strict=True))
