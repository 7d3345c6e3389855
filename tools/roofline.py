"""The least time that a program could take: moving what must move, or multiplying what must be.

Both counts come from the model, not from our programs: padding and repeated reads are what the roofline
shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from npuc.backends.machine import Machine
from npuc.ir.errors import UserError
from npuc.runtime.element_types import element_type
from npuc.runtime.manifest import Manifest, Program

LOGIT_BYTES = 4


@dataclass(frozen=True)
class Work:
    """What a program must at least do: bytes from and to main memory, multiply-accumulates."""

    bytes: int
    macs: int


@dataclass(frozen=True)
class ModelSizes:
    """Elements of a model's parameters.

    Attributes:
        body: of everything but embeddings and head; read once per call.
        matrices: of the body's matrices; each takes part in one product per token.
        head: of the matrix that makes the logits.
        width: of one row of the embedding table.
        query_heads: of one layer.
    """

    body: int
    matrices: int
    head: int
    width: int
    query_heads: int


def model_sizes(folder: Path) -> ModelSizes:
    """The sizes of the model that a folder's config.json describes; no weights are needed.

    Every expert of a mixture counts: the sizes are those of all its experts at work.

    Raises:
        UserError: when transformers cannot build the model.
    """
    import transformers

    automatic = cast(Any, transformers)
    try:
        config = automatic.AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = automatic.AutoModelForCausalLM.from_config(config)
    except Exception as error:  # whatever a model's constructor raises
        message = str(error).strip().partition("\n")[0]
        raise UserError(
            "bad-config", f"transformers cannot build the model: {message}", where=str(folder)
        ) from error
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    head = model.get_output_embeddings().weight
    body = [p for p in model.parameters() if id(p) not in tables and p is not head]
    return ModelSizes(
        body=sum(p.numel() for p in body),
        matrices=sum(p.numel() for p in body if p.ndim > 1),
        head=head.numel(),
        width=model.get_input_embeddings().weight.shape[1],
        query_heads=config.num_attention_heads,
    )


def work_of(program: Program, sizes: ModelSizes, manifest: Manifest) -> Work:
    """What a call of the program's entry `last` must at least do, all rows at their last positions."""
    item = element_type(manifest.dtype).bytes
    tokens = program.batch * program.new_tokens
    rows = program.batch * _cache_elements(manifest, sizes)
    moved = item * (
        sizes.body + sizes.head + tokens * sizes.width + rows * (program.length + program.new_tokens)
    )
    per_head = sum(len(c.layers) * (c.key_size + c.value_size) for c in manifest.caches)
    attention = tokens * program.length * sizes.query_heads * per_head
    macs = tokens * sizes.matrices + program.batch * sizes.head + attention
    return Work(moved + program.batch * manifest.vocab_size * LOGIT_BYTES, macs)


def _cache_elements(manifest: Manifest, sizes: ModelSizes) -> int:
    """Elements of one position of one sequence in all layers; caches are of one rank's heads."""
    ranks = manifest.parallel.tensor_parallel
    heads = {c: min(c.heads * ranks, max(sizes.query_heads, c.heads)) for c in manifest.caches}
    return sum(len(c.layers) * heads[c] * (c.key_size + c.value_size) for c in manifest.caches)


def core_bandwidth(machine: Machine) -> float:
    """Bytes per cycle between the main memory and one core."""
    inward = [
        link.bandwidth
        for link in machine.links.values()
        if machine.main.name in link.ends and set(link.ends) <= set(machine.memories)
    ]
    return min([machine.main.bandwidth, *inward])


def roofline_cycles(work: Work, machine: Machine, dtype: str, cores: int = 1) -> float:
    """The least cycles that so many cores of a chip need for the work."""
    rate = machine.element_types[dtype].macs * machine.slices * cores
    bandwidth = min(machine.main.bandwidth, cores * core_bandwidth(machine))
    return max(work.bytes / bandwidth, work.macs / rate)
