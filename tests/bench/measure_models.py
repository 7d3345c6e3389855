"""Measures every trained model beside the repository and writes docs/numbers.md: `make numbers`.

Each model is compiled in a process of its own, in fp32 and in bf16; all its programs are compared with
transformers on a text, every entry sanitized on its first run, and eight prompts are continued greedily.
Exits with 1 when a promise of docs/design.md is not kept.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from figures import HELP_SECONDS, PROMPTS, Measured, page
from greedy import beginnings, letters, npu_tokens, reference_tokens
from npuc.runtime.artifact import Artifact
from npuc.runtime.llm import LLM
from npuc.runtime.manifest import Manifest
from npuc.runtime.verify import verify
from sanitized import FirstRunsSanitized

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = "tinystories_valid.txt"
NEW_TOKENS, HELP_RUNS = 64, 11
LONG = {"prefill": "1x128", "extend": "1x128x512", "decode": "1x512,4x512"}
SHORT = {"prefill": "1x6", "extend": "1x4x11", "decode": "1x11,4x11"}  # a context of 11
MODELS = {
    "stories260K": LONG,
    "stories3M": LONG,
    "micro_lm_pro": LONG,
    "tiny-qwen3": LONG,
    "tiny-gemma3": LONG,
    "gpt_nano_sort": SHORT,
}


def irc(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs the driver in a process of its own."""
    command = [sys.executable, "-m", "npuc.tools.irc", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)


def child_seconds() -> float:
    """The processor time of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bucket_flags(buckets: dict[str, str]) -> list[str]:
    """As `irc compile` takes them."""
    return [word for kind, sizes in buckets.items() for word in (f"--{kind}-buckets", sizes)]


def help_seconds() -> float:
    """The best time of `irc --help`: other processes only add to it."""
    times: list[float] = []
    for _ in range(HELP_RUNS):
        start = time.perf_counter()
        irc("--help")
        times.append(time.perf_counter() - start)
    return min(times)


def sorting_prompts(manifest: Manifest) -> tuple[list[list[int]], int]:
    """Letters to sort, and how many tokens to add: they are written sorted behind the unsorted."""
    length = (manifest.max_context + 1) // 2
    return letters(length, manifest.vocab_size, PROMPTS), manifest.max_context + 1 - length


def measure(folder: Path, dtype: str, text: Path, work: Path) -> Measured:
    """Compiles a model and compares it with transformers."""
    output = work / f"{folder.name}-{dtype}"
    flags = [*bucket_flags(MODELS[folder.name]), "--dtype", dtype, "-o", str(output), "--json"]
    before = child_seconds()
    compiled = json.loads(irc("compile", str(folder), "-t", "rngd", *flags).stdout)
    compiled["cpu_seconds"] = child_seconds() - before
    device = FirstRunsSanitized(Artifact(output))
    llm = LLM(output, device=device)
    reads = (folder / "tokenizer.json").exists()
    found = verify(output, folder, text if reads else None, device=device)
    if reads:
        prompts, new_tokens = beginnings(text, llm.tokenizer.encode, PROMPTS), NEW_TOKENS
    else:
        prompts, new_tokens = sorting_prompts(llm.artifact.manifest)
    equal = None
    if dtype == "float32":
        ours = npu_tokens(llm, prompts, new_tokens)
        equal = sum(map(operator.eq, ours, reference_tokens(folder, prompts, new_tokens)))
    return Measured(folder.name, compiled, found, len(device.checked), len(device.hazards), equal, new_tokens)


def main() -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    data = os.environ.get("NPUC_TEST_DATA", str(REPOSITORY.parent / "shared"))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with models/ and text/")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "numbers.md")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    folders = [arguments.data / "models" / name for name in arguments.models]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        print(f"not there: {', '.join(missing)} (NPUC_TEST_DATA names another place)", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    seconds = help_seconds()
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory() as work:
        for folder in folders:
            for dtype in ("float32", "bfloat16"):
                measured.append(measure(folder, dtype, arguments.data / "text" / TEXT, Path(work)))
                print(f"{folder.name} {dtype}: {'kept' if measured[-1].kept else 'NOT KEPT'}", flush=True)
    flags, short_flags = (" ".join(bucket_flags(buckets)) for buckets in (LONG, SHORT))
    text = page(measured, seconds, flags=flags, short_flags=f"`{short_flags}`", text=TEXT)
    arguments.output.write_text(text, encoding="utf-8")
    return 0 if all(m.kept for m in measured) and seconds <= HELP_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
