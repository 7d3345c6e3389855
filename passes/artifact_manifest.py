"""What the manifest of an artifact says of the compile that made it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import npuc
from npuc.frontends.checkpoint import Checkpoint
from npuc.ir import tile
from npuc.passes.allocate_buffers import memory_map
from npuc.passes.buckets import Bucket
from npuc.passes.emit import EmittedProgram
from npuc.passes.partition import ranks_of
from npuc.passes.pipeline import pipeline_string
from npuc.passes.quantization_recipe import quantization_recipe
from npuc.passes.target_option import is_description, machine_of
from npuc.runtime.artifact import MACHINE_FILE, program_file
from npuc.runtime.manifest import (
    Cache,
    IoTensor,
    Manifest,
    Parallel,
    Program,
    RankWeights,
    Region,
    Source,
    SourceWeights,
)
from npuc.runtime.weights import header_sha256
from xdsl.dialects.builtin import ModuleOp, StringAttr

if TYPE_CHECKING:
    from npuc.passes.compile import Compilation


def manifest_of(
    compilation: Compilation,
    module: ModuleOp,
    buckets: Sequence[Bucket],
    emitted: Sequence[EmittedProgram],
    weights: tuple[RankWeights, ...],
    checkpoint: Checkpoint,
) -> Manifest:
    """The manifest of what a compile made; files and hashes are the writer's to add.

    Args:
        module: after the phase `schedule`.
        buckets: in the order of `emitted`.
        weights: where each rank's are; none without.
    """
    regions = {name: Region(*pair) for name, pair in memory_map(module).items()}
    described, machine = is_description(compilation.target), machine_of(compilation.target)
    ranks = ranks_of(module)
    return Manifest(
        npuc=npuc.__version__,
        target=machine.name if described else compilation.target,
        dtype={"float32": "f32", "bfloat16": "bf16"}[string_of(module, "npuc.dtype")],
        source=_source(checkpoint, weights=bool(weights)),
        recipe=quantization_recipe(module, compilation.quantize),
        pipeline=pipeline_string(
            MACHINE_FILE if described else compilation.target,
            buckets,
            compilation.quantize,
            ranks,
        ),
        vocab_size=integer_of(module, "npuc.vocab_size"),
        max_context=max(bucket.length for bucket in buckets),
        slots=max(bucket.batch for bucket in buckets),
        buckets={
            kind: tuple(b.sizes for b in buckets if b.kind == kind)
            for kind in dict.fromkeys(b.kind for b in buckets)
        },
        parallel=Parallel(ranks, machine.chips_of(ranks)),
        memory=regions,
        programs=tuple(_program(p, b) for p, b in zip(emitted, buckets, strict=True)),
        caches=tuple(_caches(module, regions["cache"].base)),
        weights=weights,
    )


def _program(emitted: EmittedProgram, bucket: Bucket) -> Program:
    io = {name: IoTensor(address, shape, kind) for name, (address, shape, kind) in emitted.io.items()}
    return Program(
        name=bucket.name,
        kind=bucket.kind,
        batch=bucket.batch,
        length=bucket.length,
        new_tokens=bucket.new_tokens,
        file=program_file(bucket.name),
        entries=("all", "last"),
        io=io,
    )


def _caches(module: ModuleOp, base: int) -> list[Cache]:
    found: list[Cache] = []
    for op in module.body.block.ops:
        if isinstance(op, tile.CacheOp):
            _, heads, key_size = op.key_type.get_shape()
            layers = tile.ints(op.layers)
            found.append(
                Cache(
                    name=op.sym_name.data,
                    layers=layers,
                    heads=heads,
                    key_size=key_size,
                    value_size=op.value_type.get_shape()[-1],
                    type=str(op.key_type.element_type),
                    address=base + tile.integer(op.offset),
                    bytes=len(layers) * tile.integer(op.layer_stride),
                )
            )
    return found


def _source(checkpoint: Checkpoint, *, weights: bool) -> Source:
    """What the checkpoint was: hashes of its configuration and of its weight files' headers."""
    config = (checkpoint.root / "config.json").read_bytes()
    architectures = checkpoint.config_json.get("architectures") or ["unknown"]
    files = sorted({source.file for source in checkpoint.tensors.values()}) if weights else []
    return Source(
        name=checkpoint.root.name,
        architecture=str(architectures[0]),
        config_sha256=hashlib.sha256(config).hexdigest(),
        weights=tuple(
            SourceWeights(
                file, (checkpoint.root / file).stat().st_size, header_sha256(checkpoint.root / file)
            )
            for file in files
        ),
    )


def string_of(module: ModuleOp, name: str) -> str:
    """A string that a module has as an attribute."""
    attr = module.attributes[name]
    assert isinstance(attr, StringAttr)
    return attr.data


def integer_of(module: ModuleOp, name: str) -> int:
    """An integer that a module has as an attribute."""
    return tile.integer(module.attributes[name])
