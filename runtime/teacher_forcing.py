"""Running known token sequences through the programs of a device, to get the logits of every position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from npuc.runtime.buckets import Call, Pending, decode_call, prompt_call, takes
from npuc.runtime.device import Device, Row, run_rows
from npuc.runtime.manifest import Program


class Logits(NamedTuple):
    """Logits [positions, V] of a document from its position ``start`` on, and the program that gave them.

    The program was given the document's tokens from position ``begin`` up to the last that has logits here.
    """

    program: Program
    entry: str
    document: int
    begin: int
    start: int
    values: torch.Tensor


class Split(NamedTuple):
    """Up to where a document is fed by prefill, then by extend, then by decode programs."""

    prefill: int
    extend: int
    decode: int


def reach(programs: Sequence[Program], kind: str) -> int:
    """The longest sequence that programs of a kind attend to; 0 when there are none."""
    return max((p.length for p in programs if p.kind == kind), default=0)


def split(programs: Sequence[Program], tokens: int, decoded: int) -> Split:
    """Divides a document among all kinds of programs, cut where no program goes on.

    Args:
        programs: of the device.
        tokens: the document's length.
        decoded: tokens at its end to leave for decode programs, if there are any.
    """
    prefill, extend, decode = (reach(programs, kind) for kind in Split._fields)
    prompt = min(max(prefill, extend), tokens)
    if decode and tokens:
        prompt = min(prompt, max(1, min(tokens, decode) - decoded))
    first = min(prefill, (prompt + 1) // 2 if extend > prefill else prompt)
    return Split(first, prompt, max(prompt, min(tokens, decode)))


class TeacherForcing:
    """Documents in the cache slots of a device, one slot each.

    Args:
        device: with at least as many slots as documents.
        documents: their tokens.
        on_logits: told the logits of every position that is run, and also of ``last`` at its first run.
        seen: names of the programs that have run; new ones are added.
    """

    def __init__(
        self,
        device: Device,
        documents: Sequence[Sequence[int]],
        on_logits: Callable[[Logits], None],
        seen: set[str],
    ) -> None:
        self._device = device
        self._documents = documents
        self._on_logits = on_logits
        self._seen = seen
        self._cached = [0] * len(documents)

    def run(self, splits: Sequence[Split]) -> None:
        """Runs every document, each kind of program up to where ``splits`` says."""
        for stage, kind in enumerate(Split._fields):
            self._run_stage(kind, [targets[stage] for targets in splits])

    def probe(self, program: Program) -> None:
        """Runs ``program`` once, with a document in every row, at the latest position that it can serve.

        There must be a document for each row.
        """
        prompts = [p for p in self._device.programs if p.kind != "decode"]
        rows = range(program.batch)
        starts = [self._probe_start(program, prompts, len(self._documents[i])) for i in rows]
        self.run([split(prompts, start, 0) for start in starts])
        counts = [takes(program, self._pending(i, len(self._documents[i]))) for i in rows]
        self._run_call(
            Call(program, tuple((i, n) for i, n in zip(rows, counts, strict=True) if n)), list(rows)
        )

    def _probe_start(self, program: Program, prompts: Sequence[Program], tokens: int) -> int:
        if program.kind == "prefill":
            return 0
        longest = max(reach(prompts, "prefill"), reach(prompts, "extend"))
        return min(max(0, min(tokens, program.length) - program.new_tokens), longest)

    def _pending(self, index: int, target: int) -> Pending:
        return Pending(self._cached[index], target - self._cached[index])

    def _run_stage(self, kind: str, targets: Sequence[int]) -> None:
        """Feeds every document up to its target with programs of one kind."""
        programs = [p for p in self._device.programs if p.kind == kind]
        while True:
            unfinished = [i for i, target in enumerate(targets) if self._cached[i] < target]
            if not unfinished:
                return
            if kind == "decode":
                call = decode_call(programs, [self._cached[i] for i in unfinished])
            else:
                call = prompt_call(programs, [self._pending(i, targets[i]) for i in unfinished])
            if call is None:
                raise RuntimeError(f"no {kind} program goes on")
            self._run_call(call, unfinished)

    def _run_call(self, call: Call, documents: Sequence[int]) -> None:
        """Runs a call whose row numbers count in ``documents``."""
        members = [(documents[index], count) for index, count in call.rows]
        rows = [
            Row(i, self._cached[i], self._documents[i][self._cached[i] : self._cached[i] + count])
            for i, count in members
        ]
        if call.program.name not in self._seen and "last" in call.program.entries:
            logits = run_rows(self._device, call.program, rows, "last")
            for row, (i, count) in enumerate(members):
                begin = self._cached[i]
                at = begin + count - 1
                self._on_logits(Logits(call.program, "last", i, begin, at, logits[row : row + 1]))
        self._seen.add(call.program.name)
        logits = run_rows(self._device, call.program, rows, "all")
        for row, (i, count) in enumerate(members):
            begin = self._cached[i]
            self._on_logits(Logits(call.program, "all", i, begin, begin, logits[row, :count]))
            self._cached[i] += count
