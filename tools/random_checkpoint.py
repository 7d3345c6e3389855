"""Write a checkpoint of random weights for a given configuration: what measurements of size and speed need.

    python -m npuc.tools.random_checkpoint config.json OUTPUT --dtype bfloat16

Every tensor is drawn from a generator of its own, seeded by the seed and the tensor's name, and written a few
megabytes at a time: the same arguments give the same files, and memory does not grow with the model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from npuc.frontends.checkpoint import Checkpoint
from npuc.frontends.safetensors import INDEX_NAME
from npuc.frontends.weight_table import tied_names

DTYPES = {"float32": (torch.float32, "F32"), "bfloat16": (torch.bfloat16, "BF16")}
PIECE = 1 << 22  # elements made at once
SHARD_BYTES = 1 << 31


@dataclass(frozen=True)
class RandomTensor:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    bytes: int


def random_tensors(checkpoint: Checkpoint, item: int) -> list[RandomTensor]:
    """The tensors that a checkpoint of this configuration holds, tied ones once.

    Raises:
        UserError: when the configuration is none of a model that transformers implements.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(checkpoint.config)
    tied = tied_names(model)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if name not in tied}
    return [RandomTensor(name, shape, prod(shape) * item) for name, shape in shapes.items()]


def pieces(tensor: RandomTensor, dtype: torch.dtype, seed: int, deviation: float) -> Iterator[torch.Tensor]:
    """A tensor's values, flat: normal around 0, or around 1 where it scales a norm."""
    digest = hashlib.sha256(f"{seed} {tensor.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    mean = 1.0 if len(tensor.shape) == 1 and tensor.name.endswith("weight") else 0.0
    count = prod(tensor.shape)
    for start in range(0, count, PIECE):
        values = torch.empty(min(PIECE, count - start)).normal_(mean, deviation, generator=generator)
        yield values.to(dtype)


def shards(tensors: Sequence[RandomTensor], limit: int) -> list[list[RandomTensor]]:
    """The tensors in order, in files of at most ``limit`` bytes (or of one tensor)."""
    found: list[list[RandomTensor]] = [[]]
    for tensor in tensors:
        if found[-1] and sum(t.bytes for t in found[-1]) + tensor.bytes > limit:
            found.append([])
        found[-1].append(tensor)
    return found


def write_random_checkpoint(
    config: Path, output: Path, *, dtype: str | None = None, seed: int = 0, shard_bytes: int = SHARD_BYTES
) -> int:
    """Write a checkpoint with random weights.

    Args:
        config: a config.json, or a directory with one, whose tokenizer is copied too.
        output: the directory, made if need be.
        dtype: of the weights: ``float32`` or ``bfloat16``; by default the configuration's.
        shard_bytes: size of a weight file at most.

    Returns:
        The bytes of all weights.

    Raises:
        UserError: when the configuration cannot be used.
    """
    output.mkdir(parents=True, exist_ok=True)
    _copy_model_files(config, output)
    checkpoint = Checkpoint(output)
    named = str(checkpoint.config_json.get("dtype") or checkpoint.config_json.get("torch_dtype"))
    torch_type, type_name = DTYPES[dtype or (named if named in DTYPES else "float32")]
    deviation = float(getattr(checkpoint.config, "initializer_range", 0.02))
    tensors = random_tensors(checkpoint, torch_type.itemsize)
    files = shards(tensors, shard_bytes)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors" if len(files) > 1 else "model.safetensors"
        weight_map |= dict.fromkeys((t.name for t in shard), name)
        with (output / name).open("wb") as file:
            _write_header(file, shard, type_name)
            for tensor in shard:
                for values in pieces(tensor, torch_type, seed, deviation):
                    file.write(cast("Any", values.view(torch.uint8).numpy()))
    total = sum(t.bytes for t in tensors)
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (output / INDEX_NAME).write_text(json.dumps(index, indent=1))
    return total


def _copy_model_files(config: Path, output: Path) -> None:
    files = sorted(config.glob("*.json")) if config.is_dir() else [config]
    for file in files:
        name = file.name if config.is_dir() else "config.json"
        if not name.endswith(".index.json"):
            shutil.copyfile(file, output / name)


def _write_header(file: BinaryIO, shard: Sequence[RandomTensor], type_name: str) -> None:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in shard:
        offsets = [start, start + tensor.bytes]
        entries[tensor.name] = {"dtype": type_name, "shape": list(tensor.shape), "data_offsets": offsets}
        start += tensor.bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="write a checkpoint of random weights for a configuration")
    parser.add_argument("config", type=Path, help="config.json, or a directory with one and a tokenizer")
    parser.add_argument("output", type=Path, help="the checkpoint's directory")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights; by default the configuration's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-bytes", type=int, default=SHARD_BYTES, help="size of a weight file at most")
    given = parser.parse_args()
    total = write_random_checkpoint(
        given.config, given.output, dtype=given.dtype, seed=given.seed, shard_bytes=given.shard_bytes
    )
    print(f"{given.output}: {total / 1e9:.3f} GB of random weights")


if __name__ == "__main__":
    main()
