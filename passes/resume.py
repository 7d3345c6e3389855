"""When an interrupted compile may be taken up again: it is asked the same of the same files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import npuc
from npuc.frontends.checkpoint import Checkpoint
from npuc.passes.target_option import is_description

if TYPE_CHECKING:
    from npuc.passes.compile import Compilation


def resume_key(compilation: Compilation, checkpoint: Checkpoint) -> str:
    """A text that is equal for compiles with the same inputs, options and compiler version.

    Weight files count with name, size and time of change: they are not read for it.
    """
    asked = (
        npuc.__version__,
        compilation.target,
        [bucket.name for bucket in compilation.buckets],
        compilation.dtype,
        compilation.max_context,
        compilation.weights,
        compilation.debug,
        repr(compilation.quantize),
    )
    digest = hashlib.sha256(repr(asked).encode())
    described = Path(compilation.target) if is_description(compilation.target) else None
    for path in (checkpoint.root / "config.json", described, compilation.compile_from):
        digest.update(path.read_bytes() if path is not None and path.is_file() else b"-")
    for path in sorted(checkpoint.root.glob("*.safetensors*")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
