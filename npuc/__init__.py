"""npuc: an inspectable compiler from language-model checkpoints to NPU programs.

The public names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npuc.ir.errors import UserError as UserError
    from npuc.passes.buckets import Bucket as Bucket
    from npuc.passes.compile import compile as compile
    from npuc.runtime.llm import LLM as LLM
    from npuc.runtime.sampling import SamplingParams as SamplingParams

__version__ = "0.1.0"

_PUBLIC = {
    "Bucket": "npuc.passes.buckets",
    "LLM": "npuc.runtime.llm",
    "SamplingParams": "npuc.runtime.sampling",
    "UserError": "npuc.ir.errors",
    "compile": "npuc.passes.compile",
}

__all__ = ["LLM", "Bucket", "SamplingParams", "UserError", "__version__", "compile"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'npuc' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
