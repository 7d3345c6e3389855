"""`make fuzz MINUTES=30`: generates modules until time is up, reduces what goes wrong and keeps it as a test.

The exit status is 1 if anything was found. Faults are told apart by their words; each is reduced once.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import findings
from cases import Case, compiles, encodings, function_passes, pass_orders, schedules, signature
from differential import Fault, Refused
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

STRATEGIES: dict[str, st.SearchStrategy[Case]] = {
    "rngd": compiles("rngd"),
    "toy": compiles("toy"),
    "passes": pass_orders(),
    "tile rngd": schedules("rngd"),
    "tile toy": schedules("toy"),
    "npu rngd": encodings("rngd"),
    "npu toy": encodings("toy"),
    "graph": function_passes("graph"),
    "nquant": function_passes("nquant"),
    "dist": function_passes("dist"),
}


@dataclass
class Campaign:
    """What was done so far.

    Attributes:
        end: when to stop.
        folder: where findings are kept.
        reduction: seconds to reduce one finding.
    """

    end: float
    folder: Path
    reduction: float = 180.0
    examples: Counter[str] = field(default_factory=Counter[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    known: dict[str, Path] = field(default_factory=dict[str, Path])

    def round(self, name: str, number: int, count: int = 25) -> None:
        """Some examples of a strategy; the first new fault among them is shrunk, reduced and kept."""
        failing: list[tuple[str, Case]] = []
        stop = self.end

        @seed(number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
        )
        @given(STRATEGIES[name])
        def run(case: Case) -> None:
            nonlocal stop
            if monotonic() > stop:
                return
            try:
                self.examples[name] += 1
                case.check()
            except Refused as refusal:
                self.refused[signature(refusal)] += 1  # pyright: ignore[reportArgumentType]
            except Fault as fault:
                words = signature(fault)
                if words in self.known or (failing and failing[0][0] != words):
                    return
                if not failing:
                    print(f"found: {fault}; shrinking", flush=True)
                    stop = monotonic() + self.reduction
                failing.append((words, case))
                raise

        try:
            run()
        except Exception:  # hypothesis raises the last fault, or that it does not fail again
            if not failing:
                raise
        if failing:
            words, case = failing[-1]
            case = findings.reduced(case, words, self.reduction)
            self.known[words] = findings.keep(case, words, self.folder)
            print(f"kept {self.known[words]}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first round; by default a new one")
    parser.add_argument("--only", choices=list(STRATEGIES), action="append", help="what to generate")
    parser.add_argument("--into", type=Path, default=findings.FOLDER, help="where findings are kept")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["IRC_PROGRESS"] = "0"
    start = monotonic()
    number = random.SystemRandom().randrange(1 << 30) if options.seed is None else options.seed
    campaign = Campaign(start + 60 * options.minutes, options.into)
    while monotonic() < campaign.end:
        for name in options.only or STRATEGIES:
            campaign.round(name, number)
            told = ", ".join(f"{count} {key}" for key, count in campaign.examples.items())
            found = f"{len(campaign.known)} found"
            print(f"{monotonic() - start:5.0f} s, seed {number}: {told}; {found}", flush=True)
            number += 1
    for words, count in campaign.refused.most_common():
        print(f"refused {count} times: {words}")
    for words, path in campaign.known.items():
        print(f"{path}: {words}")
    return 1 if campaign.known else 0


if __name__ == "__main__":
    sys.exit(main())
