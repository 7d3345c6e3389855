"""What bounds a program, and what its busiest queue waits for, from its timeline."""

from __future__ import annotations

from collections import Counter
from typing import Any

from npuc.runtime.simulator.critical_path import FIXED, CriticalPath
from npuc.runtime.simulator.timeline import Timeline

SHOWN = 6


def explain(timeline: Timeline) -> dict[str, Any]:
    """The critical path of a program by queue and stage and by module, and the bounding queue's idle time.

    Shares are of the program's cycles. `bound` is the queue and the stage (or the commands' fixed part) in
    which most of the path is spent.
    """
    path = CriticalPath(timeline)
    stages, places = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for link in path.links():
        stages[link.queue, FIXED] += link.fixed
        stages[link.queue, link.stage] += link.data
        places[link.queue, link.location] += link.cycles
    cycles = max(timeline.cycles, 1)
    queue, stage = max(stages, key=lambda key: stages[key], default=("", ""))
    idle = path.waits_of(queue) if queue in timeline.queues else Counter[str]()
    return {
        "bound": {"queue": queue, "stage": stage, "share": stages[queue, stage] / cycles},
        "critical_path": [
            {"queue": q, "stage": s, "cycles": n, "share": n / cycles}
            for (q, s), n in stages.most_common()
            if n
        ],
        "modules": [
            {"queue": q, "location": where, "cycles": n, "share": n / cycles}
            for (q, where), n in places.most_common()
        ],
        "idle": {
            "share": idle.total() / cycles,
            "waits": [{"for": where, "cycles": n, "share": n / cycles} for where, n in idle.most_common()],
        },
    }


def lines(name: str, why: dict[str, Any]) -> list[str]:
    """The explanation as text, its largest parts first."""
    bound, idle = why["bound"], why["idle"]

    def listed(parts: list[dict[str, Any]], *names: str) -> str:
        shown = [f"{' '.join(p[n] for n in names)} {_percent(p['share'])}" for p in parts[:SHOWN]]
        return "; ".join(shown) or "nothing"

    return [
        f"{name} is bound by {bound['queue']} ({bound['stage']}): {_percent(bound['share'])} of its time",
        f"  critical path: {listed(why['critical_path'], 'queue', 'stage')}",
        f"  spent in: {listed(why['modules'], 'queue', 'location')}",
        f"  {bound['queue']} idles {_percent(idle['share'])}, waiting for: {listed(idle['waits'], 'for')}",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
