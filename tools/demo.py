"""`make demo`: compile the demonstration model, run it on the simulated NPU, compare with transformers."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import Any, cast

from npuc.tools import irc
from npuc.tools.command import duration, progress_bar, quiet_libraries, table
from npuc.tools.environment import NO_COLOR

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL, ARTIFACT = "demo/model", "build/demo"  # in the repository
TARGET = "rngd"
PROMPT = "When the operand"
NEW_TOKENS = 40
BUCKETS = {"prefill": "1x32", "decode": "1x128"}


def title(text: str) -> None:
    """Print a heading: a command as the user would type it, or a sentence."""
    bold = sys.stdout.isatty() and not NO_COLOR.value
    print(f"\n\033[1m{text}\033[0m" if bold else f"\n{text}", flush=True)


def on_the_npu() -> Any:
    """Generate greedily on the simulator."""
    from npuc.runtime.llm import LLM
    from npuc.runtime.sampling import SamplingParams

    with progress_bar() as bar:
        bar("generating", 0.0)
        count = 0

        def step(piece: object) -> None:
            nonlocal count
            count += 1
            bar("generating", count / NEW_TOKENS)

        parameters = SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0)
        return LLM(ARTIFACT).generate(PROMPT, parameters, on_piece=step)[0]


def in_transformers() -> tuple[str, list[int]]:
    """The same text, and its tokens, from transformers on the CPU."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = cast(Any, AutoTokenizer).from_pretrained(MODEL)
    model = cast(Any, AutoModelForCausalLM).from_pretrained(MODEL)
    tokens = tokenizer(PROMPT, return_tensors="pt")
    out = model.generate(**tokens, max_new_tokens=NEW_TOKENS, do_sample=False)
    new = out[0, tokens["input_ids"].shape[1] :].tolist()
    return tokenizer.decode(new, skip_special_tokens=True), new


def show_texts() -> bool:
    """Print both texts and whether they agree."""
    title(f"$ irc run {ARTIFACT} --prompt '{PROMPT}' --max-tokens {NEW_TOKENS}")
    ours = on_the_npu()
    text, tokens = in_transformers()
    for name, found in (("simulated NPU", ours.text), ("transformers", text)):
        print(f"\n  {name}:")
        for paragraph in f"{PROMPT}{found}".split("\n\n"):
            print(textwrap.indent(textwrap.fill(paragraph, 96), "    "))
    same = tokens == ours.token_ids
    agreement = "all tokens agree" if same else "THE TOKENS DIFFER"
    count, seconds = len(ours.token_ids), ours.simulated_seconds
    print(
        f"\n  {agreement}; {count} in {duration(seconds)} of the NPU's time, {count / seconds:,.0f} a second"
    )
    return same


NEXT = [
    [f"irc verify {ARTIFACT} --against {MODEL}", "every logit against transformers"],
    [f"irc objdump {ARTIFACT} --program decode_1x128", "each command, and the module it came from"],
    [f"irc sim {ARTIFACT} --sanitize", "look for races and reads of unwritten bytes"],
    [f"irc compile {MODEL} -t {TARGET} --compile-to tile", "the IR after any phase"],
    [f"irc compile MODEL -t {TARGET} -o OUT", "another checkpoint: a directory or a hub id"],
    ["irc --help", "everything else; irc is .venv/bin/irc"],
]


def main() -> int:
    """Run the demonstration; 1 if the texts differ or a command fails."""
    print("A language model, compiled for FuriosaAI's RNGD and run command by command on npuc's simulator.")
    os.chdir(REPOSITORY)
    quiet_libraries()
    buckets = [word for kind, text in BUCKETS.items() for word in (f"--{kind}-buckets", text)]
    words = ["compile", MODEL, "-t", TARGET, "-o", ARTIFACT, *buckets]
    title(f"$ irc compile {MODEL} -t {TARGET} -o {ARTIFACT} {' '.join(buckets)}")
    if irc.main(words):
        return 1
    same = show_texts()
    for command in ("inspect", "profile"):
        title(f"$ irc {command} {ARTIFACT}")
        if irc.main([command, ARTIFACT]):
            return 1
    title("What to try next")
    print(table(NEXT))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
