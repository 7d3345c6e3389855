"""Greedy reduction: the first candidate that keeps a module interesting is kept, until none does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npuc.ir.errors import UserError
from npuc.ir.files import write_atomically
from npuc.ir.printing import print_ir
from npuc.passes.reduction.modules import size, tidy
from npuc.passes.reduction.pipeline_results import pipeline_result
from npuc.passes.reduction.transformations import TRANSFORMATIONS, Transformation
from xdsl.dialects.builtin import ModuleOp

Interesting = Callable[[ModuleOp], bool]


@dataclass
class Reducer:
    """One reduction. The same module and criterion always take the same steps.

    Attributes:
        interesting: whether a module still shows what is looked for; it may use the module up.
        transformations: what is tried, in this order, round after round.
        step: the number of the transformation that is tried next.
        idle: how many have been tried since the last that helped.
        tests: how many modules were tried.
        accepted: told each smaller module.
        progress: told the transformation and the module's size.
    """

    interesting: Interesting
    transformations: Sequence[Transformation] = TRANSFORMATIONS
    step: int = 0
    idle: int = 0
    tests: int = 0
    accepted: Callable[[ModuleOp], None] = lambda module: None
    progress: Callable[[str, int], None] = lambda name, size: None
    seen: set[str] = field(default_factory=set[str])

    def reduce(self, module: ModuleOp) -> ModuleOp:
        """The smallest module found.

        Raises:
            UserError: ``not-interesting``, when the module does not show what is looked for.
        """
        if not self.interesting(module.clone()):
            raise UserError("not-interesting", "the module to reduce does not show what is looked for")
        module = self._tidied(module)
        while self.idle < len(self.transformations):
            chosen = self.transformations[self.step % len(self.transformations)]
            before = module
            module = self._all(chosen, module)
            self.step += 1
            self.idle = 0 if module is not before else self.idle + 1
            self.accepted(module)
        return module

    def _tidied(self, module: ModuleOp) -> ModuleOp:
        made = module.clone()
        tidy(made)
        return made if self._accepts(made) else module

    def _all(self, chosen: Transformation, module: ModuleOp) -> ModuleOp:
        """The module after every candidate of a transformation was tried once, in order."""
        number = 0
        while number < chosen.candidates(module):
            self.progress(chosen.name, size(module))
            made = module.clone()
            if self._applies(chosen, made, number) and self._accepts(made):
                module = made
                self.accepted(module)
            else:
                number += 1
        return module

    def _applies(self, chosen: Transformation, made: ModuleOp, number: int) -> bool:
        """Whether a candidate could be made, whatever it is worth."""
        try:
            changed = chosen.apply(made, number)
            tidy(made)
            made.verify()
        except Exception:  # a candidate may be nonsense in any way
            return False
        return changed

    def _accepts(self, made: ModuleOp) -> bool:
        text = print_ir(made)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest in self.seen:  # tried before, or where we are
            return False
        self.seen.add(digest)
        self.tests += 1
        return self.interesting(made.clone())


def transformations_for(pipeline: str) -> Sequence[Transformation]:
    """What to try where a pipeline goes wrong; "" where a script decides."""
    return (*TRANSFORMATIONS, pipeline_result(pipeline)) if pipeline else TRANSFORMATIONS


@dataclass(frozen=True)
class Saved:
    """A reduction that can be gone on with: files beside each other.

    Attributes:
        file: the smallest module so far; ``FILE.progress`` holds the rest.
        key: what identifies the reduction: a hash of its input and criterion.
    """

    file: Path
    key: str

    @property
    def state(self) -> Path:
        """The file of the rest."""
        return self.file.with_name(f"{self.file.name}.progress")

    def write(self, reducer: Reducer, module: ModuleOp) -> None:
        """Keeps how far a reduction is."""
        write_atomically(self.file, print_ir(module).encode())
        data = {"key": self.key, "step": reducer.step, "idle": reducer.idle, "tests": reducer.tests}
        write_atomically(self.state, json.dumps(data).encode())

    def read(self) -> dict[str, Any] | None:
        """How far the same reduction was when it was interrupted."""
        try:
            data: dict[str, Any] = json.loads(self.state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return data if data.get("key") == self.key and self.file.exists() else None

    def finish(self) -> None:
        """The reduction is complete."""
        self.state.unlink(missing_ok=True)
