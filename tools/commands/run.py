"""Generate text with an artifact on the simulated NPU.

Without --prompt the prompt is read from standard input. The text is printed as it is generated; times are
those of the simulated NPU, from the timing model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, duration
from npuc.tools.paths import existing, writable

if TYPE_CHECKING:
    from npuc.runtime.llm import LLM, GenerationOutput, StreamPiece
    from npuc.runtime.sampling import SamplingParams


DEFAULT_NEW_TOKENS = 64  # or fewer, where the artifact's programs have no room for so many


def _token_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of token ids, such as 1,42,7") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc run`; sampling flags are named as in transformers' GenerationConfig."""
    parser.add_argument("artifact", metavar="ARTIFACT", type=existing)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", action="append", help="text to continue; may be given several times")
    prompt.add_argument(
        "--prompt-ids", action="append", type=_token_ids, metavar="ID,…", help="the prompt as token ids"
    )
    parser.add_argument("--chat", action="store_true", help="the prompt is a message: use the chat template")
    parser.add_argument("--system", metavar="TEXT", help="system message, with --chat")
    sampling = parser.add_argument_group("sampling", "by default as the model's generation_config.json says")
    sampling.add_argument(
        "--max-tokens", "--max-new-tokens", type=int, metavar="N", help=f"default {DEFAULT_NEW_TOKENS}"
    )
    sampling.add_argument("--temperature", type=float, help="0 is greedy")
    sampling.add_argument("--top-k", type=int)
    sampling.add_argument("--top-p", type=float)
    sampling.add_argument("--min-p", type=float)
    sampling.add_argument("--repetition-penalty", type=float)
    sampling.add_argument("--seed", type=int, help="the same seed draws the same text")
    sampling.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    sampling.add_argument("--ignore-eos", action="store_true", help="go on after the end-of-sequence token")
    parser.add_argument(
        "--return-logits",
        type=writable,
        metavar="FILE",
        help="write the logits tokens were chosen from: safetensors, logits.I [tokens, V] of prompt I",
    )


def _parameters(arguments: argparse.Namespace, room: int) -> SamplingParams:
    from npuc.runtime.sampling import SamplingParams

    limit = arguments.max_tokens
    return SamplingParams(
        max_tokens=min(DEFAULT_NEW_TOKENS, room) if limit is None else limit,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        seed=arguments.seed,
        stop=tuple(arguments.stop),
        ignore_eos=arguments.ignore_eos,
        return_logits=arguments.return_logits is not None,
    )


def execute(arguments: argparse.Namespace) -> Outcome:
    """Generate."""
    from npuc.runtime.buckets import capacity
    from npuc.runtime.llm import LLM

    llm = LLM(arguments.artifact)
    prompts = _prompts(arguments, llm)
    special = not arguments.chat
    lengths = [len(llm.tokenizer.encode(p, special)) if isinstance(p, str) else len(p) for p in prompts]
    room = min(capacity(llm.artifact.manifest.programs, length) for length in lengths)
    streaming = len(prompts) == 1 and not arguments.json
    echo = prompts[0] if isinstance(prompts[0], str) and not arguments.chat else ""
    show = _Show(echo) if streaming else None
    outputs = llm.generate(prompts, _parameters(arguments, room), on_piece=show, special_tokens=special)
    if arguments.return_logits:
        _write_logits(arguments.return_logits, outputs)
    if streaming:
        print("" if _has_tokenizer(llm) else " ".join(map(str, outputs[0].token_ids)), flush=True)
        print(_speed(outputs[0]), file=sys.stderr)
        return Outcome({})
    listed = [_data(output) for output in outputs]
    data = {**listed[0], **({"outputs": listed} if len(listed) > 1 else {})}
    return Outcome(data, "\n\n".join(f"{output.prompt}{output.text}" for output in outputs))


def _prompts(arguments: argparse.Namespace, llm: LLM) -> list[Any]:
    """The prompts, each a text or a list of token ids."""
    if arguments.prompt_ids:
        return list(arguments.prompt_ids)
    texts: list[str] = arguments.prompt or [sys.stdin.read()]
    if not arguments.chat:
        return list(texts)
    system = [{"role": "system", "content": arguments.system}] if arguments.system else []
    return [llm.render([*system, {"role": "user", "content": text}]) for text in texts]


def _write_logits(path: Path, outputs: list[GenerationOutput]) -> None:
    from npuc.ir.files import write_atomically
    from safetensors.torch import save

    tensors = {f"logits.{i}": o.logits for i, o in enumerate(outputs) if o.logits is not None}
    write_atomically(path, save(tensors))


def _has_tokenizer(llm: LLM) -> bool:
    """Whether tokens can be shown as text."""
    try:
        return bool(llm.tokenizer)
    except UserError:
        return False


class _Show:
    """Prints text as it is made, after the prompt; nothing before the first token, which may never come."""

    def __init__(self, prompt: str) -> None:
        self._pending = prompt

    def __call__(self, piece: StreamPiece) -> None:
        print(self._pending + piece.text, end="", flush=True)
        self._pending = ""


def _speed(output: GenerationOutput) -> str:
    count, seconds = len(output.token_ids), output.simulated_seconds
    prompt = f"{output.prompt_tokens} prompt token{'s' if output.prompt_tokens != 1 else ''}"
    speed = f"simulated {duration(seconds)}, {count / seconds:.0f} tokens/s"
    return f"[{prompt}, {count} new, {output.finish_reason}; {speed}]"


def _data(output: GenerationOutput) -> dict[str, object]:
    return {
        "prompt": output.prompt,
        "text": output.text,
        "token_ids": output.token_ids,
        "prompt_tokens": output.prompt_tokens,
        "finish_reason": output.finish_reason,
        "simulated_seconds": output.simulated_seconds,
    }
