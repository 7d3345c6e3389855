"""Train the demonstration model: a small Llama on the English that every Python installation carries.

The text is the language reference inside ``pydoc_data.topics`` and the docstrings and comments of the
standard library, so the recipe needs no download. Run it with ``python -m npuc.tools.train_demo`` (about
ten minutes on one core); the result is an ordinary Hugging Face directory.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import platform
import re
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data import topics
from typing import Any, cast

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "pydoc_data", "ensurepip"}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, beside the text and the versions of the libraries."""

    seed: int = 20
    vocabulary: int = 1024
    context: int = 256
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 344
    batch: int = 8
    steps: int = 2400
    warmup: int = 100
    learning_rate: float = 5e-3
    weight_decay: float = 0.1
    held_out: float = 0.02


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph reads as English: mostly letters, starting and ending like a sentence."""
    if len(paragraph) < 60 or not paragraph[0].isupper() or paragraph[-1] not in ".:":
        return False
    plain = sum(c.isalpha() or c in " ,.'" for c in paragraph)
    return plain > 0.93 * len(paragraph)


def prose(text: str) -> str:
    """The prose paragraphs of a text, one line each, blank lines between them."""
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    kept = "\n\n".join(paragraph for paragraph in paragraphs if is_prose(paragraph))
    return kept.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})


def sources() -> Iterator[str]:
    """The standard library's source files, in a fixed order; none of them is imported."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not SKIPPED & set(path.relative_to(library).parts):
            yield path.read_bytes().decode("utf-8", "replace")


def docstrings(source: str) -> Iterator[str]:
    """The docstrings of a source file."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text


def comments(source: str) -> Iterator[str]:
    """The comments of a source file, consecutive lines together."""
    for block in re.finditer(r"(?:^[ \t]*#.*\n)+", source, re.MULTILINE):
        yield re.sub(r"^[ \t]*#+ ?", "", block.group(), flags=re.MULTILINE)


def documents() -> list[str]:
    """The training text: each document once, in a fixed order."""
    found = [text for _, text in sorted(topics.topics.items())]
    for source in sources():
        found += [*docstrings(source), *comments(source)]
    return list(dict.fromkeys(text for text in map(prose, found) if text))


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every input has an encoding, and decoding gives it back exactly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str], seed: int) -> torch.Tensor:
    """All documents in a shuffled order, each between the start and end tokens, as one i64 vector."""
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    stream: list[int] = []
    for index in order:
        stream += [*tokenizer.encode(texts[index]), 1]
    return torch.tensor(stream)


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    """The untrained network."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.width,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            head_dim=recipe.width // recipe.heads,
            max_position_embeddings=recipe.context,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            dtype="float32",
        )
    )


def loss_of(model: LlamaForCausalLM, windows: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of each window's next tokens, in nats."""
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, stream: torch.Tensor, context: int) -> float:
    """Mean loss on the text kept out of training, in nats per token."""
    windows = stream[: len(stream) // (context + 1) * (context + 1)].view(-1, context + 1)
    return float(loss_of(model, windows))


def rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to a fiftieth of the peak."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, Adam for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    lr = recipe.learning_rate
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(model: LlamaForCausalLM, stream: torch.Tensor, held_out: torch.Tensor, recipe: Recipe) -> float:
    """Run the recipe's steps; return the mean training loss of the last hundred."""
    both = optimizers(model, recipe)
    generator = torch.Generator().manual_seed(recipe.seed)
    losses: list[float] = []
    start = time.monotonic()
    for step in range(recipe.steps):
        offsets = torch.randint(len(stream) - recipe.context - 1, (recipe.batch,), generator=generator)
        loss = loss_of(model, torch.stack([stream[o : o + recipe.context + 1] for o in offsets.tolist()]))
        loss.backward()
        for optimizer in both:
            optimizer.param_groups[0]["lr"] = rate(recipe, step)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 99:
            held = held_out_loss(model, held_out, recipe.context)
            mean = sum(losses[-100:]) / 100
            seconds = time.monotonic() - start
            print(f"step {step + 1}: loss {mean:.3f}, held out {held:.3f}, {seconds:.0f} s", flush=True)
    return sum(losses[-100:]) / 100


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the Hugging Face directory; the tied output projection is stored once, as the embedding."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(folder)
    GenerationConfig(bos_token_id=0, eos_token_id=1, do_sample=False).save_pretrained(folder)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)
    tensors = {name: t.contiguous() for name, t in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo/model"))
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    texts = documents()
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    stream = encode(tokenizer, texts, recipe.seed)
    cut = int(len(stream) * (1 - recipe.held_out))
    model = build_model(recipe)
    print(f"{len(texts)} documents, {len(stream)} tokens, {model.num_parameters()} parameters", flush=True)
    started = time.monotonic()
    loss = train(model, stream[:cut], stream[cut:], recipe)
    save(model, tokenizer, arguments.output)
    record = {
        **asdict(recipe),
        "documents": len(texts),
        "tokens": len(stream),
        "parameters": model.num_parameters(),
        "loss": round(loss, 4),
        "held_out_loss": round(held_out_loss(model, stream[cut:], recipe.context), 4),
        "seconds": round(time.monotonic() - started),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    (arguments.output / "recipe.json").write_text(json.dumps(record, indent=2) + "\n")
    for prompt in ("The function", "If the value of", "This module provides"):
        tokens = tokenizer(prompt, return_tensors="pt")
        out = cast(Any, model).generate(**tokens, max_new_tokens=64, do_sample=False)
        print(repr(tokenizer.decode(out[0], skip_special_tokens=True)))


if __name__ == "__main__":
    main()
