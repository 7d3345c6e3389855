"""The legality check of `npuc.ir.legality` as a pass."""

from __future__ import annotations

from dataclasses import dataclass

from npuc.ir.legality import LEGALITY, PHASE_ATTRIBUTE, PHASES, check_phase
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException


@dataclass(frozen=True)
class VerifyLegalityPass(ModulePass):
    """Fails, listing every violation, unless the module is legal after `phase` (default: its own)."""

    name = "verify-legality"
    phase: str | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        own = op.attributes.get(PHASE_ATTRIBUTE)
        phase = self.phase or (own.data if isinstance(own, StringAttr) else None)
        if phase not in LEGALITY:
            raise PassFailedException(f"verify-legality: no phase {phase!r}: one of {', '.join(PHASES)}")
        check_phase(op, phase)
