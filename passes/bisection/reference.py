"""The imported module beside transformers: where the first checkpoint module's output differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from npuc.passes.bisection.findings import Finding, around
from npuc.passes.bisection.states import State
from npuc.passes.bisection.traces import Event, trace
from npuc.passes.buckets import parse_bucket
from npuc.passes.checking import Figures, compare
from npuc.passes.evaluation import Call, Evaluator
from npuc.runtime.reference import Reference
from torch import Tensor


def import_fault(
    state: State, evaluator: Evaluator, reference: Reference, tokens: Sequence[int], tolerance: float
) -> Finding | None:
    """What the first state computes otherwise than transformers, on some tokens and without a cache."""
    bucket = parse_bucket("prefill", f"1x{len(tokens)}")
    call = Call(bucket, torch.tensor([list(tokens)], dtype=torch.int32), (0,), (len(tokens),))
    outputs = evaluator.run(state.module, call)
    logits = compare(outputs[f"{bucket.name}.all"], reference.logits(tokens))
    if logits.max_rel_error <= tolerance:
        return None
    events: list[Event] = []
    trace(evaluator, state.module, call, "all", events)
    found = _first_module(events, reference.module_outputs(tokens), tolerance)
    if found is None:
        words = "the imported module's logits are not those of transformers; no single module tells where"
        return Finding("values", state.phase, state.name, explanation=words, logits=logits)
    event, error = found
    return Finding(
        "values",
        state.phase,
        state.name,
        op=event.op.name,
        module=event.place.module,
        value=event.place.value,
        explanation=f"{event.place.module} does not give what it gives in transformers",
        error=error,
        logits=logits,
        after=around(state.module, event.op),
    )


def _first_module(
    events: Sequence[Event], expected: Mapping[str, Tensor], tolerance: float
) -> tuple[Event, Figures] | None:
    """The first module whose last result is not its output."""
    last = {event.place.module: event for event in events}
    for event in events:
        wanted = expected.get(event.place.module)
        if wanted is None or last[event.place.module] is not event or wanted.numel() != event.value.numel():
            continue
        figures = compare(event.value.flatten().float(), wanted.flatten().float())
        if figures.max_rel_error > tolerance:
            return event, figures
    return None
