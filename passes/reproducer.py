"""Reproducers: IR and the pipeline that fails on it, in one file that `irc opt --run-reproducer` runs.

The file has the form of MLIR's: the pipeline is an external resource named ``mlir_reproducer``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from npuc.ir.errors import UserError
from npuc.ir.printing import print_ir
from npuc.passes.instrumentation import Instrument, pipeline_text
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

_RESOURCES = re.compile(r"\{-#.*?#-\}", re.DOTALL)
_PIPELINE = re.compile(r'pipeline:\s*"((?:[^"\\]|\\.)*)"')


def reproducer_text(module: ModuleOp, pipeline: str, verify_each: bool) -> str:
    """IR with a pipeline in MLIR's spelling."""
    quoted = pipeline.replace("\\", "\\\\").replace('"', '\\"')
    return f"""{print_ir(module)}
{{-#
  external_resources: {{
    mlir_reproducer: {{
      pipeline: "{quoted}",
      disable_threading: true,
      verify_each: {str(verify_each).lower()}
    }}
  }}
#-}}
"""


def split_reproducer(text: str, where: str = "") -> tuple[str, str]:
    """The IR of a reproducer, and its pipeline.

    Raises:
        UserError: when it has no pipeline.
    """
    resources = _RESOURCES.search(text)
    pipeline = _PIPELINE.search(resources[0]) if resources else None
    if pipeline is None:
        raise UserError(
            "no-reproducer",
            "the file holds no pipeline",
            where=where,
            remedy="--mlir-pass-pipeline-crash-reproducer writes files that do",
        )
    return without_resources(text), re.sub(r"\\(.)", r"\1", pipeline[1])


def without_resources(text: str) -> str:
    """The IR of a file alone; lines keep their numbers."""
    return _RESOURCES.sub(lambda found: "\n" * found[0].count("\n"), text)


@dataclass
class CrashReproducer(Instrument):
    """Writes a reproducer when a pass fails.

    Attributes:
        file: what to write.
        local: give the IR before the pass that failed and that pass alone, not the whole pipeline.
        verify_each: recorded in the file.
    """

    file: Path
    local: bool = False
    verify_each: bool = True
    start: ModuleOp | None = None
    passes: Sequence[ModulePass] = ()

    def before_pipeline(self, passes: Sequence[ModulePass], module: ModuleOp) -> None:
        self.start, self.passes = module.clone(), passes

    def before_pass(self, step: ModulePass, module: ModuleOp) -> None:
        if self.local:
            self.start, self.passes = module.clone(), (step,)

    def after_failed(self, step: ModulePass, module: ModuleOp, error: Exception) -> None:
        assert self.start is not None
        text = reproducer_text(self.start, pipeline_text(self.passes), self.verify_each)
        self.file.write_text(text, encoding="utf-8")
        print(f"irc: note: pass {step.name} failed, reproducer written to {self.file}", file=sys.stderr)
