"""Find the smallest set of layers that must keep their precision for a quality to be met.

The layers that --quantize would round are candidates. Each is tried alone; then the shortest list of the most
sensitive ones that is enough is found, and what it can do without is taken out. The result is 1-minimal:
without any one of its layers the quality is missed. If the budget allows to try all smaller sets, it is a
smallest set, given that keeping more layers never hurts; the output says so.

Qualities compare logits with those of MODEL in float32 in transformers, on the documents of --text, or on
documents sampled from the model. The graph interpreter computes them, with weights as the compile rounds
them.

  irc bisect precision MODEL -t rngd --quantize w8a16 --quality cosine=0.9999 --text FILE

Layers of one kind that keep their precision in different places no longer share their code: programs grow.
With --kinds they go together: model.layers.{}.mlp.down_proj. The exit status is 1 if the quality is missed
even with all layers kept.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npuc.ir.errors import UserError
from npuc.tools.command import Outcome, UsageError, duration, progress_bar, quiet_libraries, table
from npuc.tools.commands.compile import add_compiled_for
from npuc.tools.paths import existing

if TYPE_CHECKING:
    from collections.abc import Callable

    from npuc.passes.algorithms.minimal_set import Found, MinimalSet
    from npuc.passes.bisection.precision import Mixtures
    from npuc.runtime.quality import Quality

DOCUMENTS, TOKENS, BUDGET = 8, 128, 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `irc bisect precision`."""
    parser.add_argument("model", metavar="MODEL", help="directory of the checkpoint, or hub id")
    parser.add_argument("-t", "--target", required=True, help="the NPU: see irc targets; or a .npu file")
    add_compiled_for(parser)
    parser.set_defaults(quantize_ignore="")
    group = parser.add_argument_group("what is good enough")
    group.add_argument(
        "--quality",
        required=True,
        metavar="METRIC=LIMIT",
        help="cosine, min_cosine, top1_agreement: at least; kl, max_rel_error, perplexity_increase: at most",
    )
    group.add_argument("--text", type=existing, metavar="FILE", help="documents, separated by <|endoftext|>")
    group.add_argument("--documents", type=int, default=DOCUMENTS, metavar="N", help="at most so many")
    group.add_argument("--tokens", type=int, default=TOKENS, metavar="N", help="at most so many of each")
    group.add_argument(
        "--kinds", action="store_true", help="keep a layer in all layers of the model, or none"
    )
    group.add_argument("--budget", type=int, default=BUDGET, metavar="N", help="most evaluations")


def execute(arguments: argparse.Namespace) -> Outcome:
    """Search."""
    from npuc.passes.algorithms.minimal_set import MinimalSet
    from npuc.runtime.quality import Quality

    _check(arguments)
    quality = Quality.parse(arguments.quality)
    quiet_libraries()
    start = time.perf_counter()
    ignored = [path for path in arguments.quantize_ignore.split(",") if path]
    with progress_bar(not arguments.json) as bar:
        mixtures = _mixtures(arguments, lambda text: bar(text, None))
        layers, evaluated = (
            mixtures.layers(ignored, kinds=arguments.kinds),
            dict[frozenset[str], dict[str, Any]](),
        )

        def score(kept: frozenset[str]) -> float:
            bar(f"{len(kept)} of {len(layers)} layers kept", len(evaluated) / arguments.budget)
            evaluated[kept] = mixtures.figures([*ignored, *(path for path in layers if path in kept)])
            return quality.score(evaluated[kept])

        search = MinimalSet(layers, score, quality.meets, arguments.budget)
        found = search.run()
    data: dict[str, Any] = {
        "found": found is not None,
        "quality": {"metric": quality.metric, "limit": quality.limit},
        "modules": None if found is None else list(found.raised),
        "minimal": found is not None and found.minimal,
        "smallest": found is not None and found.smallest,
        "layers": {path: abs(search.costs[path]) for path in layers if path in search.costs},
        "before": evaluated[frozenset()],
        "after": evaluated[frozenset(layers if found is None else found.raised)],
        "evaluations": search.evaluations,
        "seconds": time.perf_counter() - start,
    }
    data["ignore"] = [*ignored, *(data["modules"] or [])]
    data["next"] = "" if found is None else _follow_up(arguments, data["ignore"])
    return Outcome(data, _text(data, found, quality, search), found is not None)


def _check(arguments: argparse.Namespace) -> None:
    message = ""
    if arguments.quantize is None:
        message = "--quantize is required: layers are rounded or kept; --dtype is that of a whole compile"
    elif min(arguments.documents, arguments.tokens - 1, arguments.budget - 1) < 1:
        message = "--documents must be at least 1, --tokens and --budget at least 2"
    if message:
        usage = "usage: irc bisect precision MODEL -t TARGET --quantize SCHEME --quality METRIC=LIMIT"
        raise UsageError(message, usage, "irc bisect precision")


def _mixtures(arguments: argparse.Namespace, progress: Callable[[str], None]) -> Mixtures:
    from npuc.frontends.checkpoint import open_checkpoint
    from npuc.passes.bisection.precision import Mixtures
    from npuc.passes.compile import Compilation
    from npuc.passes.evaluation import Evaluator
    from npuc.passes.quantization_recipe import quantization_recipe

    options = {"revision": arguments.revision, "local_files_only": arguments.local_files_only}
    root = open_checkpoint(arguments.model, **options).root
    compilation = Compilation(
        arguments.model, arguments.target, dtype=arguments.dtype, compile_to="optimize", **options
    )
    progress("import")
    module, _ = compilation.lowered()
    progress("transformers")
    documents, exact = _documents(arguments, root, quantization_recipe(module, None))
    return Mixtures(module, arguments.quantize, Evaluator(root, arguments.target, ()), documents, exact)


def _documents(
    arguments: argparse.Namespace, root: Path, recipe: dict[str, Any] | None
) -> tuple[list[list[int]], list[Any]]:
    """Tokens of the documents, and their logits in transformers in float32."""
    import torch
    from npuc.runtime.reference import Reference
    from npuc.runtime.tokenizer import Tokenizer
    from npuc.runtime.verify import encode_documents, read_documents

    reference = Reference(root, torch.float32, recipe)
    if arguments.text is None:
        start = json.loads((root / "config.json").read_text()).get("bos_token_id") or 0
        documents = [reference.sample(start, arguments.tokens, seed) for seed in range(arguments.documents)]
    else:
        texts = read_documents(arguments.text)[: arguments.documents]
        documents = encode_documents(Tokenizer(root).encode, texts, arguments.tokens)
        documents = [tokens for tokens in documents if len(tokens) > 1]
    if not documents:
        raise UserError("bad-text", "no document has two tokens", where=str(arguments.text))
    return documents, [reference.logits(tokens) for tokens in documents]


def _follow_up(arguments: argparse.Namespace, ignored: list[str]) -> str:
    """The compile that keeps the layers, and the check that it is good enough."""
    words = ["irc", "compile", arguments.model, "-t", arguments.target]
    words += ["--dtype", arguments.dtype] if arguments.dtype else []
    words += ["--quantize", arguments.quantize, "--quantize-ignore", ",".join(ignored), "-o", "out"]
    check = ["irc", "verify", "out", "--against", arguments.model, "--quality", arguments.quality]
    if arguments.text is not None:
        check += ["--text", str(arguments.text), "--documents", str(arguments.documents)]
    return f"{shlex.join(words)} && {shlex.join(check)}"


def _text(data: dict[str, Any], found: Found | None, quality: Quality, search: MinimalSet) -> str:
    tried = f"{search.evaluations} evaluations, {duration(data['seconds'])}"
    metric, rows = quality.metric, [["all rounded", f"{data['before'][quality.metric]:.8g}"]]
    kept = "all kept" if found is None else f"{len(found.raised)} kept"
    rows.append([kept, f"{data['after'][metric]:.8g}"])
    summary = table(rows, ("", metric), right=(1,))
    if found is None:
        title = f"{quality} is missed even if no layer is rounded ({tried})"
        return f"{title}\n\n{summary}"
    count = f"{len(found.raised)} of {len(search.things)} layers must be kept"
    parts = [f"{count} for {quality} ({tried})", *(f"  {path}" for path in found.raised), "", summary, ""]
    if data["layers"]:
        ordered = sorted(data["layers"].items(), key=lambda item: search.costs[item[0]])
        cost = [[f"  {path}", f"{value:.8g}"] for path, value in ordered]
        parts += ["rounded alone, the most sensitive first:", table(cost, right=(1,)), ""]
    return "\n".join([*parts, f"{_guarantee(found)}", "", f"next: {data['next']}"])


def _guarantee(found: Found) -> str:
    """What is known of the set."""
    if not found.minimal:
        return "the budget was spent: these are enough, but fewer of them may be"
    if not found.smallest:
        return "without any one of these the quality is missed; other sets may be smaller"
    return "no smaller set is enough, if keeping more layers never hurts"
