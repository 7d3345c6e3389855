"""The least time that a program could take: moving what must move, or multiplying what must be.

Both counts come from the model and from how its weights are stored, not from our programs: padding and
repeated reads are what the roofline shows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from npuc.backends.machine import Machine
from npuc.ir.errors import UserError
from npuc.passes.command_fields import machine_type
from npuc.runtime.element_types import ELEMENT_TYPES, element_type
from npuc.runtime.manifest import Manifest, Program

LOGIT_BYTES = 4
STORED = re.compile(r"!nquant\.quantized<(\w+)")
"""The stored type in a quantized weight's type."""


@dataclass(frozen=True)
class Work:
    """What a program must at least do.

    Attributes:
        bytes: from and to main memory.
        products: multiply-accumulates by the type that is multiplied.
    """

    bytes: int
    products: Mapping[str, int]

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return sum(self.products.values())


@dataclass(frozen=True)
class ModelSizes:
    """What a model's parameters take.

    Attributes:
        bytes: of everything but embeddings; read once per call.
        matrices: elements of the body's matrices by the type in which they are multiplied; each takes part
            in one product per token.
        head: likewise of the matrix that makes the logits.
        width: of one row of the embedding table.
        query_heads: of one layer.
    """

    bytes: int
    matrices: Mapping[str, int]
    head: Mapping[str, int]
    width: int
    query_heads: int


def model_sizes(folder: Path, manifest: Manifest) -> ModelSizes:
    """The sizes of the model that a folder's config.json describes; no weights are needed.

    Every expert of a mixture counts: the sizes are those of all its experts at work.

    Args:
        manifest: of the artifact, which says how weights are stored.

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
    output = model.get_output_embeddings()
    names = {id(m): f"{path}.weight" for path, m in model.named_modules()}
    head = {names[id(output)]: output.weight}
    body = {n: p for n, p in model.named_parameters() if id(p) not in tables and p is not output.weight}
    stored = StoredTypes(manifest)
    matrices = {name: p for name, p in body.items() if p.ndim > 1}
    return ModelSizes(
        bytes=sum(p.numel() * element_type(stored.of(name)).bytes for name, p in (body | head).items()),
        matrices=_by_type(matrices, stored),
        head=_by_type(head, stored),
        width=model.get_input_embeddings().weight.shape[1],
        query_heads=config.num_attention_heads,
    )


def _by_type(parameters: Mapping[str, torch.Tensor], stored: StoredTypes) -> Counter[str]:
    found = Counter[str]()
    for name, parameter in parameters.items():
        found[stored.multiplied(name)] += parameter.numel()
    return found


class StoredTypes:
    """How an artifact stores its model's parameters, by their names in the model."""

    def __init__(self, manifest: Manifest) -> None:
        recipe = manifest.recipe or {"inputs": False, "weights": []}
        self.dtype, self.inputs = manifest.dtype, recipe["inputs"]
        self.quantized: dict[str, str] = {}
        for entry in recipe["weights"]:
            found = STORED.search(entry["type"])
            path, _, _ = entry["name"].rpartition(".")
            if found and found[1] in ELEMENT_TYPES:
                for layer in entry["layers"] or [""]:
                    self.quantized[path.replace("{}", str(layer)) + ".weight"] = found[1]

    def of(self, name: str) -> str:
        """The type in which a parameter lies in main memory."""
        return self.quantized.get(name, self.dtype)

    def multiplied(self, name: str) -> str:
        """The type in which it is multiplied: as stored, where inputs are rounded to that type too."""
        return self.of(name) if self.inputs else self.dtype


def work_of(program: Program, sizes: ModelSizes, manifest: Manifest) -> Work:
    """What a call of the program's entry `last` must at least do, all rows at their last positions."""
    item = element_type(manifest.dtype).bytes
    tokens = program.batch * program.new_tokens
    rows = program.batch * _cache_elements(manifest, sizes)
    moved = sizes.bytes + item * (tokens * sizes.width + rows * (program.length + program.new_tokens))
    per_head = sum(len(c.layers) * (c.key_size + c.value_size) for c in manifest.caches)
    attention = tokens * program.length * sizes.query_heads * per_head
    products = Counter({manifest.dtype: attention})
    products.update({kind: tokens * count for kind, count in sizes.matrices.items()})
    products.update({kind: program.batch * count for kind, count in sizes.head.items()})
    return Work(moved + program.batch * manifest.vocab_size * LOGIT_BYTES, products)


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


def roofline_cycles(work: Work, machine: Machine, cores: int = 1) -> float:
    """The least cycles that so many cores, of a chip or of whole chips, need for the work."""
    bandwidth = min(machine.chips_of(cores) * machine.main.bandwidth, cores * core_bandwidth(machine))
    types = {kind: machine.element_types[machine_type(machine, kind)] for kind in work.products}
    products = sum(count / types[kind].macs for kind, count in work.products.items())
    return max(work.bytes / bandwidth, products / (machine.slices * cores))
