"""Tokenizers, incremental text, stop strings and chat templates."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.ir.errors import UserError
from npuc.runtime import chat
from npuc.runtime.chat import render_chat
from npuc.runtime.llm import LLM, StreamPiece
from npuc.runtime.sampling import SamplingParams
from npuc.runtime.tokenizer import TextStream, Tokenizer
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoTokenizer

LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% elif m.role == 'assistant' %}{% generation %} {{ m.content }} {{ eos_token }}{% endgeneration %}"
    "{% else %}{{ raise_exception('unknown role ' + m.role) }}{% endif %}{% endfor %}"
    "{%- if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}>{% endif %}"
)


def byte_tokenizer(path: Path) -> Path:
    """A tokenizer whose tokens are single bytes, so that most characters take several; 256 ends a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    raw = RawTokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<end>"])
    path.mkdir(parents=True, exist_ok=True)
    raw.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>", "chat_template": LLAMA_2}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(byte_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def streamed(tokenizer: Tokenizer, prompt: str, tokens: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(tokenizer, tokenizer.encode(prompt), stop)
    pieces = list[str]()
    for token in tokens:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return [*pieces, stream.finish()]


@settings(deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_pieces_are_whole_characters_and_add_up(byte_level: Tokenizer, prompt: str, text: str) -> None:
    pieces = streamed(byte_level, prompt, byte_level.encode(text))
    assert "".join(pieces) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_text_is_not_held_back_without_need(byte_level: Tokenizer) -> None:
    assert streamed(byte_level, "", byte_level.encode("aé🙂b")) == ["a", "", "é", "", "", "", "🙂", "b", ""]


def test_bytes_that_are_no_text_come_out_at_the_end(byte_level: Tokenizer) -> None:
    start_of_emoji = byte_level.encode("🙂")[:2]
    assert "".join(streamed(byte_level, "", start_of_emoji)) == byte_level.decode(start_of_emoji)


@settings(deadline=None)
@given(st.text("abc", max_size=12), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3))
def test_text_ends_before_the_first_stop_string(byte_level: Tokenizer, text: str, stop: list[str]) -> None:
    found = [text.find(s) + len(s) for s in stop if s in text]
    result = "".join(streamed(byte_level, "", byte_level.encode(text), tuple(stop)))
    if not found:
        assert result == text
    else:
        ended = text[: min(found)]
        assert result == ended[: min(ended.find(s) for s in stop if s in ended)]


def test_the_space_after_the_prompt_is_kept(tmp_path: Path) -> None:
    """A tokenizer that strips the first space must not strip the one between prompt and continuation."""
    raw = RawTokenizer(
        models.BPE(vocab={"<unk>": 0, "\u2581a": 1, "\u2581b": 2}, merges=[], unk_token="<unk>")
    )
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.decode([2]) == "b"
    stream = TextStream(tokenizer, [1])
    assert stream.push(2) + stream.push(1) == " b a"


def test_the_network_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a tokenizer went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert Tokenizer(byte_tokenizer(tmp_path)).encode("ab") == [64, 65]


def test_tokenizer_code_is_not_run(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with contextlib.suppress(UserError):
        Tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 3}', "\x00" * 100])
def test_damaged_tokenizers_are_one_error(tmp_path: Path, text: str) -> None:
    byte_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError) as caught:
        Tokenizer(tmp_path)
    assert caught.value.kind == "bad-tokenizer"


MESSAGES = [
    {"role": "user", "content": " hi "},
    {"role": "assistant", "content": "<b>"},
    {"role": "user", "content": "é"},
]


def test_templates_render_as_in_transformers(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_tokenizer(tmp_path))
    tools = [{"type": "function", "function": {"name": "f", "description": "<é>"}}]
    for extra in ({"tools": tools}, {}):
        expected = tokenizer.apply_chat_template(
            MESSAGES, tokenize=False, add_generation_prompt=True, **extra
        )
        variables: dict[str, Any] = {
            **Tokenizer(tmp_path).special_tokens,
            "messages": MESSAGES,
            "tools": None,
            "add_generation_prompt": True,
            **extra,
        }
        assert render_chat(LLAMA_2, variables) == expected


HOSTILE = {
    "syntax": "{% for %}",
    "attribute": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['os'].name }}",
    "mutation": "{{ messages.append(1) }}",
    "undefined": "{{ messages[0].x.y }}",
    "refusal": "{{ raise_exception('no system role') }}",
    "import": "{% import 'os' as os %}",
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "type": "{{ 1 + 'a' }}",
    "memory": "{{ 'a' * 10**10 }}",
    "format": "{{ '%9999999999d' | format(1) }}",
    "output": "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_bad_templates_are_one_error(template: str) -> None:
    with pytest.raises(UserError) as caught:
        render_chat(template, {"messages": MESSAGES})
    assert caught.value.kind == "chat-template"
    assert len(str(caught.value)) < 500


def test_endless_templates_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "MAX_SECONDS", 1)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    started = time.monotonic()
    with pytest.raises(UserError, match=r"processor time|longer than"):
        render_chat(loop, {"messages": []})
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "messages", [[], "hello", ["hello"], [{"content": "x"}], [{"role": 1}], [{"role": "u", "x": {1}}]]
)
def test_bad_messages(fake_text_llm: LLM, messages: Any) -> None:
    with pytest.raises(UserError) as caught:
        fake_text_llm.chat(messages)
    assert caught.value.kind == "bad-messages"


@pytest.fixture
def fake_text_llm(fake_llm: Callable[..., LLM], tmp_path: Path) -> LLM:
    """A random model of 257 byte tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = byte_tokenizer(tmp_path / "bytes")
    config = LlamaConfig(
        vocab_size=257, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(model)
    (model / "generation_config.json").write_text('{"eos_token_id": 256, "do_sample": true, "top_k": 30}')
    return fake_llm(("prefill", 1, 64, 64), ("decode", 2, 1, 96), model=model, vocab_size=257)


def test_text_in_text_out(fake_text_llm: LLM) -> None:
    pieces: list[StreamPiece] = []
    params = SamplingParams(max_tokens=24, seed=1, ignore_eos=True)
    one, two = fake_text_llm.generate(["Once", "upon"], params, on_piece=pieces.append)
    tokenizer = fake_text_llm.tokenizer
    assert one.prompt == "Once"
    assert one.prompt_token_ids == tokenizer.encode("Once")
    assert one.text == tokenizer.decode(one.token_ids)
    for index, output in enumerate((one, two)):
        assert "".join(piece.text for piece in pieces if piece.index == index) == output.text
    again = fake_text_llm.generate(["Once"], params)[0]
    assert (again.token_ids, again.text) == (one.token_ids, one.text)
    assert len(set(one.token_ids)) > 3, "the generation config asks for sampling"
    stop = one.text[5:7]
    stopped = fake_text_llm.generate(
        "Once", SamplingParams(max_tokens=24, seed=1, ignore_eos=True, stop=stop)
    )[0]
    assert stopped.text == one.text[: one.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == one.token_ids[: len(stopped.token_ids)]


@pytest.mark.parametrize("prompt", [[None], ["a\udcffb"]])
def test_what_is_no_text_is_refused(fake_text_llm: LLM, prompt: Any) -> None:
    with pytest.raises(UserError) as caught:
        fake_text_llm.generate(prompt)
    assert caught.value.kind == "bad-prompt"


def test_chat(fake_text_llm: LLM) -> None:
    output = fake_text_llm.chat(MESSAGES, SamplingParams(max_tokens=2))
    assert output.prompt == "[INST] hi [/INST] <b> <end>[INST] é [/INST]>"
    assert output.prompt_token_ids.count(256) == 1
    other = fake_text_llm.chat(
        MESSAGES,
        SamplingParams(max_tokens=2),
        chat_template="{{ messages[0].content }}{{ mood }}",
        template_variables={"mood": "!"},
    )
    assert other.prompt == " hi !"


def test_models_without_chat_template(fake_text_llm: LLM, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    shutil.copy(fake_text_llm.artifact.model_path / "tokenizer.json", tmp_path / "plain")
    assert Tokenizer(tmp_path / "plain").chat_templates == {}
    with pytest.raises(UserError) as caught:
        chat.choose_template({}, False)
    assert caught.value.kind == "no-chat-template"
