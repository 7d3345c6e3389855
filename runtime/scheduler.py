"""Continuous batching: many sequences on the cache slots and batch buckets of one device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from npuc.ir.errors import UserError
from npuc.runtime.buckets import Call, Pending, check_request, decode_call, prompt_call
from npuc.runtime.device import Device, Row, run_rows
from npuc.runtime.sampling import Sampler, SamplingParams

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(eq=False)
class Generation:
    """A prompt and what has been generated after it.

    Attributes:
        prompt: its token ids.
        params: sampling parameters with nothing unset.
        limit: new tokens at most.
        on_token: called after each new token but one that ends the sequence; a returned reason ends it.
        output: the new token ids.
        logits: what each was chosen from, if the parameters ask for it.
        cached: tokens in the cache.
        started, finished: the device's simulated clock when it got its slot and when it ended, in seconds.
    """

    prompt: Sequence[int]
    params: SamplingParams
    limit: int
    on_token: Callable[[int], FinishReason | None] = lambda token: None
    output: list[int] = field(default_factory=list[int])
    logits: list[torch.Tensor] = field(default_factory=list[torch.Tensor])
    slot: int = -1
    cached: int = 0
    finish_reason: FinishReason | None = None
    started: float = 0.0
    finished: float = 0.0

    def __post_init__(self) -> None:
        self._sampler = Sampler(self.params)

    @property
    def pending(self) -> Pending:
        """What of it is not in the cache."""
        return Pending(self.cached, len(self.prompt) + len(self.output) - self.cached)

    @property
    def in_prompt(self) -> bool:
        """Whether a part of the prompt is not in the cache."""
        return self.cached < len(self.prompt)

    def take(self, count: int) -> Row:
        """The row that puts its next ``count`` tokens in the cache."""
        tokens = [*self.prompt, *self.output][self.cached : self.cached + count]
        return Row(self.slot, self.cached, tokens)

    def sample(self, logits: torch.Tensor) -> int:
        """Chooses and appends the next token."""
        token = self._sampler.next_token(logits, [*self.prompt, *self.output])
        self.output.append(token)
        if self.params.return_logits:
            self.logits.append(logits.clone())
        return token


class Scheduler:
    """Runs sequences on a device, prompts before decoding, until each has ended.

    Args:
        device: where to run.
        end_tokens: the model's end-of-sequence tokens.
    """

    def __init__(self, device: Device, end_tokens: Collection[int] = ()) -> None:
        self.device = device
        self.clock = 0.0
        self._end_tokens = frozenset(end_tokens)
        self._free = list(range(device.slots))
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._round: list[Generation] = []

    def admit(self, prompt: Sequence[int], params: SamplingParams) -> Generation:
        """A sequence for a prompt, after checking that the device can hold it; :meth:`add` starts it.

        Raises:
            UserError: ``empty-prompt``, ``bad-token``, ``prompt-too-long`` or ``request-too-long``.
        """
        if not prompt:
            raise UserError("empty-prompt", "the prompt has no tokens", where="prompt")
        for index, token in enumerate(prompt):
            if type(token) is not int or not 0 <= token < self.device.vocab_size:
                raise UserError(
                    "bad-token",
                    f"token {index} is {token!r}, the model has tokens 0 to {self.device.vocab_size - 1}",
                    where="prompt",
                    remedy="encode the prompt with this model's tokenizer",
                )
        limit = check_request(self.device.programs, len(prompt), params.max_tokens)
        return Generation(list(prompt), params, limit)

    def add(self, sequence: Generation) -> None:
        """Queues a sequence; it starts when a cache slot is free."""
        self._waiting.append(sequence)

    def cancel(self, sequence: Generation) -> None:
        """Ends a sequence, waiting or running."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            sequence.finish_reason = "cancelled"
        elif sequence in self._running:
            self._finish(sequence, "cancelled")

    @property
    def busy(self) -> bool:
        """Whether a sequence waits or runs."""
        return bool(self._waiting or self._running)

    def step(self) -> list[Generation]:
        """Runs one program.

        Returns:
            The sequences that it gave a token.
        """
        while self._free and self._waiting:
            sequence = self._waiting.popleft()
            sequence.slot = self._free.pop(0)
            sequence.started = self.clock
            self._running.append(sequence)
        prompts = [s for s in self._running if s.in_prompt]
        if prompts:
            return self._run(prompts, prompt_call(self.device.programs, [s.pending for s in prompts]))
        self._round = [s for s in self._round if s.finish_reason is None] or list(self._running)
        if not self._round:
            return []
        return self._run(self._round, decode_call(self.device.programs, [s.cached for s in self._round]))

    def _run(self, sequences: list[Generation], call: Call | None) -> list[Generation]:
        """Runs a call and gives a token to every sequence whose tokens are all in the cache then."""
        if call is None:
            raise RuntimeError("an admitted sequence fits no program")
        members = [(sequences[index], count) for index, count in call.rows]
        logits = run_rows(self.device, call.program, [s.take(count) for s, count in members])
        self.clock += self.device.seconds(call.program)
        advanced: list[Generation] = []
        for row, (sequence, count) in enumerate(members):
            sequence.cached += count
            if not sequence.pending.rest:
                advanced.append(sequence)
                self._advance(sequence, logits[row])
        self._round = [s for s in self._round if s not in advanced]
        return advanced

    def _advance(self, sequence: Generation, logits: torch.Tensor) -> None:
        token = sequence.sample(logits)
        ends = token in self._end_tokens and not sequence.params.ignore_eos
        ends = ends or token in sequence.params.stop_token_ids
        reason = "stop" if ends else sequence.on_token(token)
        if reason is None and len(sequence.output) >= sequence.limit:
            reason = "length"
        if reason is not None:
            self._finish(sequence, reason)

    def _finish(self, sequence: Generation, reason: FinishReason) -> None:
        sequence.finish_reason = reason
        sequence.finished = self.clock
        self._running.remove(sequence)
        self._free.append(sequence.slot)
        self._free.sort()
