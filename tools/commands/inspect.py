"""Show what is in an artifact, a checkpoint, a safetensors file or a program.

Tensor data is not read; an artifact's hashes are (--check: all of them).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, size, table
from npuc.tools.paths import existing

if TYPE_CHECKING:
    from npuc.frontends.safetensors import TensorSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc inspect`."""
    parser.add_argument(
        "path", metavar="PATH", type=existing, help="an artifact, a checkpoint, or one file of either"
    )
    parser.add_argument("--check", action="store_true", help="check the hash of every file of an artifact")


def execute(arguments: argparse.Namespace) -> Outcome:
    """Inspect."""
    path: Path = arguments.path
    if (path / "artifact.json").exists():
        return _artifact(path, arguments.check)
    if path.suffix == ".elf":
        return _program(path)
    from npuc.frontends.checkpoint import Checkpoint
    from npuc.frontends.safetensors import read_file

    if path.is_dir():
        checkpoint = Checkpoint(path)
        return _tensors(path, checkpoint.tensors, checkpoint.config_json)
    if path.suffix != ".safetensors":
        known = "an artifact, a checkpoint's directory, a .safetensors file or a program (.elf)"
        raise UserError(
            "unknown-file", "neither artifact nor checkpoint", where=str(path), remedy=f"give {known}"
        )
    return _tensors(path, read_file(path), {})


def _artifact(path: Path, check: bool) -> Outcome:
    from npuc.runtime.artifact import Artifact
    from npuc.runtime.json_schema import encode

    artifact = Artifact(path)
    if check:
        artifact.check()
    data: dict[str, Any] = {"format": "artifact", **encode(artifact.manifest), "checked": check}
    manifest = artifact.manifest
    sizes = {entry.path: entry.bytes for entry in manifest.files}
    source, ranks, chips = manifest.source, manifest.parallel.tensor_parallel, manifest.parallel.chips
    where = "" if chips == 1 else f" of {chips} chips"
    rows = [
        ["target", manifest.target],
        ["source", f"{source.name} ({source.architecture})"],
        ["type", manifest.dtype],
        *([["ranks", f"{ranks} cores{where} share every layer"]] if ranks > 1 else []),
        ["context", f"{manifest.max_context} positions, {manifest.slots} cache slots"],
        ["memory", ", ".join(f"{name} {size(region.bytes)}" for name, region in manifest.memory.items())],
    ]
    if manifest.recipe is not None:
        rows.append(["quantization", _quantization(manifest.recipe)])
    if not manifest.weights:
        rows.append(["weights", "none: for timing only"])
    programs = [[f"  {p.name}", size(sizes[p.file]), ", ".join(p.entries)] for p in manifest.programs]
    files = [[f"  {entry.path}", size(entry.bytes), entry.sha256[:16]] for entry in manifest.files]
    quantized = [] if manifest.recipe is None else manifest.recipe["weights"]
    weights = [[f"  {w['name']}", w["type"], f"by the {w['by']}", _layers(w["layers"])] for w in quantized]
    listed = ["", "Quantized weights:", table(weights)] if weights else []
    note = ["", "Every file has the hash that the manifest says."] if check else []
    text = [
        table(rows),
        "",
        "Programs:",
        table(programs, right=(1,)),
        *listed,
        "",
        "Files:",
        table(files, right=(1,)),
        *note,
    ]
    return Outcome(data, "\n".join(text))


def _layers(numbers: Sequence[int] | None) -> str:
    """Layers of the model, in runs: ``layers 0-2, 4``; nothing where a weight is of no layer."""
    runs: list[list[int]] = []
    for number in numbers or ():
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return f"layers {', '.join(texts)}" if texts else ""


def _quantization(recipe: Mapping[str, Any]) -> str:
    """What is quantized by whom."""
    scheme = recipe["scheme"]
    by = [scheme] if scheme is not None else []
    by += ["checkpoint"] if recipe["checkpoint"] else []
    return " and ".join(by) + (", inputs too" if recipe["inputs"] else "")


def _program(path: Path) -> Outcome:
    from npuc.backends.elf import read_program

    program = read_program(path)
    data: dict[str, Any] = {
        "format": "program",
        "target": program.target,
        "version": program.version,
        "text_bytes": len(program.text),
        "symbols": program.symbols,
        "description": program.description,
    }
    rows = [
        ["target", program.target],
        ["text", size(len(program.text))],
        ["symbols", ", ".join(program.symbols)],
        ["lines", f"{len(program.lines)} locations"],
    ]
    return Outcome(data, table(rows))


def _tensors(path: Path, tensors: Mapping[str, TensorSource], config: dict[str, Any]) -> Outcome:
    listed = config.get("architectures") or [config.get("model_type", "")]
    total = sum(tensor.bytes for tensor in tensors.values())
    data: dict[str, Any] = {
        "format": "safetensors",
        "architecture": listed[0],
        "bytes": total,
        "quantization": config.get("quantization_config"),
        "tensors": [
            {"name": name, "type": tensor.dtype, "shape": list(tensor.shape)}
            for name, tensor in tensors.items()
        ],
    }
    rows = [[name, t.dtype, "x".join(map(str, t.shape)) or "scalar"] for name, t in tensors.items()]
    declared = config.get("quantization_config")
    method = declared.get("quant_method", "unknown method") if isinstance(declared, Mapping) else None
    quantized = "" if method is None else f", quantized ({method})"
    head = f"{path}: {listed[0] or 'safetensors'}, {len(tensors)} tensors, {size(total)}{quantized}"
    return Outcome(data, f"{head}\n\n{table(rows)}")
