"""Compare an artifact's logits, on the simulated NPU, with transformers' eager ones in the same type.

Every program is run. With --text the perplexity of both on that text is measured, each document (separated by
<|endoftext|>) on its own; otherwise the documents are sampled from the reference.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from npuc.tools.command import Outcome, progress_bar, quiet_libraries, table
from npuc.tools.paths import existing

# The largest logit error, as a share of the largest reference logit. Two correct bf16 computations differ by
# a few roundings of 2⁻⁸ each; fp32 ones by the order of their sums.
LIMITS = {"f32": 1e-4, "bf16": 5e-2}
# Of a quantized artifact the mean cosine must not be below this.
MIN_COSINE = 0.9999
# Where inputs are rounded to 8 bits, a difference in the last place may tip one to the neighbouring value,
# 2⁻³ away, and what follows from there on: docs/quantization.md, "How close".
ROUNDED_INPUTS = {"f32": (0.2, 0.999), "bf16": (0.4, 0.995)}


class Limits(NamedTuple):
    """What a verification must keep: the largest relative error, and the least mean cosine."""

    max_rel_error: float
    cosine: float | None


def limits_of(found: dict[str, Any], asked: float | None) -> Limits:
    """The limits for an artifact's type and quantization; the error's may be asked for."""
    error, cosine = LIMITS[found["dtype"]], None
    if found["quantization"] is not None:
        cosine = MIN_COSINE
        if found["quantization"]["inputs"]:
            error, cosine = ROUNDED_INPUTS[found["dtype"]]
    return Limits(error if asked is None else asked, cosine)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc verify`."""
    parser.add_argument("artifact", metavar="ARTIFACT", type=existing)
    parser.add_argument(
        "--against", metavar="MODEL", required=True, help="the checkpoint: directory or hub id"
    )
    parser.add_argument("--text", type=existing, metavar="FILE", help="measure the perplexity of this text")
    parser.add_argument("--documents", type=int, metavar="N", help="use the first N documents of the text")
    parser.add_argument(
        "--quality",
        metavar="METRIC=LIMIT",
        help="compare with MODEL's own values in float32, neither rounded nor narrowed, and fail where "
        "this is missed: cosine=0.999, kl=1e-3, perplexity_increase=0.01, …",
    )
    limits = ", ".join(f"{limit:g} for {name}" for name, limit in LIMITS.items())
    text = f"fail above this; default {limits}, more where inputs are quantized"
    parser.add_argument("--max-rel-error", type=float, metavar="X", help=text)


def execute(arguments: argparse.Namespace) -> Outcome:
    """Verify."""
    from npuc.runtime.quality import Quality, with_increase
    from npuc.runtime.verify import verify

    quality = None if arguments.quality is None else Quality.parse(arguments.quality)
    quiet_libraries()
    with progress_bar(not arguments.json) as bar:
        found = verify(
            arguments.artifact,
            arguments.against,
            arguments.text,
            max_documents=arguments.documents,
            exact=quality is not None,
            progress=lambda name: bar(name, None),
        )
    if quality is not None:
        figures = with_increase(found)
        passed = quality.meets(quality.score(figures))
        data = {**figures, "limit": quality.limit, "metric": quality.metric, "passed": passed}
        return Outcome(data, _text(figures, None, passed, f"{quality} of MODEL in float32"), passed)
    limits = limits_of(found, arguments.max_rel_error)
    close = limits.cosine is None or found["cosine"] >= limits.cosine
    passed = found["max_rel_error"] <= limits.max_rel_error and close
    data = {**found, "limit": limits.max_rel_error, "cosine_limit": limits.cosine, "passed": passed}
    return Outcome(data, _text(found, limits, passed), passed)


def _text(found: dict[str, Any], limits: Limits | None, passed: bool, quality: str = "") -> str:
    perplexity = "-" if found["perplexity"] is None else f"{found['perplexity']:.4f}"
    reference = "-" if found["reference_perplexity"] is None else f"{found['reference_perplexity']:.4f}"
    close = "" if limits is None else f" (limit {limits.max_rel_error:g})"
    asked = "" if limits is None or limits.cosine is None else f" (limit of the mean {limits.cosine})"
    rows = [
        ["largest error", f"{found['max_abs_error']:.3g}"],
        ["of the largest logit", f"{found['max_rel_error']:.3g}{close}"],
        ["cosine", f"{found['cosine']:.8f}, least {found['min_cosine']:.8f}{asked}"],
        ["KL divergence", f"{found['kl']:.3g} nats"],
        ["same best token", f"{100 * found['top1_agreement']:.2f} %"],
        ["perplexity", f"{perplexity}, reference {reference} ({found['tokens']} tokens)"],
    ]
    programs = [
        [f"  {p['name']}", f"{p['positions']} positions", f"{p['max_rel_error']:.3g}"]
        for p in found["programs"]
    ]
    verdict = "passed" if passed else "FAILED: the logits are too far from the reference"
    verdict += f": {quality}" if quality else ""
    return "\n".join(
        [table(rows), "", "Programs, largest relative error:", table(programs, right=(1, 2)), "", verdict]
    )
