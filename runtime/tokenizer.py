"""Text to token ids and back, with an artifact's tokenizer: not from the network, not with its own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from npuc.ir.errors import UserError

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
_CONTEXT = 8
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """The tokenizer in a model directory.

    Args:
        directory: with ``tokenizer.json`` or the files of a slow tokenizer.

    Raises:
        UserError: ``no-tokenizer`` when there is none, ``bad-tokenizer`` when it cannot be loaded.
    """

    def __init__(self, directory: Path) -> None:
        if not any((directory / name).is_file() for name in _FILES):
            raise UserError(
                "no-tokenizer", "the model has no tokenizer", where=str(directory), remedy="give token ids"
            )
        from transformers import AutoTokenizer  # a second of imports that token ids do not need

        try:
            load = cast("Any", AutoTokenizer).from_pretrained
            self._tokenizer: Any = load(directory, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever its file makes transformers and tokenizers raise
            raise UserError(
                "bad-tokenizer", f"cannot load the tokenizer: {error}", where=str(directory)
            ) from error

    def encode(self, text: str, special_tokens: bool = True) -> list[int]:
        """Token ids of a text; ``special_tokens`` adds what the tokenizer puts around a text, as ``<s>``.

        Raises:
            UserError: ``bad-prompt`` for a text that is not Unicode.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            what = f"character {error.start} is {text[error.start]!a}"
            raise UserError("bad-prompt", f"the text is not UTF-8: {what}", where="prompt") from error
        encoded = self._tokenizer(text, add_special_tokens=special_tokens, verbose=False)
        return [int(token) for token in encoded["input_ids"]]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def chat_templates(self) -> dict[str, str]:
        """The chat templates by name; a single one is called ``default``."""
        template = self._tokenizer.chat_template
        if isinstance(template, dict):
            return {str(k): str(v) for k, v in cast("dict[object, object]", template).items()}
        return {"default": template} if template else {}

    @property
    def special_tokens(self) -> dict[str, str]:
        """The named special tokens, as ``bos_token``, that chat templates may use."""
        named = cast("dict[str, Any]", self._tokenizer.special_tokens_map)
        return {name: str(token) for name, token in named.items() if isinstance(token, str)}


class TextStream:
    """The text of a growing list of tokens, in pieces that never have to be taken back.

    Text is the continuation of the prompt, with the space that a tokenizer strips at the start of a text. It
    is held back while it ends in an incomplete character or in what may become a stop string.

    Args:
        tokenizer: of the tokens.
        prompt: token ids before them.
        stop: strings that end the text.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._context = list(prompt[-_CONTEXT:])
        self._before = tokenizer.decode(self._context)
        self._stop = tuple(stop)
        self._tokens: list[int] = []
        self._given = 0
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that became certain with one more token; sets ``stopped`` after a stop string."""
        self._tokens.append(token)
        self.text = self._decoded()
        found = [at for at in (self.text.find(stop, self._search_start()) for stop in self._stop) if at >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True
            return self._give(len(self.text))
        return self._give(len(self.text) - self._held_back())

    def finish(self) -> str:
        """The rest of the text."""
        return self._give(len(self.text))

    def _decoded(self) -> str:
        whole = self._tokenizer.decode([*self._context, *self._tokens])
        if whole.startswith(self._before):
            return whole[len(self._before) :]
        return self._tokenizer.decode(self._tokens)

    def _search_start(self) -> int:
        """Where a stop string not seen before may begin: given text holds none."""
        return max(0, self._given - max(map(len, self._stop)))

    def _held_back(self) -> int:
        """How many characters at the end may still change."""
        complete = self.text.rstrip(_REPLACEMENT)
        incomplete = min(
            len(self.text) - len(complete), 3
        )  # a character has at most three bytes before its last
        certain = self.text[: len(self.text) - incomplete]
        longest = max(map(len, self._stop), default=1)
        for length in range(min(longest - 1, len(certain)), 0, -1):
            if any(stop.startswith(certain[-length:]) for stop in self._stop):
                return incomplete + length
        return incomplete

    def _give(self, end: int) -> str:
        piece = self.text[self._given : end]
        self._given = max(self._given, end)
        return piece
