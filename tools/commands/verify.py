"""Compare an artifact's logits, on the simulated NPU, with transformers' eager ones in the same type.

Every program is run. With --text the perplexity of both on that text is measured, each document (separated by
<|endoftext|>) on its own; otherwise the documents are sampled from the reference.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from npuc.tools.command import Outcome, progress_bar, quiet_libraries, table

# The largest logit error, as a share of the largest reference logit. Two correct bf16 computations differ by
# a few roundings of 2⁻⁸ each; fp32 ones by the order of their sums.
LIMITS = {"f32": 1e-4, "bf16": 5e-2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc verify`."""
    parser.add_argument("artifact", metavar="ARTIFACT", type=Path)
    parser.add_argument(
        "--against", metavar="MODEL", required=True, help="the checkpoint: directory or hub id"
    )
    parser.add_argument("--text", type=Path, metavar="FILE", help="measure the perplexity of this text")
    parser.add_argument("--documents", type=int, metavar="N", help="use the first N documents of the text")
    limits = ", ".join(f"{limit:g} for {name}" for name, limit in LIMITS.items())
    parser.add_argument("--max-rel-error", type=float, metavar="X", help=f"fail above this; default {limits}")


def execute(arguments: argparse.Namespace) -> Outcome:
    """Verify."""
    from npuc.runtime.verify import verify

    quiet_libraries()
    with progress_bar(not arguments.json) as bar:
        found = verify(
            arguments.artifact,
            arguments.against,
            arguments.text,
            max_documents=arguments.documents,
            progress=lambda name: bar(name, None),
        )
    limit = arguments.max_rel_error
    if limit is None:
        limit = LIMITS[found["dtype"]]
    passed = found["max_rel_error"] <= limit
    return Outcome({**found, "limit": limit, "passed": passed}, _text(found, limit, passed), passed)


def _text(found: dict[str, Any], limit: float, passed: bool) -> str:
    perplexity = "-" if found["perplexity"] is None else f"{found['perplexity']:.4f}"
    reference = "-" if found["reference_perplexity"] is None else f"{found['reference_perplexity']:.4f}"
    rows = [
        ["largest error", f"{found['max_abs_error']:.3g}"],
        ["of the largest logit", f"{found['max_rel_error']:.3g} (limit {limit:g})"],
        ["cosine", f"{found['cosine']:.8f}, least {found['min_cosine']:.8f}"],
        ["KL divergence", f"{found['kl']:.3g} nats"],
        ["same best token", f"{100 * found['top1_agreement']:.2f} %"],
        ["perplexity", f"{perplexity}, reference {reference} ({found['tokens']} tokens)"],
    ]
    programs = [
        [f"  {p['name']}", f"{p['positions']} positions", f"{p['max_rel_error']:.3g}"]
        for p in found["programs"]
    ]
    verdict = "passed" if passed else "FAILED: the error is above the limit"
    return "\n".join(
        [table(rows), "", "Programs, largest relative error:", table(programs, right=(1, 2)), "", verdict]
    )
